#!/bin/sh
# Who is reachable? Needs socat and jq (Debian packages of these names).
#
#   status.sh [NAME…]      one line a guest; everybody without names
#
# Ends with 0 when all of them are reachable, 1 when not, 3 without an answer.
set -eu

# Where `castra status` would look.
if [ -n "${CASTRA_STATE_DIR:-}" ]; then
    dir=$CASTRA_STATE_DIR
elif [ -n "${XDG_RUNTIME_DIR:-}" ]; then
    dir=$XDG_RUNTIME_DIR/castra
elif [ "$(id -u)" -eq 0 ]; then
    dir=/run/castra
else
    dir=$HOME/.local/state/castra
fi

# Names are arguments of jq, never part of its program: nothing has to be quoted.
request=$(jq -cn '{id: 1, method: "status", params: {guests: $ARGS.positional}}' --args "$@")

# A stopped broker says nothing: 2 s without a byte, 5 s in all.
reply=$(printf '%s\n' "$request" | timeout 5 socat -t 2 -T 2 - "UNIX-CONNECT:$dir/control.sock") || exit 3
[ -n "$reply" ] || { echo "the broker in $dir did not answer" >&2; exit 3; }

printf '%s\n' "$reply" | jq -er '
    if .event == "error" then "\(.data.message) (\(.data.code))" | halt_error(3) else
        .data.guests[] | [.name, .state, .reason // "proven \(.last_handshake_age_ms) ms ago"] | @tsv
    end'
printf '%s\n' "$reply" | jq -e '.data.guests | all(.reachable)' >/dev/null
