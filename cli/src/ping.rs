//! `castra ping`: how long the way to a guest is.

use std::time::{Duration, Instant};

use castra_core::control::reply::{ErrorCode, Pong};
use serde_json::json;

use crate::Context;
use crate::args::Ping;
use crate::client::{Client, ClientError};
use crate::duration::{format, millis};
use crate::exit::{Exit, Outcome};
use crate::output::say;
use crate::wait::GRACE;

/// Default of `--timeout`, for each question.
const TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn run(cx: &mut Context, args: &Ping) -> Outcome {
    let place = cx.place()?;
    let timeout = cx.timeout(TIMEOUT);
    let mut client = Client::connect(&place.socket, timeout)?;
    let mut times = vec![];
    let mut sent = 0;
    while sent < args.count && !cx.out.gone() {
        let began = Instant::now();
        sent += 1;
        let params = json!({"guest": args.name, "timeout_ms": millis(timeout)});
        match client.request("ping", params, timeout + GRACE) {
            Ok(reply) => {
                let pong: Pong = reply.parse()?;
                times.push(pong.rtt_us);
                if args.format.json {
                    cx.out.json(reply.data.get())?;
                } else {
                    let text =
                        format!("{}: {} ({sent} of {})", args.name, milliseconds(pong.rtt_us), args.count);
                    cx.out.line(&text)?;
                }
            }
            Err(ClientError::Refused(body)) if body.code == ErrorCode::Timeout => {
                say(format_args!(
                    "{}: no answer within {} ({sent} of {})",
                    args.name,
                    format(timeout),
                    args.count
                ));
            }
            Err(other) => return Err(other.into()),
        }
        if sent < args.count {
            cx.out.pause(args.interval.saturating_sub(began.elapsed()));
        }
    }
    if !args.format.json {
        cx.out.line(&summary(sent, &times))?;
    }
    Ok(if times.is_empty() { Exit::Timeout } else { Exit::Yes })
}

fn summary(sent: u32, times: &[u64]) -> String {
    let counts = format!("{sent} sent, {} answered", times.len());
    let (Some(least), Some(most)) = (times.iter().min(), times.iter().max()) else { return counts };
    let sum: u128 = times.iter().map(|&time| u128::from(time)).sum();
    // The mean of u64s is one.
    let mean = u64::try_from(sum / times.len() as u128).unwrap_or(u64::MAX);
    format!("{counts}, min/avg/max = {}/{}/{}", milliseconds(*least), milliseconds(mean), milliseconds(*most))
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1000, micros % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_and_averages_what_was_answered() {
        assert_eq!(
            summary(4, &[180, 300, 1_500]),
            "4 sent, 3 answered, min/avg/max = 0.180 ms/0.660 ms/1.500 ms"
        );
        assert_eq!(summary(2, &[]), "2 sent, 0 answered");
        assert_eq!(
            summary(2, &[u64::MAX, u64::MAX])
                .split(" = ")
                .nth(1)
                .unwrap()
                .matches("18446744073709551.615")
                .count(),
            3
        );
    }
}
