//! `castra term wait`: the program's end.

use std::time::Duration;

use castra_core::terminals::Exit as Ended;
use castra_core::terminals::wire::Role;
use serde_json::json;

use super::client::Within;
use super::error::failure;
use super::follow::{Follow, Step, Wanted};
use super::name::TermName;
use super::{Found, TIMEOUT, signals};
use crate::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{ascii_json, printable};
use crate::term_args::{Door as DoorArgs, Wait, WaitFor};

/// Default of `--timeout`.
const PATIENCE: Duration = Duration::from_secs(30);

/// `castra term wait`.
pub(super) fn wait(cx: &mut Context, at: &DoorArgs, args: &Wait) -> Outcome {
    let WaitFor::Exit = args.target;
    let within = Within::new(cx.timeout(PATIENCE));
    let name = &args.terminal.name;
    let quick = Within::new(TIMEOUT.min(within.bound));
    let Found { door, client, row, .. } = Found::find(cx, at, name, Role::Stream, quick)?;
    if row.is_over() {
        let exit = Ended { code: row.exit_code.unwrap_or(-1), signal: row.exit_signal };
        return tell(cx, name, row.id, exit, args.format.json);
    }
    let (id, failed) = (row.id, |error| failure(error, name));
    let wanted = Wanted { session: id, role: Role::Stream, observe: true, history: Some(0) };
    let (mut follow, _) = Follow::attach(door, client, wanted, None, quick).map_err(failed)?;
    loop {
        match follow.wait(Some(within.end), None).map_err(failed)? {
            Some(Step::Exit(exit)) => return tell(cx, name, id, exit, args.format.json),
            Some(_) => {}
            None => {
                let lost = follow.lost_since().map_or("", |_| ", as far as is known: the connection is lost");
                let text = format!(
                    "{} still runs after {}{lost}",
                    printable(&name.to_string()),
                    crate::duration::format(within.bound)
                );
                return Err(Failure::new(Exit::Timeout, text));
            }
        }
    }
}

fn tell(cx: &mut Context, name: &TermName, id: u32, exit: Ended, json: bool) -> Outcome {
    let text = if json {
        let known = (exit.code >= 0 || exit.signal.is_some()).then_some(exit.code);
        let document = json!({"name": name.to_string(), "guest": name.place.0, "id": id,
            "exit_code": known, "exit_signal": exit.signal});
        ascii_json(&document.to_string()).into_owned()
    } else {
        format!("{} {}", printable(&name.to_string()), signals::ended(exit))
    };
    cx.out.line(&text)?;
    Ok(signals::verdict(exit))
}
