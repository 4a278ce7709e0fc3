//! `castra token`: secrets, which appear once, and nowhere else.

use std::io::Write;
use std::path::Path;

use castra_core::control::reply::{TokenIssued, TokenListed};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::Context;
use crate::args::{Token, TokenIssue};
use crate::client::shown;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::say;
use crate::simple::{DURABLE, QUICK, ask, finish};

pub(crate) fn run(cx: &mut Context, args: &Token) -> Outcome {
    match args {
        Token::Issue(args) => issue(cx, args),
        Token::List(format) => {
            let reply = ask(cx, "token_list", json!({}), QUICK)?;
            if format.json {
                cx.out.json(reply.data.get())?;
                return Ok(Exit::Yes);
            }
            let listed: TokenListed = reply.parse()?;
            for token in &listed.tokens {
                let word = if token.valid { "valid" } else { "revoked" };
                cx.out.line(&format!("{word:7}  {}", token.guest))?;
            }
            Ok(Exit::Yes)
        }
        Token::Revoke(args) => {
            let reply = ask(cx, "token_revoke", json!({"guest": args.name}), DURABLE)?;
            finish(
                cx,
                &reply,
                args.format,
                format_args!(
                    "{0} has no valid token now: `castra token issue {0}` gives it a new one",
                    args.name
                ),
            )
        }
    }
}

fn issue(cx: &mut Context, args: &TokenIssue) -> Outcome {
    let name = &args.guest.name;
    // The file first: a token that can't be kept must not replace one that works.
    let file = args.out.as_deref().map(|path| prepare(path).map(|file| (path, file))).transpose()?;
    let reply = ask(cx, "token_issue", json!({"guest": name}), DURABLE)?;
    if args.guest.format.json {
        cx.out.json(reply.data.get())?;
        return Ok(Exit::Yes);
    }
    let issued: TokenIssued = reply.parse()?;
    match file {
        Some((path, file)) => {
            store(file, path, &issued.token)?;
            say(format_args!(
                "{name}'s token is in {0}: give it to the guest, for example with `castra agent --token-file {0}`",
                shown(path)
            ));
        }
        None => {
            cx.out.line(&issued.token)?;
            say(format_args!(
                "this is {name}'s token, shown this once: give it to the guest in a file of mode 0600 (--token-file)"
            ));
        }
    }
    Ok(Exit::Yes)
}

/// A temporary file of mode 0600 beside `path`.
fn prepare(path: &Path) -> Result<NamedTempFile, Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    NamedTempFile::new_in(folder)
        .map_err(|error| Failure::io(format_args!("can't write to {}", shown(folder)), &error))
}

fn store(mut file: NamedTempFile, path: &Path, token: &str) -> Result<(), Failure> {
    let lost = |error: &std::io::Error| {
        Failure::io(
            format_args!("the token was issued and could not be kept in {}; issue another", shown(path)),
            error,
        )
    };
    writeln!(file, "{token}").and_then(|()| file.as_file().sync_all()).map_err(|error| lost(&error))?;
    file.persist(path).map(drop).map_err(|error| lost(&error.error))
}
