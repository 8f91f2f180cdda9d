# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests on the move: streams made and read by hand, peers that are not QEMU, a proxy that breaks connections.

The stream is that of QEMU: big-endian numbers, sections with an id, records of pages inside those of `ram`.
"""
import socket
import struct
import threading
from pathlib import Path

from .guard import Guard

PAGE = 4096
ZERO, MEM_SIZE, PAGE_FLAG, EOS, CONTINUE, XBZRLE = 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
OPEN_RETURN_PATH, PING, SWITCHOVER_START = 1, 2, 11
SHUT, PONG = 1, 2
LIMIT_S = 60
OVER = ('completed', 'failed', 'cancelled')


# Making a stream

def be16(n):
    return struct.pack('>H', n)


def be32(n):
    return struct.pack('>I', n)


def be64(n):
    return struct.pack('>Q', n)


def counted(text):
    return bytes([len(text)]) + text.encode()


def header(magic=b'QEVM', version=3):
    return magic + be32(version)


def configuration(machine='none', *subsections):
    """Subsections are (name, payload)."""
    more = b''.join(b'\x05' + counted(name) + be32(1) + payload for name, payload in subsections)
    return b'\x07' + be32(len(machine)) + machine.encode() + more


def footer(section):
    return b'\x7e' + be32(section)


def section_start(kind, section, name, version, instance=0):
    return bytes([kind]) + be32(section) + counted(name) + be32(instance) + be32(version)


def full(section, name, version, payload, instance=0, end=None):
    """`end` stands for the footer."""
    return section_start(4, section, name, version, instance) + payload + (footer(section) if end is None else end)


def timer(section=100, version=2, **more):
    return full(section, 'timer', version, bytes(24), **more)


def globalstate(state='running', section=9):
    return full(section, 'globalstate', 1, be32(len(state) + 1) + state.encode().ljust(100, b'\0'))


def ram_start(blocks=(), section=7, version=4):
    """Blocks are (name, bytes)."""
    names = b''.join(counted(name) + be64(size) for name, size in blocks)
    total = sum(size for _, size in blocks)
    return section_start(1, section, 'ram', version) + be64(total | MEM_SIZE) + names + be64(EOS) + footer(section)


def ram_part(*records, section=7, last=False):
    return bytes([3 if last else 2]) + be32(section) + b''.join(records) + be64(EOS) + footer(section)


def ram_end(*records, section=7):
    return ram_part(*records, section=section, last=True)


def record(offset, flags, block=None, payload=b''):
    """Without a block it is one that continues in the block of the record before."""
    return be64(offset | flags | (0 if block else CONTINUE)) + (counted(block) if block else b'') + payload


def page(offset, data, block=None):
    return record(offset, PAGE_FLAG, block, data)


def zero(offset, block=None, fill=0):
    return record(offset, ZERO, block, bytes([fill]))


def xbzrle(offset, data, block=None, encoding=1):
    return record(offset, XBZRLE, block, bytes([encoding]) + be16(len(data)) + data)


def command(number, payload=b''):
    return b'\x08' + be16(number) + be16(len(payload)) + payload


def description(text='{}'):
    return b'\x06' + be32(len(text)) + text.encode()


EOF = b'\0'


def base(devices=None, state='running'):
    """A guest of machine `none` without RAM: in pieces, for tests to take out and put in."""
    return {'header': header(), 'configuration': configuration(), 'start': ram_start(), 'end': ram_end(),
            'devices': timer() if devices is None else devices, 'globalstate': globalstate(state), 'eof': EOF,
            'description': description()}


def joined(pieces):
    return b''.join(pieces.values())


# Reading a stream

class Truncated(Exception):
    """The stream ended inside a structure."""


class StreamReader:
    """Follows a stream of machine `none` as it comes; marks[] is (offset, what begins there), pages how many came.

    `source` is a function that returns bytes, none at the end.
    """

    def __init__(self, source):
        self.source = source
        self.buffer = bytearray()
        self.offset = 0
        self.marks = []
        self.blocks = {}
        self.pages = 0
        self.return_path = False
        self.names = {}
        self.on_command = lambda number, payload: None

    def take(self, count):
        while len(self.buffer) < count:
            data = self.source()
            if not data:
                raise Truncated(f'at offset {self.offset + len(self.buffer)}')
            self.buffer += data
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        self.offset += count
        return data

    def number(self, size):
        return int.from_bytes(self.take(size), 'big')

    def text(self):
        return self.take(self.number(1)).decode()

    def mark(self, what):
        self.marks.append((self.offset, what))

    def run(self):
        """To the end of the description."""
        self.mark('header')
        assert self.take(8) == header()
        self.mark('configuration')
        assert self.take(1) == b'\x07'
        self.machine = self.take(self.number(4)).decode()
        while True:
            at = self.offset
            kind = self.number(1)
            if kind == 5:
                self.text()
                raise AssertionError('a subsection of the configuration is not read here')
            if kind == 8:
                self.marks.append((at, 'command'))
                number, size = self.number(2), self.number(2)
                self.return_path |= number == OPEN_RETURN_PATH
                self.on_command(number, self.take(size))
            elif kind in (1, 2, 3, 4):
                self.section(at, kind)
            else:
                assert kind == 0, f'item {kind} at {at}'
                self.marks.append((at, 'eof'))
                break
        self.mark('description')
        assert self.take(1) == b'\x06'
        self.description = self.take(self.number(4))
        self.mark('end')
        return self

    def section(self, at, kind):
        number = self.number(4)
        if kind in (1, 4):
            name = self.names[number] = self.text()
            self.number(4)
            self.number(4)
        name = self.names[number]
        self.marks.append((at, f'{("start", "part", "end", "full")[kind - 1]} {name}'))
        if name == 'ram':
            self.ram()
        else:
            self.take({'timer': 24, 'globalstate': 104}[name])
        self.mark('footer')
        assert self.take(5) == footer(number)

    def ram(self):
        while True:
            at = self.offset
            word = self.number(8)
            flags, offset = word % PAGE, word // PAGE * PAGE
            if flags & EOS:
                return
            if flags & MEM_SIZE:
                self.marks.append((at, 'blocks'))
                while offset > 0:
                    name = self.text()
                    self.blocks[name] = self.number(8)
                    offset -= self.blocks[name]
                continue
            if not flags & CONTINUE:
                self.text()
            self.marks.append((at, 'page'))
            self.pages += 1
            if flags & ZERO:
                self.take(1)
            elif flags & PAGE_FLAG:
                self.take(PAGE)
            else:
                assert flags & XBZRLE, f'record {word:x}'
                self.number(1)
                self.take(self.number(2))


def read_stream(path):
    """The StreamReader of a saved guest."""
    with open(path, 'rb') as file:
        return StreamReader(lambda: file.read(1 << 20)).run()


# Peers

class Worker(threading.Thread):
    """A thread whose failure reaches result()."""

    def __init__(self):
        super().__init__(daemon=True)
        self.value = self.error = None

    def work(self):
        raise NotImplementedError

    def run(self):
        try:
            self.value = self.work()
        except Exception as error:      # raised again in result()
            self.error = error

    def result(self, limit_s=LIMIT_S):
        self.join(Guard(limit_s).left())
        assert not self.is_alive(), 'the thread does not end'
        if self.error:
            raise self.error
        return self.value


def unix_listener(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    return listener


def unix_connect(path, said=b''):
    conn = socket.socket(socket.AF_UNIX)
    conn.settimeout(LIMIT_S)
    conn.connect(str(path))
    conn.sendall(said)
    return conn


class Sink(Worker):
    """A destination by hand: reads one whole stream, then says what `verdict` is (None: nothing at all).

    `stop_at` ends the connection once so many bytes were read; `message` is sent when the stream begins;
    `close` False leaves the connection open until drop().
    """

    def __init__(self, path, verdict=0, pong=True, stop_at=None, message=b'', close=True):
        super().__init__()
        self.uri = f'unix:{path}'
        self.listener = unix_listener(path)
        self.verdict, self.pong, self.stop_at, self.message, self.close_it = verdict, pong, stop_at, message, close
        self.conn = None
        self.read_all = threading.Event()
        self.start()

    def command(self, number, payload):
        if number == PING and self.pong:
            self.say(PONG, payload)

    def say(self, kind, payload):
        """A source that was told to stop may have gone."""
        try:
            self.conn.sendall(be16(kind) + be16(len(payload)) + payload)
        except OSError:
            pass

    def receive(self):
        if self.stop_at is None:
            return self.conn.recv(1 << 16)
        try:
            data = self.conn.recv(min(1 << 16, self.stop_at))
        except ConnectionResetError:
            data = b''
        self.stop_at -= len(data)
        return data

    def work(self):
        self.conn = self.listener.accept()[0]
        self.listener.close()
        if self.message:
            self.conn.sendall(self.message)
        reader = StreamReader(self.receive)
        reader.on_command = self.command
        try:
            reader.run()
        except Truncated:
            if self.stop_at is None:
                raise
        self.read_all.set()
        if reader.return_path and self.verdict is not None:
            self.say(SHUT, be32(self.verdict))
        if self.close_it:
            self.drop()
        return reader

    def drop(self):
        """Ends the connection with what has been sent arriving, as a process that exits does."""
        try:
            self.conn.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.conn.close()


class Proxy(Worker):
    """Stands between a source and a destination and breaks the connection at a byte.

    `at` counts bytes from the source, or with back=True those of the return path; at None breaks nothing. What
    happens there is `how`: 'cut' (both sides read an end), 'reset', or 'stall': nothing moves any more and stalled
    is set, until release() cuts.
    """

    def __init__(self, path, target, at=None, how='cut', back=False):
        super().__init__()
        self.uri = f'unix:{path}'
        self.target, self.at, self.how, self.back = str(target), at, how, back
        self.listener = unix_listener(path)
        self.count = {False: 0, True: 0}
        self.stalled, self.broken = threading.Event(), threading.Event()
        self._released = threading.Event()
        self.start()

    def work(self):
        self.source = self.listener.accept()[0]
        self.listener.close()
        self.peer = socket.socket(socket.AF_UNIX)
        self.peer.connect(self.target)
        back = threading.Thread(target=self.pump, args=(self.peer, self.source, True), daemon=True)
        back.start()
        self.pump(self.source, self.peer, False)
        back.join()
        self.source.close()
        self.peer.close()

    def pump(self, a, b, back):
        breaks = self.at is not None and self.back == back
        try:
            while True:
                room = 1 << 16
                if breaks:
                    room = min(room, self.at - self.count[back])
                    if room == 0:
                        return self.break_it()
                data = a.recv(room)
                if not data:
                    break
                b.sendall(data)
                self.count[back] += len(data)
        except OSError:
            pass
        try:
            b.shutdown(socket.SHUT_WR)      # what is on its way still arrives
        except OSError:
            pass
        return None

    def break_it(self):
        if self.how == 'stall':
            self.stalled.set()
            self._released.wait(LIMIT_S)
        self.broken.set()
        for one in (self.source, self.peer):
            if self.how == 'reset':     # what was received and not read makes closing a reset
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def release(self):
        self._released.set()


# Driving a migration

def set_caps(vm, *on, **states):
    """set_caps(vm, 'events', 'return-path', multifd=False)"""
    states = {**{name: True for name in on}, **states}
    vm.cmd('migrate-set-capabilities', capabilities=[
        {'capability': name.replace('_', '-'), 'state': state} for name, state in states.items()])


def wait_status(vm, *wanted, limit_s=LIMIT_S):
    """query-migrate once its status is one of these, or AssertionError when it is over with another one."""
    guard = Guard(limit_s)
    while (info := vm.cmd('query-migrate')).get('status', 'none') not in wanted:
        assert info.get('status') not in OVER, info
        guard.left()
    return info


def wait_over(vm, limit_s=LIMIT_S):
    return wait_status(vm, *OVER, limit_s=limit_s)


def run_state(vm):
    return vm.cmd('query-status')['status']


def wait_run_state(vm, *wanted, limit_s=LIMIT_S):
    guard = Guard(limit_s)
    while (state := run_state(vm)) not in wanted:
        guard.left()
    return state


def error_lines(vm):
    """What a process said, without warnings."""
    return [line for line in Path(vm.stderr_path).read_text(errors='replace').splitlines()
            if line.strip() and 'warning:' not in line]
