//! Signals by name, and how a program ended, in words.

use castra_core::terminals::Exit;

/// `signal KILL`, or its number where it has no name here.
pub(super) fn name(signal: i32) -> String {
    match signal_hook::low_level::signal_name(signal) {
        Some(name) => format!("signal {}", name.trim_start_matches("SIG")),
        None => format!("signal {signal}"),
    }
}

/// How a program ended: `exited 3`, `exited 137 (signal KILL)`.
pub(super) fn ended(exit: Exit) -> String {
    match exit.signal {
        Some(signal) => format!("exited {} ({})", exit.code, name(signal)),
        None if exit.code < 0 => "is gone, and nobody knows how it ended".into(),
        None => format!("exited {}", exit.code),
    }
}

/// The command's own exit code for that.
pub(super) fn verdict(exit: Exit) -> crate::exit::Exit {
    if exit.code == 0 && exit.signal.is_none() { crate::exit::Exit::Yes } else { crate::exit::Exit::No }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_with_its_signal_and_only_0_is_a_success() {
        for (code, signal, words, yes) in [
            (0, None, "exited 0", true),
            (3, None, "exited 3", false),
            (137, Some(9), "exited 137 (signal KILL)", false),
            (192, Some(64), "exited 192 (signal 64)", false),
            (0, Some(15), "exited 0 (signal TERM)", false),
            (-1, None, "is gone, and nobody knows how it ended", false),
        ] {
            let exit = Exit { code, signal };
            assert_eq!(ended(exit), words);
            assert_eq!(verdict(exit) == crate::exit::Exit::Yes, yes, "{words}");
        }
    }
}
