//! Names, times, choices and settings: their bounds and their words.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_types, reason = "a name has a hash, and a set asks for it")]

use std::borrow::Borrow;
use std::collections::HashSet;
use std::time::Duration;

use castra_core::boundary::Remote;
use castra_core::capabilities::Capabilities;
use castra_core::config::{BrokerConfig, ConfigError};
use castra_core::entropy::Entropy;
use castra_core::id::{Epoch, GuestName, Nonce};
use castra_core::legacy::Record;
use castra_core::time::{Time, WallTime};

const NANO: Duration = Duration::from_nanos(1);

fn name(text: &str) -> GuestName {
    text.parse().unwrap()
}

fn checked(change: impl FnOnce(&mut BrokerConfig)) -> Result<(), ConfigError> {
    let mut config = BrokerConfig::default();
    change(&mut config);
    config.check()
}

#[test]
fn an_address_is_appended_as_it_is_shown() {
    let ports = [0, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 65_535];
    let octets = [[0, 9, 10, 99], [100, 101, 199, 255], [255; 4], [0; 4]];
    let v4 = octets.iter().flat_map(|octets| ports.map(|port| Remote::Ip((*octets, port).into())));
    let others = ["-", "[fe80::1]:9", "uid:0,pid:7", "cid:3,port:4"].map(|text| text.parse().unwrap());
    for remote in v4.chain(others) {
        let mut text = b"before ".to_vec();
        remote.append(&mut text);
        assert_eq!(String::from_utf8(text).unwrap(), format!("before {remote}"));
    }
}

#[test]
fn every_duration_has_its_range() {
    let (ms, hour) = (Duration::from_millis, Duration::from_secs(3600));
    for (interval, fine) in [(ms(10), true), (ms(10) - NANO, false), (hour, true), (hour + NANO, false)] {
        assert_eq!(checked(|config| (config.interval, config.window) = (interval, 5 * hour)).is_ok(), fine);
    }
    for (window, fine) in
        [(ms(30), true), (ms(30) - NANO, false), (24 * hour, true), (24 * hour + NANO, false)]
    {
        let result = checked(|config| (config.interval, config.window) = (ms(10), window));
        assert_eq!(result.is_ok(), fine, "{window:?}: {result:?}");
        assert!(!matches!(result, Err(ConfigError::WindowTooShort { .. })));
    }
    for (timeout, fine) in [(ms(10), true), (ms(10) - NANO, false), (hour, true), (hour + NANO, false)] {
        assert_eq!(checked(|config| config.handshake_timeout = timeout).is_ok(), fine);
    }
}

#[test]
fn a_window_holds_three_intervals() {
    let second = Duration::from_secs(1);
    for (window, fine) in
        [(3 * second, true), (3 * second - NANO, false), (4 * second, true), (second, false)]
    {
        let result = checked(|config| (config.window, config.interval) = (window, second));
        assert_eq!(result.is_ok(), fine, "{window:?}");
        if !fine {
            assert!(
                matches!(result, Err(ConfigError::WindowTooShort { interval_ms: 1000, .. })),
                "{result:?}"
            );
        }
    }
}

#[test]
fn a_session_lingers_for_ten_minutes_or_twenty_windows() {
    let with = |window| BrokerConfig { window, ..BrokerConfig::default() }.linger();
    assert_eq!(with(Duration::from_secs(15)), Duration::from_secs(600));
    assert_eq!(with(Duration::from_secs(31)), Duration::from_secs(620));
}

#[test]
fn a_stall_is_half_an_interval_and_at_least_a_second() {
    let with = |interval| BrokerConfig { interval, ..BrokerConfig::default() }.stall_threshold();
    for (interval, threshold) in [(100, 1000), (2000, 1000), (5000, 2500), (7000, 3500)] {
        assert_eq!(with(Duration::from_millis(interval)), Duration::from_millis(threshold));
    }
}

#[test]
fn time_saturates_at_both_ends() {
    let (early, late) = (Time::from_nanos(5), Time::from_millis(7));
    assert_eq!((late.as_nanos(), early.as_nanos()), (7_000_000, 5));
    assert_eq!(late.since(early), Duration::from_nanos(6_999_995));
    assert_eq!(early.since(late), Duration::ZERO);
    assert_eq!(early + Duration::from_nanos(3), Time::from_nanos(8));
    assert_eq!(early - Duration::from_nanos(3), Time::from_nanos(2));
    assert_eq!(early - Duration::MAX, Time::ZERO);
    assert_eq!(early + Duration::MAX, Time::MAX);
    assert_eq!(Time::from_millis(u64::MAX), Time::MAX);
}

#[test]
fn wall_time_is_shown_in_utc_and_counted_in_whole_seconds() {
    for (millis, seconds, text) in [
        (1_795_188_257_004, 1_795_188_257, "2026-11-20T15:24:17.004Z"),
        (1999, 1, "1970-01-01T00:00:01.999Z"),
        (-1, 0, "1969-12-31T23:59:59.999Z"),
        (i64::MAX, 9_223_372_036_854_775, "1970-01-01T00:00:00.000Z"),
    ] {
        let wall = WallTime::from_unix_millis(millis);
        assert_eq!((wall.unix_millis(), wall.unix_seconds()), (millis, seconds));
        assert_eq!(wall.to_string(), text);
        if millis != i64::MAX {
            let json = serde_json::to_string(&wall).unwrap();
            assert_eq!(serde_json::from_str::<WallTime>(&json).unwrap(), wall);
        }
    }
    assert!(serde_json::from_str::<WallTime>("\"yesterday\"").is_err());
}

#[test]
fn an_epoch_is_an_incarnation_and_a_counter() {
    let epoch = Epoch::new(7, 3);
    assert_eq!((epoch.0, epoch.incarnation(), epoch.counter()), (30_064_771_075, 7, 3));
    let last = Epoch(u64::MAX);
    assert_eq!((last.incarnation(), last.counter()), (u32::MAX, u32::MAX));
    assert!(Epoch::new(7, u32::MAX) < Epoch::new(8, 0));
}

#[test]
fn names_are_compared_byte_by_byte() {
    let (short, long) = (name("a"), name("ab"));
    assert!(short < long && short == name("a") && short != long);
    assert_eq!(short.partial_cmp(&long), Some(std::cmp::Ordering::Less));
    assert!(name("B") < name("a"), "case counts");
    assert_eq!((long.as_str(), long.as_bytes()), ("ab", &b"ab"[..]));
    let words: &str = long.borrow();
    assert_eq!(words, "ab");
    let set: HashSet<GuestName> = [short, long, name("a")].into();
    assert_eq!((set.len(), set.contains("a"), set.contains("b")), (2, true, false));
}

#[test]
fn nonces_match_when_they_are_equal() {
    let nonce = Nonce([7; 16]);
    let mut other = nonce;
    assert!(nonce.matches(&other));
    other.0[15] ^= 1;
    assert!(!nonce.matches(&other));
}

#[test]
fn chosen_nonces_are_counted_and_seeded_ones_differ() {
    let mut chosen = Entropy::chosen(0);
    assert_eq!([chosen.nonce().0, chosen.nonce().0].map(u128::from_be_bytes), [1, 2]);
    let mut short = [9; 3];
    chosen.fill(&mut short);
    assert_eq!(short, [0, 0, 3]);
    let mut exact = [9; 8];
    chosen.fill(&mut exact);
    assert_eq!(u64::from_be_bytes(exact), 4);
    let (mut one, mut same, mut another) =
        (Entropy::seeded([1; 32]), Entropy::seeded([1; 32]), Entropy::seeded([2; 32]));
    let first = one.nonce();
    assert_eq!(first, same.nonce());
    assert!(first != one.nonce() && first != another.nonce());
}

#[test]
fn a_jitter_is_a_fraction_of_its_range() {
    let second = Duration::from_secs(1);
    for (fraction, expected) in [(0, Duration::ZERO), (1 << 31, second / 2), (1 << 30, second / 4)] {
        assert_eq!(Entropy::chosen(fraction).jitter(second), expected);
    }
    let most = Entropy::chosen(u32::MAX).jitter(second);
    assert!(most < second && most > second - Duration::from_micros(1));
    assert!(Entropy::chosen(u32::MAX).jitter(Duration::MAX) < Duration::MAX);
    let mut entropy = Entropy::seeded([3; 32]);
    let drawn: HashSet<Duration> = (0..100).map(|_| entropy.jitter(second)).collect();
    assert!(drawn.len() == 100 && drawn.iter().all(|jitter| *jitter < second));
}

#[test]
fn a_capability_that_does_not_fit_leaves_its_place_to_a_shorter_one() {
    let of = |length: usize, count: usize| {
        (0..count).map(|number| format!("{number:0length$}")).collect::<Vec<_>>().join(",")
    };
    for (list, kept) in [
        (of(6, 20), 16),
        (of(7, 20), 14),
        (of(55, 20), 2),
        (format!("{},{},short", of(55, 1), "y".repeat(56)), 2),
        (format!("{},{},short", of(55, 1), "y".repeat(55)), 2),
        (format!("{},1", of(54, 2)), 3),
    ] {
        let capabilities = Capabilities::parse(&list);
        assert_eq!(capabilities.iter().count(), kept, "{list}");
        assert!(capabilities.as_str().len() < Capabilities::MAX_BYTES);
    }
}

#[test]
fn a_record_without_capabilities_does_not_name_them() {
    let record = |list| Record { vm: name("a"), timestamp: 7, capabilities: Capabilities::parse(list) };
    assert_eq!(serde_json::to_string(&record("")).unwrap(), r#"{"vm":"a","timestamp":7}"#);
    assert_eq!(
        serde_json::to_string(&record("b,a")).unwrap(),
        r#"{"vm":"a","timestamp":7,"capabilities":["a","b"]}"#
    );
}

#[test]
fn hex_has_sixteen_digits_and_no_neighbours_of_them() {
    for byte in 0..=u8::MAX {
        let expected = "0123456789abcdef".bytes().position(|digit| digit == byte);
        for place in 0..32 {
            let mut text = [b'0'; 32];
            text[place] = byte;
            let read = str::from_utf8(&text).ok().and_then(|text| text.parse::<Nonce>().ok());
            let value = read.map(|nonce| u128::from_be_bytes(nonce.0) >> (4 * (31 - place)));
            assert_eq!(value, expected.map(|value| value as u128), "{byte:#x} at {place}");
        }
    }
}

#[test]
fn the_words_of_peers_are_those_of_their_documents() {
    use castra_core::peers::{Policy, Presence};
    let json = |word: &str| serde_json::Value::from(word);
    for policy in [Policy::Default, Policy::Accept, Policy::Ask, Policy::Deny] {
        assert_eq!(serde_json::to_value(policy).unwrap(), json(policy.as_str()));
    }
    for presence in [Presence::Live, Presence::Restorable, Presence::Known, Presence::Missing] {
        assert_eq!(serde_json::to_value(presence).unwrap(), json(presence.as_str()));
    }
}
