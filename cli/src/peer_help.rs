//! The long texts of peers' commands.

pub(crate) const PEER: &str = "\
Peers are two guests that know each other by name and may send each other texts, and nothing \
more: no files, no terminal, no action, no status of a third. `castra help peers` explains it all.

Examples:
  castra peer link devbox builder
  castra peer send devbox builder 'the tree is pushed'
  castra peers devbox";

pub(crate) const LINK: &str = "\
Let two guests be peers. Both sides or neither, durably; doing it again changes nothing. B may be \
the beginning of a name that fits one guest only; a whole name always wins.

What a guest wants counts: with `castra agent --peers deny` it is refused, with `ask` it is asked \
and has 2 seconds (`castra peer accept NAME` in the guest). Unless told, a guest takes whom the \
operator links, and is asked about whom another guest brings. Inside a guest give the other one's \
name alone; an unknown guest and one that would not are the same answer there.

Exit code: 0 they are peers; 1 busy; 2 the same guest twice, or the beginning of several names; 5 \
rejected; 6 unknown; 70 it could not be made durable.

Examples:
  castra peer link devbox builder
  castra peer link builder          (inside devbox)";

pub(crate) const UNLINK: &str = "\
Let two guests be peers no more, on both sides. Both are told, if they are there. Messages that \
wait between them expire (`unlinked`). It works whichever of them is off, forgotten or unwilling.

Examples:
  castra peer unlink devbox builder
  castra peer unlink builder        (inside devbox)";

pub(crate) const SEND: &str = "\
Send a text to a peer. TEXT has at most 32768 bytes; `-` reads it from standard input, without \
the last line's end. A text that begins with - needs -- before the names.

What becomes of it, with the exit code:
  delivered  0   it is in the other guest's inbox, durably
  queued     0   the other guest is not there; it is kept and delivered exactly once when it returns
  rejected   5   the other guest would not have it: it wants senders that are proven with a key
  expired    1   with --no-queue: it could not be delivered in time, and will not be
  not_peer   5   they are no peers: `castra peer link` first
  full       1   too much waits between the two already
  too_large  2   the text is too long; nothing was stored

--timeout (default 5s) bounds the wait for the delivery; after it a message is `queued`. With \
--key a retry after a lost answer is safe: the first message's outcome is returned.

Examples:
  castra peer send devbox builder 'build 4711 please'
  git log -1 | castra peer send devbox builder -
  castra peer send devbox builder ping --no-queue --timeout 2s
  castra peer send builder done --key build-4711      (inside devbox)";

pub(crate) const ACCEPT: &str = "\
Answer a guest that wants to be a peer, inside the guest that was asked. The question is an event, \
peer.offer, of the agent (`castra events --follow`), and stays open for 2 seconds. Whoever \
registers the other way round meanwhile has said yes, too.

Examples:
  castra peer accept devbox
  castra peer refuse devbox --reason 'not today'";

pub(crate) const PEERS: &str = "\
A guest and its peers: who may be seen, why, and what can be done with each. Inside a guest without \
a name.

Columns:
  GUEST          the name
  WHO            self, or peer
  STATE          live: reachable; restorable: not, and it has a start command; known: not reachable;
                 missing: forgotten by the host, `castra peer unlink` removes it
  AGE            since its newest proof
  LAST SENT      when the newest message to it was taken
  LAST RECEIVED  when the newest message from it was delivered
  QUEUED         messages to it that wait

All commands about peers:
  castra peer link A B            let two guests be peers
  castra peer unlink A B          let them be peers no more
  castra peers A                  whom A knows
  castra peer send A B TEXT       send a text in A's name
  castra inbox B                  what B was sent
  castra restore B                run B's start command and wait until it is there
Inside a guest the same commands find its agent by themselves (--socket, CASTRA_AGENT_SOCKET, else \
NAME/agent.sock in the default state directory), and take the guest's own name for granted:
  castra peer link B
  castra peer send B TEXT
  castra peers
  castra inbox --follow
  castra peer accept A, castra peer refuse A

What a peer may do: see the other's name and state, send it texts, and restore it. It gets no \
file, terminal, action, or status of a third guest. What waits for a guest that is off is kept for \
`castra broker --message-ttl` (7 days), up to --queue-messages (1000) and --queue-bytes (8MiB) for \
each sender.

Fields of --json: peers, a list of name, visibility, state, reachable, last_handshake_age_ms, \
last_sent_at, last_received_at, queued.

Examples:
  castra peers devbox
  castra peers devbox --json | jq -r '.peers[] | select(.queued > 0) | .name'";

pub(crate) const INBOX: &str = "\
What a guest was sent, oldest first. On the host it is the broker's copy: what is delivered, with \
when, and what still waits. Inside the guest it is the agent's inbox.

Each message is a line with when it was taken, who sent it, its id, and what there is to say: \
`unproven` (the sender's name was not proven with a key), `no wake` (it needs no attention), `waits` \
(not delivered yet). The text follows, with everything escaped that could trouble a terminal; \
--json has it as it is.

--follow goes on with what comes; on the host a message comes when it is delivered. --after ID gives \
what came after a message that was seen, of many the newest 1000. --timeout (default 5s) bounds the \
first answer.

Examples:
  castra inbox builder
  castra inbox --follow --json | while read -r line; do handle \"$line\"; done   (inside a guest)
  castra inbox --after msg-00112233445566778899aabbccddeeff                     (inside a guest)";

pub(crate) const RESTORE: &str = "\
Run a guest's start command on the host, and wait until the guest is reachable. One that is \
reachable already is left alone. From inside a guest it works for the guest's peers.

The command is in castra.toml, in the broker's state directory (or `castra broker --config FILE`):

  [guests.devbox]
  start = \"virsh start devbox\"

`castra reload` makes the broker read it again. The command is run by /bin/sh as the broker's user, \
in /, in a session of its own, with CASTRA_GUEST and CASTRA_STATE_DIR set; its output is in \
logs/start-NAME.log in the state directory. It may end or stay; a guest whose command still runs is \
not started twice.

--timeout (default 60s) bounds the wait. Exit code: 0 reachable; 4 not in time; 5 it has no start \
command, or the command failed; 6 unknown.

Examples:
  castra restore devbox
  castra restore devbox --timeout 3m && ssh devbox";

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::peers::{Listed, Presence, Visibility};

    #[test]
    fn peers_help_explains_every_field_and_every_state() {
        let listed = Listed {
            name: "devbox".parse().unwrap(),
            visibility: Visibility::Itself,
            state: Presence::Live,
            reachable: true,
            last_handshake_age_ms: None,
            last_sent_at: None,
            last_received_at: None,
            queued: 0,
        };
        let json = serde_json::to_value(&listed).unwrap();
        let mut words: Vec<String> = json.as_object().unwrap().keys().cloned().collect();
        for state in [Presence::Live, Presence::Restorable, Presence::Known, Presence::Missing] {
            words.push(state.as_str().into());
        }
        for word in words {
            let known =
                PEERS.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|have| have == word);
            assert!(known, "`castra help peers` does not mention {word}");
        }
    }
}
