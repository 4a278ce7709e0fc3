//! Output whose every byte follows from its offset.

/// Writes lines of 15 digits and CR LF, as fast as it can, for a very long time.
pub(crate) const FLOOD: &str = "exec seq -f %015.0f 0 999999999";

/// Bytes of a line on the terminal.
const LINE: u64 = 17;

/// The same, 17 kB at a time, some 300 kB a second.
pub(crate) fn paced_flood() -> String {
    "i=0; while :; do seq -f %015.0f $i $((i + 999)); i=$((i + 1000)); sleep 0.05; done".to_owned()
}

/// The first of `bytes` that isn't what such a program writes from `offset` on.
pub(crate) fn flooded(offset: u64, bytes: &[u8]) -> Result<(), String> {
    let mut line = Vec::new();
    let mut number = u64::MAX;
    for (place, byte) in (offset..).zip(bytes) {
        if number != place / LINE {
            number = place / LINE;
            line = format!("{number:015}\r\n").into_bytes();
        }
        let expected = line[usize::try_from(place % LINE).unwrap()];
        if *byte != expected {
            return Err(format!("at {place}: {byte:#x} instead of {expected:#x}"));
        }
    }
    Ok(())
}
