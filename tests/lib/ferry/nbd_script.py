# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD servers that follow a script, and the pieces that such scripts are made of: replies, chunks, options.

Numbers and layouts: "The NBD protocol", doc/proto.md of the nbd project.
"""
import queue
import socket
import struct
import threading

from .guard import time_scale

MAGIC, OPTS, OLD, REP = 0x4e42444d41474943, 0x49484156454f5054, 0x420281861253, 0x3e889045565a9
REQUEST, SIMPLE, CHUNK, EXTENDED = 0x25609513, 0x67446698, 0x668e33ef, 0x6e8a278c

OPT_EXPORT_NAME, OPT_ABORT, OPT_STARTTLS, OPT_GO, OPT_STRUCTURED, OPT_SET_META = 1, 2, 5, 7, 8, 10
REP_ACK, REP_SERVER, REP_INFO, REP_META = range(1, 5)
UNSUP, POLICY, INVALID, PLATFORM, TLS_REQD, UNKNOWN, SHUTDOWN, BLOCK_SIZE_REQD, TOO_BIG = (1 << 31 | n for n in range(1, 10))
INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)
HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_ZEROES, MULTI_CONN, SEND_FAST_ZERO = (
    1 << bit for bit in (0, 1, 2, 3, 5, 6, 8, 11))

READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
NONE, DATA, HOLE, EXTENTS, ERROR, ERROR_OFFSET = 0, 1, 2, 5, 0x8001, 0x8002
DONE = 1
SIZE = 1 << 20


class Wire:
    """A socket that is read in exact amounts."""

    def __init__(self, sock):
        self.sock = sock
        sock.settimeout(60 * time_scale())

    def take(self, length):
        data = b''
        while len(data) < length:
            more = self.sock.recv(length - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def unpack(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def send(self, layout, *values, data=b''):
        self.sock.sendall(struct.pack(layout, *values) + data)


class Server:
    """Serves the export of zeroes with the differences that a script names; a new thread for each connection.

    A script has, where the server differs from the usual:
    'greeting': bytes, what opens the conversation
    an option's number: [(reply type, payload)], or bytes to send before it hangs up, or None, upon which it falls silent
    ('command', number): a function of cookie, offset and length that returns the parts of the reply; None among them hangs up
    'flags': the export's transmission flags
    'tls': an ssl.SSLContext for what follows a STARTTLS that was acknowledged; without it the server falls silent
    'oldstyle': nothing is negotiated after the greeting, and replies are simple
    'leave': it hangs up after the greeting
    'later': the script of all connections but the first
    Conversations that are over are put into `over`: lists of ('option', number) and ('command', number, flags, offset, length).
    """

    def __init__(self, path, script):
        self.script = script
        self.over = queue.Queue()
        self.first = True       # the next connection is the first
        self.address = {'type': 'unix', 'path': str(path)}
        self.listeners = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        self._serve(listener)

    def inet(self):
        """The address of another listener, on TCP."""
        listener = socket.create_server(('127.0.0.1', 0))
        self._serve(listener)
        return {'type': 'inet', 'host': '127.0.0.1', 'port': str(listener.getsockname()[1])}

    def _serve(self, listener):
        self.listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                sock = listener.accept()[0]
            except OSError:
                return
            self.talk(sock)

    def talk(self, sock):
        """Serves a connection in a thread of its own."""
        script = self.script if self.first else self.script.get('later', self.script)
        self.first = False
        threading.Thread(target=Conversation(sock, script, self.over).run, daemon=True).start()

    def close(self):
        for listener in self.listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


class Conversation:
    def __init__(self, sock, script, over):
        self.wire, self.script, self.over = Wire(sock), script, over
        self.record = []

    def run(self):
        try:
            self.wire.sock.sendall(self.script.get('greeting', struct.pack('>QQH', MAGIC, OPTS, 3)))
            if 'leave' in self.script:
                raise StopIteration
            if 'oldstyle' not in self.script:
                self.wire.unpack('>I')
                self.options()
            while True:
                self.answer(*self.wire.unpack('>IHHQQI')[1:])
        except (EOFError, OSError, StopIteration):
            pass
        self.wire.sock.close()
        self.over.put(self.record)

    def options(self):
        wire = self.wire
        while True:
            _, option, length = wire.unpack('>QII')
            wire.take(length)
            self.record.append(('option', option))
            replies = self.script.get(option, self.usual(option))
            if replies is None:
                self.fall_silent()
            if isinstance(replies, bytes):
                wire.sock.sendall(replies)
                if option == OPT_EXPORT_NAME and len(replies) >= 10:
                    return
                raise StopIteration
            for kind, data in replies:
                wire.send('>QIII', REP, option, kind, len(data), data=data)
            if option == OPT_GO and replies[-1][0] == REP_ACK:
                return
            if option == OPT_STARTTLS and replies[-1][0] == REP_ACK:
                self.start_tls()

    def start_tls(self):
        if 'tls' not in self.script:
            self.fall_silent()
        self.wire.sock = self.script['tls'].wrap_socket(self.wire.sock, server_side=True)

    def fall_silent(self):
        while self.wire.sock.recv(4096):
            pass
        raise EOFError

    def usual(self, option):
        if option == OPT_GO:
            return [(REP_INFO, export(flags=self.script.get('flags', HAS_FLAGS))), (REP_ACK, b'')]
        if option == OPT_STRUCTURED:
            return [(REP_ACK, b'')]
        if option == OPT_SET_META:
            return [(REP_META, struct.pack('>I', 7) + b'base:allocation'), (REP_ACK, b'')]
        if option == OPT_EXPORT_NAME:
            return struct.pack('>QH', SIZE, HAS_FLAGS)
        return [(UNSUP, b'')]

    def answer(self, flags, command, cookie, offset, length):
        wire = self.wire
        self.record.append(('command', command, flags, offset, length))
        if command == DISCONNECT:
            raise EOFError
        if command == WRITE:
            wire.take(length)
        make = self.script.get(('command', command))
        if make:
            for part in make(cookie, offset, length):
                if part is None:
                    raise StopIteration
                wire.sock.sendall(part)
        elif 'oldstyle' in self.script or self.script.get(OPT_STRUCTURED, [(REP_ACK,)])[0][0] != REP_ACK:
            wire.sock.sendall(simple(cookie) + (bytes(length) if command == READ else b''))
        elif command == STATUS:
            wire.sock.sendall(extents(cookie, (length, 0)))
        elif command == READ:
            wire.sock.sendall(data(cookie, offset, bytes(length)))
        else:
            wire.sock.sendall(simple(cookie))


def export(size=SIZE, flags=HAS_FLAGS):
    return struct.pack('>HQH', INFO_EXPORT, size, flags)


def blocks(minimum, preferred, largest):
    return [(REP_INFO, export()), (REP_INFO, struct.pack('>HIII', INFO_BLOCK_SIZE, minimum, preferred, largest)), (REP_ACK, b'')]


def simple(cookie, error=0):
    return struct.pack('>IIQ', SIMPLE, error, cookie)


def chunk(cookie, kind, payload=b'', flags=DONE, length=None):
    return struct.pack('>IHHQI', CHUNK, flags, kind, cookie, len(payload) if length is None else length) + payload


def data(cookie, offset, payload, flags=DONE):
    return chunk(cookie, DATA, struct.pack('>Q', offset) + payload, flags)


def hole(cookie, offset, length, flags=DONE):
    return chunk(cookie, HOLE, struct.pack('>QI', offset, length), flags)


def extents(cookie, *pairs, context=7, flags=DONE):
    return chunk(cookie, EXTENTS, struct.pack('>I', context) + b''.join(struct.pack('>II', *p) for p in pairs), flags)


def failure(cookie, error=5, text=b'', length=None, kind=ERROR, flags=DONE):
    return chunk(cookie, kind, struct.pack('>IH', error, len(text) if length is None else length) + text, flags)
