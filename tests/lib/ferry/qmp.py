# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP client: replies by id, events in a list that waits can take from. Any thread may use it."""
import collections
import json
import socket
import threading

from .guard import Guard, HangError

DEFAULT_LIMIT_S = 60
TRAFFIC_KEPT = 60           # messages shown when a test fails
SHOWN_CHARS = 600


class QMPError(Exception):
    """An error reply. `cls` is its class, `desc` its sentence."""

    def __init__(self, command, error):
        self.command = command
        self.cls = error.get('class')
        self.desc = error.get('desc')
        super().__init__(f'{command}: {self.cls}: {self.desc}')


class QMPClosed(Exception):
    """The other side closed the connection."""


def arguments(first, named):
    """Arguments of a command: a dict as it is, keywords with `_` turned into `-`."""
    result = dict(first or {})
    result.update({name.rstrip('_').replace('_', '-'): value for name, value in named.items()})
    return result


class QMPClient:
    """One monitor connection over a connected stream socket, which it owns."""

    def __init__(self, sock, capabilities=None, limit_s=DEFAULT_LIMIT_S):
        self.sock = sock
        self.events = []            # received and not yet taken by wait()
        self.traffic = collections.deque(maxlen=TRAFFIC_KEPT)
        self._replies = {}
        self._strays = collections.deque()  # replies without an id
        self._greeting = None
        self._closed = None
        self._next = 0
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        sock.settimeout(None)
        self._reader = threading.Thread(target=self._read, name='qmp-reader', daemon=True)
        self._reader.start()
        self.greeting = self._until(lambda: self._greeting, Guard(limit_s), 'the QMP greeting')['QMP']
        if capabilities is not False:
            self.cmd('qmp_capabilities', {'enable': capabilities} if capabilities else None)

    @classmethod
    def connect(cls, address, **kwargs):
        """Connects to a path, or a (host, port)."""
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        sock.connect(address)
        return cls(sock, **kwargs)

    # Sending and receiving

    def _read(self):
        reason = 'the monitor closed the connection'
        try:
            with self.sock.makefile('rb') as stream:
                for line in stream:
                    if not line.strip():
                        continue
                    self.traffic.append('<- ' + line[:SHOWN_CHARS].decode(errors='replace').rstrip())
                    self._take(json.loads(line))
        except (OSError, ValueError) as error:
            reason = f'{type(error).__name__}: {error}'
        with self._changed:
            self._closed = reason
            self._changed.notify_all()

    def _take(self, message):
        with self._changed:
            if 'event' in message:
                self.events.append(message)
            elif 'QMP' in message:
                self._greeting = message
            elif 'id' in message:
                self._replies[json.dumps(message['id'])] = message
            else:
                self._strays.append(message)
            self._changed.notify_all()

    def _until(self, condition, guard, what):
        """The first true value of condition(), looked at whenever a message came in."""
        with self._changed:
            while True:
                value = condition()
                if value:
                    return value
                if self._closed:
                    raise QMPClosed(f'waiting for {what}: {self._closed}')
                try:
                    self._changed.wait(guard.left())
                except HangError as error:
                    raise HangError(f'waiting for {what}: {error}') from None

    def send_raw(self, data):
        """Bytes as they are; answers without an id are read with stray()."""
        with self._sending:
            self.traffic.append('-> ' + data[:SHOWN_CHARS].decode(errors='replace').rstrip())
            try:
                self.sock.sendall(data)
            except OSError as error:
                raise QMPClosed(f'sending: {error}') from None

    def stray(self, limit_s=DEFAULT_LIMIT_S):
        """The next answer that carried no id."""
        self._until(lambda: self._strays, Guard(limit_s), 'an answer without an id')
        return self._strays.popleft()

    def send(self, command, args=None, /, *, oob=False, fds=(), **named):
        """Sends a command without waiting; pass what it returns to reply()."""
        with self._changed:
            self._next += 1
            number = self._next
        message = {'exec-oob' if oob else 'execute': command, 'id': number}
        args = arguments(args, named)
        if args:
            message['arguments'] = args
        data = json.dumps(message).encode() + b'\n'
        if fds:
            with self._sending:
                self.traffic.append('-> ' + data[:SHOWN_CHARS].decode().rstrip() + f' with fds {list(fds)}')
                socket.send_fds(self.sock, [data], list(fds))
        else:
            self.send_raw(data)
        return command, number

    def reply(self, sent, limit_s=DEFAULT_LIMIT_S):
        """The return value of a command sent before as (name, id); QMPError when it failed."""
        command, number = sent
        message = self._until(lambda: self._replies.pop(json.dumps(number), None), Guard(limit_s), f'the answer to {command}')
        if 'error' in message:
            raise QMPError(command, message['error'])
        return message['return']

    # What tests use

    def cmd(self, command, args=None, /, *, limit_s=DEFAULT_LIMIT_S, oob=False, fds=(), **named):
        """Runs a command and returns its value: cmd('block-job-cancel', device='j', force=True)."""
        return self.reply(self.send(command, args, oob=oob, fds=fds, **named), limit_s)

    def wait(self, event, limit_s=DEFAULT_LIMIT_S, where=None, **match):
        """Takes the first event of this name (or of a tuple of names) whose data has these members."""
        names = (event,) if isinstance(event, str) else event
        match = arguments(None, match)

        def take():
            for i, got in enumerate(self.events):
                data = got.get('data', {})
                if got['event'] in names and all(data.get(k) == v for k, v in match.items()) \
                        and (where is None or where(data)):
                    return self.events.pop(i)
            return None
        return self._until(take, Guard(limit_s), f'event {"/".join(names)} {match or ""}')

    def seen(self, event, **match):
        """Events of this name received so far and not taken; they stay."""
        match = arguments(None, match)
        with self._changed:
            return [e for e in self.events
                    if e['event'] == event and all(e.get('data', {}).get(k) == v for k, v in match.items())]

    @property
    def closed(self):
        return self._closed is not None

    def wait_closed(self, limit_s=DEFAULT_LIMIT_S):
        self._until(lambda: self._closed, Guard(limit_s), 'the end of the connection')

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._reader.join()
        self.sock.close()
