//! The long text of `castra top --help`.

pub(crate) const TOP: &str = "\
All guests, live, on the whole terminal: state and reason, the age of the newest proof against the \
window as a bar, round-trip time, flaps, sessions, link. Needs a terminal; castra status --watch prints \
the same as lines.

What is on the screen is asked for every second, everything as seldom as there are many guests, as \
every 10s with 10000 of them, and what changes in between comes as events. Ages move on between answers. A guest whose \
newest known proof is older than its window is no longer called reachable: `asking` until the next \
answer. When the broker is away every guest is offline at once, and it is tried for as long as it takes.

Columns, as far as they fit:
  GUEST, STATE, REASON, RTT, VIA   as in castra status; ! is a warning
  AGE/OF, WINDOW                   age of its newest proof, and the window; a full bar: over
  FLAPS                            how often it stopped being reachable
  SINCE                            how long its session has lasted
  SESS, PROOFS                     sessions, and completed exchanges of challenge and proof
FLAPS and SESS go back as far as the broker remembers: its newest 8192 events.

Keys:
  Up, Down, PgUp, PgDn, Home, End  select a guest (also j, k, g, G)
  Enter                            look at it: sessions and why they ended, peers, terminals,
                                   attachment, events; Tab shows one part alone
  /                                only guests with a text in name, state, reason or link
  f                                only waiting, only reachable, all again
  s, S, r                          sort by the next column, by the one before, the other way round
  Esc                              back; no filter
  ?, q                             all keys and commands; leave

Commands, after a colon (Tab completes, Up and Down go through the earlier ones); without NAME they \
mean the guest that is selected:
  :guest [NAME]                    look at one
  :ping [NAME]                     have it give a sign of life
  :wait [NAME] [reachable|waiting] say when it is so, for 30s at most
  :peer A B, :unpeer A B           let two guests be peers, or no longer
  :send FROM TO TEXT               tell one guest something in another's name
  :restore NAME, :forget NAME      run its start command; delete its row and its record
  :sort COLUMN, :reverse, :filter [TEXT], :state STATE|all
  :help, :quit

States are words and signs, never colours alone. NO_COLOR and --color never take the colours away; \
without a UTF-8 locale all signs are ASCII.

Exit code: 0 when left, 2 without a terminal, 129, 130 or 143 when ended by HUP, INT or TERM.

Examples:
  castra top
  castra top --state-dir /run/castra --color never";
