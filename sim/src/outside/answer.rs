//! A strict reader of HTTP/1.1 answers: what it takes is an answer to everybody.

use std::time::Duration;

/// A whole answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
    /// The connection goes on.
    pub(super) goes_on: bool,
    /// Bytes of it, head and body.
    pub(super) length: usize,
}

/// Longest head.
const HEAD_MAX: usize = 16 * 1024;

/// Reads an answer. `None`: it is not whole yet.
///
/// # Errors
/// It is none, or its body is longer than `most`.
pub(super) fn read(bytes: &[u8], most: usize) -> Result<Option<Answer>, &'static str> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_MAX { Err("the head is too long") } else { Ok(None) };
    };
    let head = str::from_utf8(&bytes[..end]).map_err(|_| "the head is no text")?;
    let mut lines = head.split("\r\n");
    let line = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).ok_or("no HTTP/1.1")?;
    let status = line.get(..3).filter(|_| line.as_bytes().get(3).is_none_or(|byte| *byte == b' '));
    let status: u16 = status.and_then(|digits| digits.parse().ok()).ok_or("no status")?;
    let (mut length, mut retry_after, mut goes_on) = (None, None, true);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
        if name.is_empty() || name.contains(|byte: char| byte.is_ascii_whitespace()) {
            return Err("a header without a name");
        }
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" if length.is_none() => {
                length = Some(value.parse::<usize>().map_err(|_| "a length that is no number")?);
            }
            "content-length" => return Err("two lengths"),
            "transfer-encoding" => return Err("chunks"),
            "retry-after" => retry_after = value.parse().ok().map(Duration::from_secs),
            "connection" => goes_on = !value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let length = length.ok_or("no length")?;
    if length > most {
        return Err("the body is too long");
    }
    let body = bytes[end + 4..].get(..length).map(<[u8]>::to_vec);
    let length = end + 4 + length;
    Ok(body.map(|body| Answer { status, retry_after, body, goes_on, length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_wherever_it_is_cut() {
        let bytes = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\ncontent-length: 2\r\n\r\nokmore";
        for cut in 0..bytes.len() - 4 {
            assert_eq!(read(&bytes[..cut], 10), Ok(None), "{cut}");
        }
        let answer = read(bytes, 10).expect("an answer").expect("a whole one");
        assert_eq!((answer.status, answer.body.as_slice(), answer.goes_on), (429, b"ok".as_slice(), true));
        assert_eq!(answer.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(answer.length, bytes.len() - 4);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bad in [
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\ncontent-length: 0\r\n\r\n",
        ] {
            assert!(read(bad.as_bytes(), 10).is_err(), "{bad}");
        }
    }
}
