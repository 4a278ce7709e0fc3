//! Whether a text is well-formed XML: enough of it for what is drawn here.

/// Goes through `text` (after a doctype, if there is one).
///
/// # Errors
/// What is wrong, and about where.
pub(crate) fn well_formed(text: &str) -> Result<(), String> {
    let text = text.strip_prefix("<!DOCTYPE html>").unwrap_or(text);
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        characters(&rest[..at])?;
        rest = &rest[at + 1..];
        let end = tag_end(rest)?;
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            match open.pop() {
                Some(expected) if expected == name => {}
                other => return Err(format!("</{name}> closes {other:?}")),
            }
            continue;
        }
        let (tag, alone) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(format!("<{name}> is no element"));
        }
        check_attributes(attributes)?;
        if !alone {
            open.push(name);
        }
    }
    characters(rest)?;
    if open.is_empty() { Ok(()) } else { Err(format!("never closed: {open:?}")) }
}

/// Where the tag ends; a `>` within quotes doesn't count.
fn tag_end(rest: &str) -> Result<usize, String> {
    let mut quoted = false;
    for (at, character) in rest.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '>' if !quoted => return Ok(at),
            '<' => return Err(format!("a < inside a tag: {}", &rest[..at])),
            _ => {}
        }
    }
    Err("a tag without an end".into())
}

fn check_attributes(mut text: &str) -> Result<(), String> {
    let mut seen = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Ok(());
        }
        let (name, after) = text.split_once("=\"").ok_or_else(|| format!("no attribute: {text}"))?;
        if seen.contains(&name) || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == ':') {
            return Err(format!("bad or double attribute: {name}"));
        }
        seen.push(name);
        let (value, after) = after.split_once('"').ok_or_else(|| format!("unquoted: {name}"))?;
        characters(value)?;
        text = after;
    }
}

/// Every `&` begins a reference, and no control character is there.
fn characters(text: &str) -> Result<(), String> {
    if let Some(character) = text.chars().find(|c| c.is_control() && *c != '\n') {
        return Err(format!("control character {}", character.escape_unicode()));
    }
    for (at, _) in text.match_indices('&') {
        let reference = text[at + 1..].split(';').next().unwrap_or_default();
        if !matches!(reference, "amp" | "lt" | "gt" | "quot" | "#39") {
            return Err(format!("unknown reference &{reference};"));
        }
    }
    Ok(())
}

#[test]
fn what_is_not_well_formed_is_found() {
    for good in ["<a/>", "<a b=\"c\"><d>x &lt; y</d></a>", "<!DOCTYPE html><p></p>"] {
        assert_eq!(well_formed(good), Ok(()), "{good}");
    }
    for bad in
        ["<a>", "<a></b>", "<a b=c/>", "<a b=\"1\" b=\"2\"/>", "x & y", "<a>\u{1}</a>", "<a", "<a b=\"<\"/>"]
    {
        assert!(well_formed(bad).is_err(), "{bad}");
    }
}
