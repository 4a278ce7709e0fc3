//! Printable ASCII as one word of a shell or a unit.

/// For a POSIX shell.
pub(super) fn shell(text: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !text.is_empty() && text.bytes().all(bare) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// For a command line in a unit of systemd.
pub(super) fn unit(text: &str) -> String {
    let expanded = text.replace('%', "%%").replace('$', "$$");
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%$+,".contains(&byte);
    if !text.is_empty() && expanded.bytes().all(bare) {
        return expanded;
    }
    format!("\"{}\"", expanded.replace('\\', r"\\").replace('"', "\\\""))
}

/// A line of words.
pub(super) fn line(words: &[String], quote: fn(&str) -> String) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}
