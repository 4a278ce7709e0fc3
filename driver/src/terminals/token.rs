//! The token that clients of terminals show: 64 letters and digits in a file (0600).

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::broker::fill_random;
use crate::files::{READ_MAX, read_whole, write_whole};
use crate::own::check_owner;

/// Its length, in characters.
pub const TOKEN_LENGTH: usize = 64;

const CHARACTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("can't use the token file {path:?}: {error}")]
pub struct TokenError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

/// The token in the file. One that is no token of ours is replaced by a new one.
///
/// # Errors
/// The file can't be read or written.
pub fn read_or_create(path: &Path) -> Result<Zeroizing<String>, TokenError> {
    let failed = |error| TokenError { path: path.to_owned(), error };
    match read_whole(path, READ_MAX) {
        Ok((content, found)) => {
            let content = Zeroizing::new(content);
            let text = content.trim_ascii();
            if text.len() == TOKEN_LENGTH && text.iter().all(u8::is_ascii_alphanumeric) {
                // A file that others may read, or made, is no secret any more.
                if found.mode() & 0o077 == 0 && check_owner(&found).is_ok() {
                    return Ok(Zeroizing::new(text.iter().map(|byte| char::from(*byte)).collect()));
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let token = draw().map_err(failed)?;
    write_whole(path, token.as_bytes(), true).map_err(failed)?;
    Ok(token)
}

fn draw() -> io::Result<Zeroizing<String>> {
    let mut token = Zeroizing::new(String::with_capacity(TOKEN_LENGTH));
    while token.len() < TOKEN_LENGTH {
        let mut drawn = Zeroizing::new([0; TOKEN_LENGTH]);
        fill_random(&mut *drawn)?;
        // Bytes from 248 on would make some characters likelier than others.
        let fair = drawn.iter().filter(|byte| **byte < 248);
        let left = TOKEN_LENGTH - token.len();
        token.extend(fair.take(left).map(|byte| char::from(CHARACTERS[usize::from(*byte) % 62])));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_64_letters_and_digits_in_a_file_of_our_own_and_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let token = read_or_create(&path).expect("a token");
        assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).expect("a file"), *token);
        assert_eq!(read_or_create(&path).expect("the same"), token);
        fs::write(&path, format!("  {}\n", *token)).expect("a write");
        assert_eq!(read_or_create(&path).expect("the same"), token);
    }

    #[test]
    fn what_is_no_token_or_no_secret_any_more_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        for content in ["", "short", &"x".repeat(65), &"-".repeat(64)] {
            fs::write(&path, content).expect("a write");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a mode");
            let token = read_or_create(&path).expect("a token");
            assert_ne!(*token, content);
            assert_eq!(fs::read_to_string(&path).expect("a file"), *token);
        }
        let known = read_or_create(&path).expect("a token");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a mode");
        assert_ne!(read_or_create(&path).expect("another"), known);
        let known = read_or_create(&path).expect("the same");
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
            assert_ne!(read_or_create(&path).expect("another"), known, "its maker knows it");
        } else {
            println!("NOT TESTED: a token file cannot be given to another user here");
        }
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }
}
