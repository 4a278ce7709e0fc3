//! The long texts of managed attach.

pub(crate) const ADOPT: &str = "\
Have a guest attach itself to this broker as its manager. Nothing is set up in the guest: its agent \
is told where to attach, and with which code, and does so. From then on `castra action send` types \
into the terminals that the agent hosts. Adopted is adopted until `castra release`: over lost links, \
and over restarts of the agent and the broker.

The guest attaches over HTTP if the broker has `--manager ADDRESS`, and the guest can tell where \
that is: `--manager-advertise`, else the address at which it reached the broker itself. Otherwise, \
and with --link, over its own link. Doing it again changes nothing while it is attached, and \
sends a new code while it is not.

An agent lets itself be adopted only by a broker that proved itself with the guest's token (`castra \
token issue`), unless it runs with --trust-unkeyed-broker: a manager types into its terminals.

--timeout (default 30s) bounds the wait; the adoption stays after it, and goes on by itself. \
Exit code: 0 attached, or with --no-wait adopted; 4 not in time; 5 the guest refused or gave up, or \
it is adopted otherwise (another --beach, or not over the link); 6 unknown guest.

Fields of --json: guest, session_id, private_beach_id, manager_url, handshake_id, stage.

Examples:
  castra adopt web-1
  castra adopt web-1 --link --timeout 5s
  castra adopt web-1 --beach 6f1c0d3e-build --no-wait";

pub(crate) const RELEASE: &str = "\
Let go of an adopted guest. What waits for it is dropped, its token is worth nothing from then on, \
and the guest is told if it is there. Its next adoption is a new session.

Exit code: 0 released; 1 it is not adopted; 6 unknown guest.

Example:
  castra release web-1";

pub(crate) const ATTACHMENTS: &str = "\
Who is adopted, how far it got, and how actions reach it. Inside a guest it asks the agent, which is \
found by itself: what it attaches to, which attempt that is, and why the last one failed.

Columns:
  GUEST       the name
  STAGE       pending: not attached yet; attached
  ROUTE       how actions travel now: link (at once) or http (the guest asks for them); - they can't
  QUEUED      actions that wait
  LEASE       how long the guest's lease still lasts, which it renews; without one it takes no action
  POLLED      since it asked last over HTTP
  ATTEMPT     of this series, the one that is under way or was last
  TRIED       since that one began
  RETRY       when the next attempt begins; - there is none, as far as is known
  MANAGER     where it attaches; link: is its own link
  SESSION     the attachment's name, until `castra release`
  LAST ERROR  why the last attempt failed, or the guest refused

What to do about a LAST ERROR:
  unkeyed_link     the broker has not proven itself: `castra token issue GUEST`, and start the agent
                   with --token-file; or start it with --trust-unkeyed-broker
  untrusted_url    start the agent with --manager-url URL, or adopt over a keyed link
  unreachable, timed_out, link_lost
                   the guest can't reach MANAGER: `castra broker --manager-advertise URL`, or release
                   it and `castra adopt GUEST --link`
  no_token, no_block, malformed, mismatch
                   the manager's handshake lacks something or contradicts itself
  expired, invalid_code, unknown_session
                   the code was not used in time, or is another's: `castra adopt GUEST` sends a new one
  bad_answer, http_NNN
                   what answers at MANAGER is no manager, or would not (4xx), or is in trouble (5xx)
  storage_failed   the broker's disk; released: the manager let go of the guest

With --wait, inside a guest: until it is attached; --timeout (default 30s) bounds that, and exit code \
4 says that it is not.

Fields of --json: attachments, a list of guest, session_id, private_beach_id, manager_url, \
handshake_id (null: the agent's environment), stage, route, code_expires_in_ms, lease_expires_in_ms, \
last_poll_age_ms, queued, attempt, failure_count, last_attempt_age_ms, next_retry_ms, last_error (code, message).

Examples:
  castra attachments
  castra attachments --json | jq -r '.attachments[] | select(.stage == \"pending\") | .guest'
  castra attachments --wait --timeout 1m && start-work      (inside a guest)";

pub(crate) const ACTION: &str = "\
Have an adopted guest do something. There is one kind, terminal_write: its agent types bytes into a \
terminal that it hosts, as `castra agent --exec COMMAND` or --terminals does.

Examples:
  castra action send web-1 --payload '{\"bytes\":\"make -j4\\n\"}'
  castra action list";

pub(crate) const SEND: &str = "\
Have an adopted guest do something, and say what became of it. It is kept until the guest has said \
so, over lost links and restarts, and applied at most once.

A payload of terminal_write is {\"bytes\": TEXT} or {\"bytes\": [NUMBERS]}, with \"terminal\": NAME for \
another terminal than `main`; \\n in the text is the Enter key of most programs. Arguments of a command \
are visible to everybody on this machine: with --payload - it is read from standard input.

What becomes of it, with the exit code:
  ok         0   it was typed
  queued     4   it waits still after --timeout (default 30s), and stays; with --no-wait 0
  expired    4   the guest did not take it within --ttl (default 10m); it was not typed
  rejected   5   it was not typed, or with `interrupted` or `timed_out` perhaps in part
  preempted  5   somebody owns the terminal

Refused at once, and not queued (exit code 1): not_attached, guest_offline (neither reachable nor \
asking over HTTP), missing_lease, full (500 wait). 6 unknown guest.

Fields of --json: guest, id, status, error_code.

Examples:
  castra action send web-1 --type terminal_write --payload '{\"bytes\":\"uptime\\n\"}'
  castra action send web-1 --payload '{\"terminal\":\"build\",\"bytes\":[3]}' --ttl 10s
  jq -n --rawfile b note.txt '{bytes:$b}' | castra action send web-1 --payload -";

pub(crate) const LIST: &str = "\
Which actions wait, oldest first, for one guest or all. An action leaves by the guest's word, by its \
expiry, or with `castra release`.

Columns:
  GUEST    for whom
  ID       the action
  TYPE     its kind
  STATE    queued, or sent: the guest has it, and has not said what became of it
  AGE      since it was taken
  EXPIRES  when it is dropped

Fields of --json: actions, a list of guest, id, action_type, age_ms, expires_in_ms, sent; total.

Examples:
  castra action list
  castra action list web-1 --json";

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::attach::wire::AttachErrorCode;
    use castra_core::attach::{ManagerUrl, Stage};
    use castra_core::control::attach::{ActionAnswer, ActionRow, Adopted, AttachmentRow};

    fn explains(help: &str, row: &impl serde::Serialize, words: &[&str]) {
        let json = serde_json::to_value(row).unwrap();
        let fields = json.as_object().unwrap().keys().map(String::as_str);
        for word in fields.chain(words.iter().copied()) {
            let known =
                help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|have| have == word);
            assert!(known, "the help does not mention {word}");
        }
    }

    #[test]
    fn the_help_explains_every_field_and_every_error() {
        let (guest, id) = ("web-1".parse().unwrap(), || "x".parse().unwrap());
        let codes = [
            AttachErrorCode::UnkeyedLink,
            AttachErrorCode::UntrustedUrl,
            AttachErrorCode::Mismatch,
            AttachErrorCode::NoBlock,
            AttachErrorCode::Malformed,
            AttachErrorCode::NoToken,
            AttachErrorCode::Expired,
            AttachErrorCode::Unreachable,
            AttachErrorCode::TimedOut,
            AttachErrorCode::BadAnswer,
            AttachErrorCode::LinkLost,
            AttachErrorCode::UnknownSession,
            AttachErrorCode::InvalidCode,
            AttachErrorCode::StorageFailed,
            AttachErrorCode::Released,
        ];
        let row = AttachmentRow {
            guest,
            session_id: id(),
            private_beach_id: id(),
            manager_url: ManagerUrl::Link,
            handshake_id: None,
            stage: Stage::Pending,
            route: None,
            code_expires_in_ms: None,
            lease_expires_in_ms: None,
            last_poll_age_ms: None,
            queued: 0,
            attempt: None,
            failure_count: None,
            last_attempt_age_ms: None,
            next_retry_ms: None,
            last_error: None,
        };
        explains(ATTACHMENTS, &row, &codes.map(AttachErrorCode::as_str));
        let adopted = Adopted {
            guest,
            session_id: id(),
            private_beach_id: id(),
            manager_url: ManagerUrl::Link,
            handshake_id: id(),
            stage: Stage::Pending,
        };
        explains(ADOPT, &adopted, &[]);
        let action =
            ActionRow { guest, id: id(), action_type: "x".into(), age_ms: 0, expires_in_ms: 0, sent: false };
        explains(LIST, &action, &["actions", "total"]);
        let answer = ActionAnswer { guest, id: id(), status: "ok".into(), error_code: None };
        explains(SEND, &answer, &["ok", "queued", "expired", "rejected", "preempted"]);
    }
}
