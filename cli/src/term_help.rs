//! The long texts of terminals' commands.

pub(crate) const TERM: &str = "\
Terminals that outlive whoever started them: named, owned by one, watched by many, and still \
there after the connection, the broker or the server of terminals itself has died.

A terminal is NAME or #ID on this machine, GUEST/NAME or GUEST/#ID in a guest. Whoever serves them \
is `castra broker --terminals` (`castra up --terminals`) or `castra terminals serve` here, and \
`castra agent --terminals` in a guest. Inside a guest the agent is found by itself. \
--terminals-socket names another server, also a published PTY daemon, as RUST_PTY_SOCKET_PATH does.

One connection at a time owns a terminal: it types, and its size is the terminal's. All others \
watch. Ownership is free when nobody has it, and goes back when its owner detaches, or 2 s after \
its connection is lost; `castra term attach --takeover` takes it. `send`, `resize`, `signal` and \
`kill` need it for a moment, and are refused (exit code 5) while somebody else has it.

Examples:
  castra term new build -- make -j4
  castra term attach build              (Ctrl-\\ d detaches)
  castra term wait build --for exit && echo built
  castra term new devbox/shell --attach
  castra term ls";

pub(crate) const NEW: &str = "\
Start a program on a new terminal, and name it. A name that a running terminal has is refused \
(exit code 1); one whose program has ended is free again. The new terminal's number is printed as \
#ID. Nobody owns it then, unless --attach is given: that is `castra term attach` with the same \
connection.

It gets the environment of who serves it, TERM=xterm-256color, and the variables of --env. Without \
a COMMAND it is a shell, which after a reboot of its machine is started anew, below what its \
screen last showed.

--timeout (default 5s) bounds the start. Exit code: 0 it runs; 1 the name is taken; 2 no such \
directory or program; 3 no server; 5 not permitted, or too many terminals.

Examples:
  castra term new build --cwd /src -- make -j4
  castra term new devbox/shell --attach
  castra term new log --env TZ=UTC --size 200x50 -- journalctl -f";

pub(crate) const LS: &str = "\
Which terminals there are: here, and on the host those of every reachable guest that serves some. \
A guest that doesn't answer within --timeout (default 2s) is named on standard error.

Columns:
  NAME      as the other commands take it
  STATE     starting, running, terminating, or exited with the program's code or signal; exited
            ones stay listed for 10 minutes. What became of it when its server last started:
            adopted (it ran on, nothing is lost), restored (started anew), or
            unrecoverable and why
  SIZE      columns and rows
  OWNER     who may type, `you` or a client's own word; - if it is free
  WATCHERS  how many are attached, the owner with them
  AGE       since it was started
  COMMAND   the program and its arguments; without any it is a shell, and its directory is shown

Fields of --json: terminals, a list of guest (null here), name, id, session_key, state, is_alive, \
exit_code, exit_signal, pid, pts, cols, rows, cwd, command, owner, owner_is_you, subscribers, \
recovery, created_at and last_attached_at (seconds since 1970).

Exit code: 0; 3 if there is no server to ask; 4 if the only one asked did not answer in time.

Examples:
  castra term ls
  castra term ls devbox/
  castra term ls --json | jq -r '.terminals[] | select(.is_alive) | .name'";

pub(crate) const ATTACH: &str = "\
Be on a terminal: see it, and type if nobody else does. It is drawn as it is, with --history N \
lines of what scrolled away.

Keys:
  Ctrl-\\ d       detach: the program goes on
  Ctrl-\\ Ctrl-\\  send one Ctrl-\\
  all others     go to the program, Ctrl-C too; Ctrl-\\ before another key goes with it

Who owns the terminal types, and gives it the size of their own, also when that changes. If \
somebody else owns it, you are told who, and watch; so you do with --observe. Watchers see it as \
it is, cropped where their own terminal is smaller. With --takeover you own it, and whoever did \
watches from then on; you are told when that happens to you, on the status line, or at the end.

If the connection is lost, it is made again for up to 60 s, and nothing that the program wrote \
meanwhile is missing or doubled; keys wait. It is told only when it takes more than a second. \
However attach ends, also by TERM, HUP or INT, your terminal is left usable.

--status-line keeps the last row for it: the program gets one row less. --timeout (default 5s) \
bounds the first connection.

Exit code: 0 detached, or the program ended with 0; 1 it ended otherwise (its code is told); 3 no \
server, or lost for good; 5 refused; 6 unknown name; 129, 130 or 143 when ended by HUP, INT or TERM.

Examples:
  castra term attach build
  castra term attach devbox/build --observe
  castra term attach devbox/build --takeover --history 1000";

pub(crate) const SEND: &str = "\
Type something, as if it came from the keyboard. TEXT goes as it is, without a line's end unless \
--enter presses Enter; --stdin sends what standard input says, byte for byte, as fast as the \
program reads it. A TEXT that begins with - needs -- before it.

--timeout (default 5s) bounds each answer, and how long a program may not read. Exit code: 0 it \
waits for the program or was read; 4 the program doesn't read; 5 somebody else owns the terminal; \
6 unknown, or its program has ended.

Examples:
  castra term send build 'make test' --enter
  castra term send devbox/build --stdin < commands
  printf '\\003' | castra term send build --stdin        (Ctrl-C)";

pub(crate) const SNAPSHOT: &str = "\
What a terminal shows now, without attaching: neither its owner nor its size changes. Works for \
one that has exited, as long as it is listed.

  --text  its characters, line by line; what else stood in them is not shown (the default)
  --ansi  sequences that restore everything on a new terminal of the same size: colours, both
          screens, modes, cursor. Not for the terminal you are on
  --json  content and rehydrate (the same sequences; those of the modes alone), cols, rows,
          cursor_x, cursor_y (from 0), modes, cwd, title, offset (bytes of output in it)

--timeout (default 5s) bounds the answer.

Examples:
  castra term snapshot build
  castra term snapshot devbox/build --history 500 | grep -i error
  castra term snapshot build --json | jq .title";

pub(crate) const RESIZE: &str = "\
Give a terminal another size. It needs the ownership for a moment. Whoever owns it by `castra term \
attach` gives it their own size instead.

Example:
  castra term resize build 132x43";

pub(crate) const SIGNAL: &str = "\
Send a signal to the program that was started on a terminal: HUP, INT, QUIT, TERM, KILL, USR1, \
USR2, CONT, STOP, TSTP or WINCH, with or without SIG before it. It needs the ownership for a \
moment. What runs below a shell is better reached by `castra term send`: Ctrl-C is \\003.

Example:
  castra term signal build USR1";

pub(crate) const KILL: &str = "\
End everything that runs on a terminal: hang-up and TERM to every process of its session, and KILL \
after 3 s. It needs the ownership for a moment. The command does not wait for the end: `castra term \
wait` does.

Examples:
  castra term kill build
  castra term kill devbox/build && castra term wait devbox/build";

pub(crate) const WAIT: &str = "\
Wait until a terminal's program has ended, and print how: `NAME exited 0`, or `NAME exited 137 \
(signal KILL)`. One that ended up to 10 minutes ago is told at once. If the connection is lost \
meanwhile, it is made again.

--timeout is 30s if not given. Exit code: 0 it ended with 0; 1 it ended otherwise, or nobody \
knows how; 4 it still runs; 6 unknown.

--json prints one object: name, guest (null here), id, exit_code, exit_signal.

Examples:
  castra term wait build --for exit --timeout 1h && deploy
  castra term wait devbox/build --json | jq .exit_code";

pub(crate) const LOG: &str = "\
What a terminal's program has written, byte for byte, as far back as it is kept (1 MiB unless \
`--ring` of its server says otherwise). With -f it goes on until the program ends; a lost \
connection is made again, and no byte is missing or doubled. Where bytes are missing because they \
are no longer kept, or this reader was too slow, standard error says how many.

The bytes may be anything, sequences for a terminal too; pipe them through `cat -v` to be safe. At \
the end standard error says where it ended, if that was not the program's end: --from goes on from \
there.

--timeout (default 5s) bounds the first answer. Exit code: 0; 3 lost for more than 60 s.

Examples:
  castra term log build | tail -100
  castra term log devbox/build -f >> build.log";

pub(crate) const SERVE: &str = "\
Be a server of terminals, in the foreground, without a broker or an agent. The socket is \
terminals.sock in the state directory, unless --socket or RUST_PTY_SOCKET_PATH says otherwise; the \
token, the database and the holder's socket stand beside it. The wire is the published PTY \
daemon's version 1, with additions: its clients work unchanged.

Terminals do not die with it: a small process, the holder, has them, and the next server of the \
same socket goes on with all of them, also after KILL. --on-stop end makes TERM and INT end them. \
After a reboot, --restore shells starts anew what was a shell, in its directory, below what its \
screen last showed. A second server of one socket says who is there and ends with 73.

Run under the name castra-ptyd, without arguments, it is the same with the published daemon's own \
defaults: $HOME/.vibest/pty/socket, and token and terminals.redb beside it. Variables that count \
in both: RUST_PTY_SOCKET_PATH, RUST_PTY_TOKEN_PATH, RUST_PTY_JOURNAL_PATH, \
RUST_PTY_MAX_CONNECTIONS, RUST_PTY_MAX_SESSIONS, RUST_PTY_SCROLLBACK_LINES, \
RUST_PTY_INPUT_QUEUE_MAX_BYTES (else RUST_PTY_FLOW_MAX_QUEUE_SIZE), CASTRA_TERMINALS_ON_STOP; an \
option beats its variable. RUST_PTY_SESSION_EVENT_QUEUE_CAPACITY, \
RUST_PTY_CLIENT_MAX_WRITE_QUEUE_BYTES and RUST_PTY_COALESCE_DELAY_MS are accepted and mean \
nothing: output is kept once for all who watch.

Examples:
  castra terminals serve
  castra terminals serve --socket /run/me/pty.sock --on-stop end --restore none";

pub(crate) const STATS: &str = "\
What a server of terminals has counted: terminals, subscribers, bytes that wait, resyncs, owner \
denials, how terminals were found again at the start, and how long attaching took.

--timeout (default 2s) bounds the answer.

Examples:
  castra terminals stats
  castra terminals stats devbox/ --json";
