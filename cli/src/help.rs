//! The long texts of `--help`.

pub(crate) const CASTRA: &str = "\
Tells the truth about guests: who is reachable now, since when, and if not, why not.

A broker on the host (`castra up`) challenges an agent in every guest (`castra agent`); \
`castra status` says who answered within the window. Try `castra demo`.";

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
   0  yes, or done       4  timeout
   1  no                 5  refused or forbidden
   2  usage              6  unknown guest or terminal
   3  no broker serves, or it does not answer in time
  70  internal error    73  another broker owns the state directory";

pub(crate) const STATUS: &str = "\
Who is reachable? Never blocks: an absent broker is noticed at once, a stopped one after \
--timeout (default 1s), and then every known guest is offline.

Columns of the table:
  GUEST    the guest's name
  BROKER   its state, see below
  REASON   why it is not reachable, see below; warnings in brackets
  AGE      since the newest completed exchange of challenge and proof, counted from when the
           challenge was sent, on a clock that runs through suspend; - if this broker has none
  WINDOW   how old that may be while the guest counts as reachable
  SESSION  how long its session has lasted; - without one
  VIA      what carries its link, from where; `keyed` if it proved itself with a token

States:
  reachable  a session (or one-shot proof) exists and AGE is within WINDOW, judged when asked
  waiting    the broker serves, and the guest has not proven itself within the window
  offline    no broker serves: nobody can tell

Reasons:
  never_seen            no proof of it was ever known
  handshaking           it said hello and has not proven itself yet
  stale                 its newest proof is older than the window
  disconnected          its link ended without a goodbye
  goodbye               it took leave
  refused               its last handshake was refused
  unproven              it speaks castra 0.1, which proves nothing
  broker_started        known from before this broker started, not proven since
  broker_stalled        the broker itself did not run for a while; the guest is being asked
  clock_jumped          the host was suspended; the guest is being asked
  name_conflict         several guests fight for the name
  no_broker             no broker serves
  broker_not_answering  a broker is there and does not answer within --timeout

Warnings, beside any state: unproven (the evidence is a claim, not a proof), name_conflict (more \
than three takeovers in ten seconds), version_skew (agent and broker of different versions).

Fields of --json (schema 1; ages count suspend; null means there is none):
  schema, as_of           the document's version; when it was begun
  name, state, reachable, reason, warnings
                          as above; reason is null exactly when reachable is true
  proven, authenticated   whether the evidence answered a challenge; whether with a key
  last_handshake_age_ms   AGE
  last_handshake_at       wall-clock time of the newest proof ever known
  session_age_ms          SESSION
  window_ms, interval_ms  the window; how often the guest is challenged
  epoch, boot             the session's number; the guest's boot, shortened
  transport, remote       VIA
  rtt_us                  from the newest answered challenge to its answer
  handshakes, refusals, takeovers
                          exchanges completed, handshakes refused, sessions superseded
  capabilities, peers, attachment
                          what it says it can do; its peers; its managed attachment
  broker                  state (serving, draining, not_answering, offline), pid, version,
                          started_at, incarnation, listen, and how many guests are reachable

Exit code: without names 0 if the broker serves; with names 0 only if all are reachable, else 1; \
3 if no broker serves or it does not answer; 6 if a name is unknown.

Examples:
  castra status
  castra status devbox && ssh devbox
  castra status --json | jq -r '.guests[] | select(.reachable) | .name'";

pub(crate) const WAIT: &str = "\
Wait until guests are reachable, or no longer are. The broker answers the moment it is so; \
nothing is polled.

Names that were never seen are waited for like the others. --timeout is 30s if not given; then \
the exit code is 4, at most a second late even if the broker stopped answering.

Examples:
  castra wait devbox
  castra wait devbox builder --timeout 2m
  castra wait devbox builder --for waiting --any";

pub(crate) const CONSOLE: &str = "\
One guest on the whole terminal: its state, how old its newest proof is against the window, its \
peers, the messages to it, and commands. Needs a terminal; castra status, castra peers and \
castra inbox print the same as lines. Inside a guest it asks the agent, and NAME may be left out.

Commands, after a colon (Tab completes, Up and Down go through the earlier ones):
  :peer NAME                         let NAME and this guest be peers of each other
  :unpeer NAME                       let them be peers no more; what waits between them expires
  :send NAME TEXT                    tell a peer
  :peers, :inbox                     show the peers or the messages alone; Esc shows both again
  :wait [NAME] [reachable|waiting]   say when it is so, for 30s at most
  :accept NAME, :refuse NAME         inside a guest: answer one that wants to be a peer
  :help, :quit                       also ?, and q or Ctrl-C

PgUp and PgDn scroll. Nothing is sent while there is no broker or no such guest, and one command \
is sent at a time: the console says so. :send also needs the guest to be reachable; :peer and \
:unpeer do not. When the broker is away the console says offline and tries again for as long as it \
takes.

Exit code: 0 when left, 2 without a terminal, 129, 130 or 143 when ended by HUP, INT or TERM.

Examples:
  castra console devbox
  castra console --socket /run/castra/devbox/agent.sock";

pub(crate) const PING: &str = "\
Ask a guest for a sign of life, and time it. The answer's time is not evidence for `castra \
status`; it tells how long the way is.

--timeout (default 2s) bounds each question. Exit code: 0 if any was answered, 4 if none was, \
1 if the guest is not reachable, 6 if it is unknown.";

pub(crate) const EVENTS: &str = "\
What happened, from the broker, which keeps the newest 8192 events: every handshake, session, \
change of verdict, conflict, stall. Text lines are those of the log.

Without --follow: what is kept, oldest first. With it: what happens from now on, after \
what came after --since. --timeout (default 5s) bounds the first answer.

Examples:
  castra events --follow --kind verdict.changed
  castra events --json --since 7-1042";

pub(crate) const LOGS: &str = "\
What happened, from logs/broker.log in the state directory and its rotated predecessors. It \
works without a broker.

Examples:
  castra logs --since 5m --guest devbox
  castra logs --since 2h --until 1h --level warn --fold
  castra logs -f";

pub(crate) const FORGET: &str = "\
Delete a guest's row and its record. Its session, if it has one, ends. Its token, if it had \
one, stays: a name that was ever keyed is never believed without a key.";

pub(crate) const TOKEN_ISSUE: &str = "\
Give a guest a new token: 64 hex digits, printed alone on standard output, this once. The old \
token and the guest's session end. From then on the name is never believed without a key.

Example:
  castra token issue devbox --out devbox.token";

pub(crate) const UP: &str = "\
Start a broker in the background, unless one serves already: then say so and change nothing. \
It is ready when the command ends; --timeout (default 5s) bounds the wait, and if it fails the \
broker's own words are shown.";

pub(crate) const DOWN: &str = "\
Stop the broker: it takes leave of its guests and ends. --timeout (default 10s) bounds the \
wait. Without a broker there is nothing to do, which is no error.

A broker that does not answer is left alone and named; --force ends it: TERM, then KILL, and \
only the process that is seen to hold the state directory's lock.";

pub(crate) const BROKER: &str = "\
Be the broker, in the foreground. TERM and INT take leave of all guests and end it, a second one \
ends it at once; HUP reads the configuration again and reopens the logs. A second broker on one \
state directory says who is there and ends with 73.

With --terminals it serves terminals of this machine too, and leads to those of guests whose agents \
serve some: `castra help term`. They go on when it ends, unless --terminals-on-stop end is given.

With --manager it answers guests that it adopted over HTTP, too: `castra help adopt`. The bearer that \
they show goes in clear text there: over anything but the loopback or a host's own network, put a \
proxy with TLS before it, and say --manager-advertise https://HOST.

Examples:
  castra broker --listen tcp:127.0.0.1:7070 --guest devbox
  castra broker --listen unix:/run/vm/devbox.sock,serial --window 6s --interval 2s
  castra broker --terminals
  castra broker --listen tcp:10.0.2.2:7070 --manager 10.0.2.2:7171
  castra broker --listen tcp:127.0.0.1:0 --json";

pub(crate) const AGENT: &str = "\
Be a guest's agent: answer the broker's challenges, reconnect for ever, take leave on TERM and \
INT. What happens is told on standard error.

The guest's token comes from --token-file, else the systemd credential castra.token, else the \
QEMU firmware entry opt/castra/token, else CASTRA_TOKEN. It is never an argument. An agent with \
a token tells nothing to a broker that does not know it.

Inside the guest the agent offers a control socket of its own, where `castra status`, `wait` and \
`ping` work for the guest and its peers: --socket, else NAME/agent.sock in the default state \
directory.

Other guests become its peers as --peers says, and then can send it messages. They are kept in the \
directory of --inbox, and read through that socket. Where the default directory can't be written, \
as on a read-only root, the agent runs without an inbox and the guest takes no part. `castra agent \
hold` and `castra agent resume`, run beside it, tell it whether this guest may ask others to be \
its peers.

With --terminals it serves terminals of the guest, inside it and to the broker: `castra help term`. \
The broker may reach them only on a session that is proven with a token on both sides, unless \
--trust-unkeyed-broker is given: whoever may use its control socket is then whoever runs programs here. \
The same holds for managers that the broker names, and for the actions that it sends: `castra adopt` \
on the host attaches the guest, and `castra attachments` here shows how far that is. --exec COMMAND \
starts a program on a terminal named main, which is then adopted by name.

Where no broker sends a handshake, the manager of PRIVATE_BEACH_MANAGER_URL is attached to, with \
PRIVATE_BEACH_ID, PRIVATE_BEACH_SESSION_PASSCODE and PRIVATE_BEACH_MANAGER_TOKEN, all four of them. They \
are never arguments, and no program on a terminal gets them.

With --once: exit code 0 when proven, 5 when refused, 4 after --timeout (default 30s).

Examples:
  castra agent --name devbox --connect tcp:10.0.2.2:7070
  castra agent --name devbox --connect serial:/dev/virtio-ports/castra.0
  castra agent --name devbox --connect vsock:2:7070 --once
  castra agent --name devbox --connect tcp:10.0.2.2:7070 --peers accept --inbox /data/castra
  castra agent --name devbox --connect vsock:2:7070 --token-file /etc/castra/token --terminals
  castra agent --name web-1 --connect tcp:10.0.2.2:7070 --token-file /etc/castra/token --exec top
  castra agent hold --socket /run/castra/devbox/agent.sock";

pub(crate) const INSTALL_AGENT: &str = "\
Print what a guest has to be given to have an agent: user data for cloud-init, a unit for systemd, \
an init script for OpenRC, or a script for a plain sh, which becomes the agent. Nothing is asked, \
and nothing changes. The text says how to build the program for the guest, and where it goes.

A token is never an argument and never in a file that others can read. --token-file says where the \
guest has it; --with-token puts it into the text, which must then be kept as secret as the token.

Examples:
  castra install-agent devbox --cloud-init --connect vsock:2:7070 >user-data
  castra install-agent devbox --systemd --connect serial:/dev/virtio-ports/castra.0 \\
    --token-file /etc/castra/agent.token >castra-agent.service
  castra token issue web --out web.token
  castra install-agent web --sh --connect unix:/castra.sock --with-token web.token -- --terminals
  castra install-agent alpine --openrc --connect tcp:10.0.2.2:7070 >castra-agent";

pub(crate) const REPLAY: &str = "\
Run a recording of a broker or an agent again, and compare: the same inputs at the same times \
must bring the same outputs, byte for byte. `castra broker --record FILE` and `castra agent \
--record FILE` write such a file.

Exit code 0: equal, as far as the recording goes. 1: an output differs; the first one is shown, \
with its line. 2: FILE is no trace, or it is damaged. A recording that was cut off, as by a crash, \
is replayed up to its last whole line. One of another version is replayed with a warning: what \
differs may be a change of the program.

A trace holds the seed and the tokens: whoever reads it can prove every name in it. A difference \
is shown with the text around it, which may be one of them. Give both to nobody who may not know \
the keys, or issue new tokens first.

Examples:
  castra broker --record broker.trace.jsonl
  castra replay broker.trace.jsonl";

pub(crate) const DEMO: &str = "\
See it work: a real broker and three real agents, each a process of its own, in a temporary \
directory. One agent is frozen, one is killed, one says goodbye, all come back, and the table \
tells the truth meanwhile. Ctrl-C ends and removes everything.

--once tells the same story without a live table, checks every state and reason, and exits with \
1 if any was not as expected.";

pub(crate) const SIM: &str = "\
Play thousands of worlds full of faults, and hold every answer against the truth. The broker and \
the agents are the real ones; the network, the disk, the clocks and the machines are simulated. \
Guests freeze, die and come back, streams are held, cut and reset, the broker is killed, the disk \
is full, the host is suspended; after every event, what the broker says is compared with what \
really is. No broker, network or state directory is needed or touched.

A seed is a world: the same seed gives the same run. The first broken promise ends it: the world \
is made as small as it can be, told in sentences, and drawn if --diagram asks for it.

--runner explore draws nothing: it visits every state that one or two guests, their broker and \
their connections can get into, step by step, with the same engines, and asks the same of each. \
A search that closes has seen all there is; a broken promise is told as the shortest way to it. \
By default it takes seconds. With --full (build it with --release) 1 guest takes about half an hour \
and 4 GB of memory.

Exit code: 0 if every promise was kept, 1 if one was broken, 130 after Ctrl-C (the summary so far \
is printed; a second one ends it at once).

Faults for --faults:
  hold, partition, reset, half_close,
  corrupt, replug                                the guest's connections
  death, crash, freeze, twin, leave              the guest
  freeze_broker, restart_broker, lose_state,
  drain_broker, reload, descriptors              the broker
  commit_fails, torn_commit, disk_full,
  slow_disk                                      its disk
  suspend, wall_step                             the host

Networks for --network:
  loopback  20 to 200 us             lan    0.2 to 2 ms
  wan       20 to 120 ms             lossy  up to 200 ms, and a loss now and then
  awful     up to 400 ms, and a loss every few seconds

Examples:
  castra sim
  castra sim --time 60s --faults death,freeze,hold
  castra sim --seed 17 --story --diagram world.html
  castra sim --runner explore --guests 2
  castra sim measure --window 6s --interval 2s --network lossy --plot latency.svg";

pub(crate) const SIM_MEASURE: &str = "\
What settings are worth: how soon a silent death is noticed, and how often somebody alive is \
doubted. Guests die or freeze at random moments; nothing else goes wrong but what the network does \
on an ordinary day. A table, and a histogram of the times from death to verdict.

Defaults: the broker's own window and interval, 5 guests, network lan.

Example:
  castra sim measure --window 6s --interval 2s --network lossy";

pub(crate) const BENCH: &str = "\
Puts a broker under load by real agents, and measures what it costs. Without --against, a broker \
of its own is started in a temporary directory, with its log and events on, and ended afterwards.

What there is:
  handshake  guests connect, prove themselves and hang up; a handshake is two round trips
  keepalive  guests stay and answer challenges
  idle       guests stay: what each costs in memory, and all of them in processor time
  status     guests stay while `castra status --json` is run again and again
  restart    guests stay; the broker is killed and started again, and all of them return

How to read it: latencies are those of the agents, who share the machine with the broker here. \
Processor time is the broker's own, of all its threads; it is counted for a broker of our own \
and with --pid. Quote ratios of figures that were measured side by side: on a shared machine, \
times alone mean little.

Without --rate, each of --concurrency places begins its next handshake when the last one ended, \
so a slow broker is asked less. With --rate, handshakes begin on time whatever became of the \
earlier ones, and latency counts from when one was due.

Exit codes: 0 measured; 1 failures happened, or it was interrupted; 3 nobody could be proven.";

pub(crate) const CONFIG_SHOW: &str = "\
Every setting of a broker, its value, and where that comes from: a flag, else a variable, else \
the file, else the default. Takes the options of `castra broker`, and starts nothing.

A setting's name is its option's: --window is CASTRA_WINDOW in the environment (several values \
between spaces; true or false for an option without a value), and in castra.toml

  [broker]
  listen = [\"tcp:127.0.0.1:7070\", \"unix:/run/castra/serial.sock,serial\"]
  window = \"15s\"
  require-token = true

The file is castra.toml in the state directory, or what --config or CASTRA_CONFIG says. `castra \
reload` takes over window, interval, handshake-timeout, require-token, accept-unproven, guest, \
only-known and the bounds of messages without dropping a link; the rest needs a restart.

Exit code: 0 if a broker would start with these, 2 if it would refuse them.

Examples:
  castra config show
  CASTRA_WINDOW=30s castra config show --json | jq '.settings[] | select(.source != \"default\")'";

pub(crate) const CONFIG_CHECK: &str = "\
Read a configuration file as a broker would, every setting, and the rules between them. The \
broker that runs is not asked, and nothing changes: `castra reload` does that.

Exit code: 0 if it makes sense; 2 with the line and the reason if not.";

pub(crate) const DOCTOR: &str = "\
Look for what is wrong around the broker (inside a guest: around its agent), and say what to do: \
is somebody serving, whose directory is it, is there room, can everything be written, are there \
descriptors, is the window long enough, did the broker or the host sleep, why is each guest not \
reachable, who fights for a name, is a virtio port missing.

Changes nothing. --timeout (default 2s) bounds each question.

Exit code: 0 without a problem (warnings and notes are none), 1 with one.

Examples:
  castra doctor
  castra doctor --json | jq -r '.findings[] | \"\\(.subject): \\(.fix)\"'";

pub(crate) const COMPLETION: &str = "\
Print a script that lets a shell complete commands, options, and the names of guests as the \
broker knows them at that moment (it has half a second to say them).

Examples:
  castra completion bash >/etc/bash_completion.d/castra
  castra completion zsh >~/.zfunc/_castra
  castra completion fish >~/.config/fish/completions/castra.fish

The script asks the castra that is first in PATH. Print it anew after an upgrade.";

pub(crate) const MAN: &str = "\
Print a manual page, or write all of them: the texts of --help, as man(1) wants them.

Examples:
  castra man status | man -l -
  castra man --out /usr/local/share/man/man1";

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::status::{BrokerState, Reason};

    #[test]
    fn sim_help_names_every_fault_and_every_network() {
        let words: Vec<&str> = SIM.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
        for kind in castra_sim::plan::FaultKind::ALL {
            assert!(words.contains(&kind.as_str()), "{}", kind.as_str());
        }
        for network in castra_sim::measure::Profile::ALL {
            assert!(words.contains(&network.as_str()), "{network}");
        }
    }

    #[test]
    fn status_help_explains_every_field_of_the_document_and_every_reason() {
        let guest = crate::offline::absent_guest("devbox".parse().unwrap(), None, Reason::NoBroker);
        let document = crate::offline::document(vec![guest], BrokerState::Offline);
        let json = serde_json::to_value(&document).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let mut words = keys(&json);
        words.extend(keys(&json["guests"][0]));
        words.extend(keys(&json["broker"]));
        for reason in [
            Reason::NeverSeen,
            Reason::Handshaking,
            Reason::Stale,
            Reason::Disconnected,
            Reason::Goodbye,
            Reason::Refused,
            Reason::Unproven,
            Reason::BrokerStarted,
            Reason::BrokerStalled,
            Reason::ClockJumped,
            Reason::NameConflict,
            Reason::NoBroker,
            Reason::BrokerNotAnswering,
        ] {
            words.push(reason.to_string());
        }
        for word in words {
            let explained = STATUS
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .any(|candidate| candidate == word);
            assert!(explained, "`castra status --help` does not mention {word}");
        }
    }
}
