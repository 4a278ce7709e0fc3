#!/usr/bin/env python3
"""Asks a castra broker over its control socket. Python 3.8 or newer, standard library only.

    castra_client.py status [NAME...]     who is reachable?
    castra_client.py wait NAME...         until all are reachable, at most 30 s
    castra_client.py follow [CURSOR]      each change of a verdict, through every absence

As a module: Client for one question and one answer, follow() for the stream. No call waits
without a bound. The protocol is docs/PROTOCOL.md, sections 11 to 13.
"""

import json
import os
import socket
import sys
import time


class NoAnswer(Exception):
    """No broker serves, it fell silent, or it ended the connection."""


class Refused(Exception):
    """The broker says no: `code` is one of the protocol's words."""

    def __init__(self, code, message):
        super().__init__("%s (%s)" % (message, code))
        self.code = code


def control_socket():
    """Where `castra status` would ask."""
    if os.environ.get("CASTRA_STATE_DIR"):
        directory = os.environ["CASTRA_STATE_DIR"]
    elif os.environ.get("CASTRA_AGENT_SOCKET"):
        return os.environ["CASTRA_AGENT_SOCKET"]
    elif os.environ.get("XDG_RUNTIME_DIR"):
        directory = os.path.join(os.environ["XDG_RUNTIME_DIR"], "castra")
    elif os.geteuid() == 0:
        directory = "/run/castra"
    else:
        directory = os.path.expanduser("~/.local/state/castra")
    return os.path.join(directory, "control.sock")


class Client:
    """A connection. `bound`: seconds that connecting may take, and a call without its own."""

    def __init__(self, path=None, bound=2.0):
        self.bound = bound
        self._next_id = 1
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(bound)
        try:
            self._socket.connect(path or control_socket())
        except OSError as error:
            self._socket.close()
            raise NoAnswer("no broker answers: %s" % error) from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def call(self, method, params=None, bound=None):
        """The reply's document, within `bound` seconds."""
        end = time.monotonic() + (self.bound if bound is None else bound)
        number, self._next_id = self._next_id, self._next_id + 1
        request = {"id": number, "method": method, "params": params or {}}
        try:
            self._socket.settimeout(max(end - time.monotonic(), 0.001))
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise NoAnswer("the request was not taken: %s" % error) from error
        while True:
            line = self._line(end)
            if line is None:
                raise NoAnswer("no answer in time: the broker is stopped or overloaded")
            # A late answer to an earlier request is dropped.
            if line.get("id") == number or (line["event"] == "error" and "id" not in line):
                return _data(line)

    def next(self, bound):
        """The next line of a stream as (event, data); None: nothing came within `bound` seconds."""
        line = self._line(time.monotonic() + bound)
        return None if line is None else (line["event"], _data(line))

    def _line(self, end):
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                more = self._socket.recv(65536)
            except socket.timeout:
                return None
            except OSError as error:
                raise NoAnswer("the connection failed: %s" % error) from error
            if not more:
                raise NoAnswer("the broker closed the connection: it is stopping")
            self._buffer += more
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)


def _data(line):
    if line["event"] == "error":
        raise Refused(line["data"]["code"], line["data"]["message"])
    return line["data"]


def follow(path=None, since=None, kinds=(), guests=(), bound=2.0, pause=0.5):
    """Yields (cursor, event) for each event, for ever: after an absence of the broker it goes on
    where it was. (cursor, None): events were lost here. (None, None): nothing happened for
    `bound` seconds, or the broker is away; a moment to look at something else, or to stop."""
    cursor = since
    while True:
        try:
            with Client(path, bound) as client:
                params = {"follow": True, "kinds": list(kinds), "guests": list(guests)}
                if cursor is not None:
                    params["since"] = cursor
                first = client.call("events", params)
                if first.get("gap"):
                    yield cursor, None
                for event in first["events"]:
                    cursor = event["cursor"]
                    yield cursor, event
                cursor = first["cursor"]
                while True:
                    line = client.next(bound)
                    if line is None:
                        yield None, None
                        continue
                    kind, data = line
                    cursor = data["cursor"]
                    yield cursor, None if kind == "gap" else data
        except (NoAnswer, Refused) as error:
            if isinstance(error, Refused) and error.code not in ("shutting_down", "busy"):
                raise
            yield None, None
            time.sleep(pause)


def _status(names):
    with Client() as client:
        guests = client.call("status", {"guests": names})["guests"]
    for guest in guests:
        why = guest["reason"] or "proven %d ms ago" % guest["last_handshake_age_ms"]
        print("%-20s %-10s %s" % (guest["name"], guest["state"], why))
    return 0 if all(guest["reachable"] for guest in guests) else 1


def _wait(names):
    with Client() as client:
        try:
            params = {"guests": names, "for": "reachable", "timeout_ms": 30000}
            # A second more than the broker: its answer at the deadline must still arrive.
            client.call("wait", params, bound=31)
        except Refused as refused:
            if refused.code != "timeout":
                raise
            return 1
    return 0


def _follow(arguments):
    since = arguments[0] if arguments else None
    for cursor, event in follow(since=since, kinds=["verdict.changed"]):
        if event is not None:
            why = " (%s)" % event["reason"] if event["reason"] else ""
            print("%s %s is %s%s" % (cursor, event["guest"], event["to"], why), flush=True)
        elif cursor is not None:
            print("%s something was lost here" % cursor, flush=True)


def main(arguments):
    commands = {"status": _status, "wait": _wait, "follow": _follow}
    if not arguments or arguments[0] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return commands[arguments[0]](arguments[1:])
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 5
    except NoAnswer as silence:
        print(silence, file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
