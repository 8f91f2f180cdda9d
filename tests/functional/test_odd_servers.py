# SPDX-License-Identifier: GPL-2.0-or-later
"""What an NBD server may send at each step, legal and not: the client takes it or says what is wrong, and never hangs.

A row is the script of a server. "The NBD protocol" (doc/proto.md of the nbd project) says what is legal.
"""
import socket
import struct
import threading

import pytest

import ferry
from test_nbd_hostile import CHUNK, OPT_GO, OPT_SET_META, OPT_STRUCTURED, OPTS, REP, REP_ACK, REP_INFO, REP_META, Wire

MAGIC, SIMPLE = 0x4e42444d41474943, 0x67446698
OPT_EXPORT_NAME = 1
UNSUP, POLICY, INVALID, PLATFORM, TLS_REQD, UNKNOWN, SHUTDOWN, BLOCK_SIZE_REQD, TOO_BIG = (1 << 31 | n for n in range(1, 10))
INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)
READ, WRITE, DISCONNECT, STATUS = 0, 1, 2, 7
NONE, DATA, HOLE, EXTENTS, ERROR, ERROR_OFFSET = 0, 1, 2, 5, 0x8001, 0x8002
DONE, HAS_FLAGS, READ_ONLY = 1, 1, 2
SIZE = 1 << 20
SILENCE_S = 1           # the open-timeout for a server that falls silent
SILENT = 'did not answer in time'


class Server(threading.Thread):
    """Serves the export of zeroes with the differences that a script names; a new thread for each connection."""

    def __init__(self, path, script):
        super().__init__(daemon=True)
        self.script = script
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.start()

    def run(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.converse, args=(Wire(sock),), daemon=True).start()

    def converse(self, wire):
        try:
            wire.sock.sendall(self.script.get('greeting', struct.pack('>QQH', MAGIC, OPTS, 3)))
            wire.unpack('>I')
            self.options(wire)
            while True:
                self.answer(wire, *wire.unpack('>IHHQQI')[2:])
        except (EOFError, OSError, StopIteration):
            pass
        wire.sock.close()

    def options(self, wire):
        while True:
            _, option, length = wire.unpack('>QII')
            wire.take(length)
            replies = self.script.get(option, self.usual(option))
            if replies is None:
                wire.take(1)                        # silence, until the client leaves
            if isinstance(replies, bytes):
                wire.sock.sendall(replies)
                if option == OPT_EXPORT_NAME:
                    return
                raise StopIteration
            for kind, data in replies:
                wire.send('>QIII', REP, option, kind, len(data), data=data)
            if option == OPT_GO and replies[-1][0] == REP_ACK:
                return

    @staticmethod
    def usual(option):
        if option == OPT_GO:
            return [(REP_INFO, export()), (REP_ACK, b'')]
        if option == OPT_STRUCTURED:
            return [(REP_ACK, b'')]
        if option == OPT_SET_META:
            return [(REP_META, struct.pack('>I', 7) + b'base:allocation'), (REP_ACK, b'')]
        if option == OPT_EXPORT_NAME:
            return struct.pack('>QH', SIZE, HAS_FLAGS)
        return [(UNSUP, b'')]

    def answer(self, wire, command, cookie, offset, length):
        if command == DISCONNECT:
            raise EOFError
        if command == WRITE:
            wire.take(length)
        make = self.script.get(('command', command))
        if make:
            wire.sock.sendall(b''.join(make(cookie, offset, length)))
        elif self.script.get(OPT_STRUCTURED, [(REP_ACK,)])[0][0] != REP_ACK:
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


def reads(*make):
    """The parts of a reply to READ, of each a function of cookie, offset and length."""
    return {('command', READ): lambda c, o, n: [part(c, o, n) for part in make]}


def statuses(make):
    return {('command', STATUS): lambda c, o, n: [make(c, o, n)]}


def go(*replies):
    return {OPT_GO: list(replies)}


HALF = SIZE // 2

# What the server does, and what blockdev-add says (None: it succeeds and all of the export can be read).
HANDSHAKE = {
    'as usual': ({}, None),
    'silence': ({'greeting': b''}, SILENT),
    'other magic': ({'greeting': b'HTTP/1.1 400 Bad Request\r\n'}, 'Bad initial magic received'),
    'other second magic': ({'greeting': struct.pack('>QQH', MAGIC, 1, 3)}, 'Bad server magic received'),
    'no fixed newstyle': ({'greeting': struct.pack('>QQH', MAGIC, OPTS, 0),
                           OPT_EXPORT_NAME: struct.pack('>QH', SIZE, HAS_FLAGS) + bytes(124), OPT_STRUCTURED: [(UNSUP, b'')]}, None),
    'unknown greeting flags': ({'greeting': struct.pack('>QQH', MAGIC, OPTS, 0xffff)}, None),
    'no structured replies': ({OPT_STRUCTURED: [(UNSUP, b'')]}, None),
    'structured refused by policy': ({OPT_STRUCTURED: [(POLICY, b'never')]}, None),
    'structured with a payload': ({OPT_STRUCTURED: [(REP_ACK, b'x')]}, "unexpected reply to option 'structured reply'"),
    'wants TLS': ({OPT_STRUCTURED: [(TLS_REQD, b'')]}, 'the server requires TLS'),
    'reply magic': ({OPT_STRUCTURED: bytes(20)}, 'Unexpected option reply magic'),
    'another option': ({OPT_STRUCTURED: struct.pack('>QIII', REP, OPT_GO, REP_ACK, 0)}, 'Server answered option 7 where 8'),
    'long reply': ({OPT_STRUCTURED: struct.pack('>QIII', REP, OPT_STRUCTURED, UNSUP, 0xffffffff)}, 'too many'),
    'no contexts': ({OPT_SET_META: [(UNSUP, b'')]}, None),
    'none of the contexts': ({OPT_SET_META: [(REP_ACK, b'')]}, None),
    'another context': ({OPT_SET_META: [(REP_META, b'\0\0\0\1other:x'), (REP_ACK, b'')]}, 'a metadata context that was not asked for'),
    'a context twice': ({OPT_SET_META: [(REP_META, b'\0\0\0\1base:allocation')] * 2 + [(REP_ACK, b'')]}, 'not asked for'),
    'a short context': ({OPT_SET_META: [(REP_META, b'\0\0')]}, 'not asked for'),
    'unknown export': (go((UNKNOWN, b'no such thing')), 'Requested export not available: no such thing'),
    'refusal in no language': (go((UNKNOWN, b'\xff\xfe\0')), 'Requested export not available'),
    'refused by policy': (go((POLICY, b'')), "denied by the server's policy"),
    'found invalid': (go((INVALID, b'')), 'found it invalid'),
    'wrong platform': (go((PLATFORM, b'')), 'platform'),
    'shutting down': (go((SHUTDOWN, b'')), 'shutting down'),
    'wants block sizes': (go((BLOCK_SIZE_REQD, b'')), 'block size'),
    'too big': (go((TOO_BIG, b'')), 'too big'),
    'refusal of an unknown kind': (go((1 << 31 | 99, b'')), 'unknown error'),
    'no GO': (go((UNSUP, b'')), None),
    'ACK and no size': (go((REP_ACK, b'')), 'did not say how large'),
    'ACK with a payload': (go((REP_INFO, export()), (REP_ACK, b'x')), 'did not say how large'),
    'an unknown reply to GO': (go((77, b'')), "unexpected reply to option 'go'"),
    'information of one byte': (go((REP_INFO, b'x')), 'too short'),
    'a short size': (go((REP_INFO, export()[:-1])), 'wrong length'),
    'a long size': (go((REP_INFO, export() + b'x')), 'wrong length'),
    'names and descriptions': (go((REP_INFO, b'\0\1name'), (REP_INFO, b'\0\2' + b'd' * 4096), (REP_INFO, b'\x12\x34'),
                                  (REP_INFO, export()), (REP_ACK, b'')), None),
    'the size twice': (go((REP_INFO, export(HALF)), (REP_INFO, export()), (REP_ACK, b'')), None),
    'an empty export': (go((REP_INFO, export(0)), (REP_ACK, b'')), None),
    'an odd size': (go((REP_INFO, export(SIZE - 1)), (REP_ACK, b'')), None),
    'the largest size': (go((REP_INFO, export(1 << 64 - 1)), (REP_ACK, b'')), 'too large'),
    'no transmission flags': (go((REP_INFO, export(SIZE, 0)), (REP_ACK, b'')), None),
    'all transmission flags': (go((REP_INFO, export(SIZE, 0xffff & ~READ_ONLY)), (REP_ACK, b'')), None),
    'blocks of 512': ({OPT_GO: blocks(512, 4096, 1 << 25)}, None),
    'blocks of 64 KiB': ({OPT_GO: blocks(65536, 65536, 65536)}, None),
    'no largest block': ({OPT_GO: blocks(1, 4096, 0xffffffff)}, None),
    'blocks of nothing': ({OPT_GO: blocks(0, 4096, 1 << 25)}, 'invalid minimum block size of 0'),
    'blocks of no power of two': ({OPT_GO: blocks(3, 4096, 1 << 25)}, 'invalid minimum block size of 3'),
    'large blocks': ({OPT_GO: blocks(1 << 17, 1 << 17, 1 << 25)}, 'invalid minimum block size of 131072'),
    'a preferred block below the least': ({OPT_GO: blocks(4096, 512, 1 << 25)}, 'invalid preferred block size of 512'),
    'a largest block below the least': ({OPT_GO: blocks(4096, 4096, 512)}, 'invalid maximum block size of 512'),
    'short block sizes': (go((REP_INFO, struct.pack('>HII', INFO_BLOCK_SIZE, 1, 1))), 'wrong length'),
    'silence after the greeting': ({OPT_STRUCTURED: None}, SILENT),
    'silence after contexts': ({OPT_SET_META: None}, SILENT),
    'silence after GO': ({OPT_GO: None}, SILENT),
    'half a reply': ({OPT_GO: struct.pack('>QII', REP, OPT_GO, REP_ACK)}, '.'),
}

# What the server sends for a request, and why the client breaks the connection (None: the read succeeds; '': it fails by itself).
REPLIES = {
    'in two chunks': (reads(lambda c, o, n: data(c, o, bytes(n // 2), 0), lambda c, o, n: data(c, o + n // 2, bytes(n - n // 2))), None),
    'backwards': (reads(lambda c, o, n: data(c, o + n // 2, bytes(n - n // 2), 0), lambda c, o, n: data(c, o, bytes(n // 2))), None),
    'a hole': (reads(lambda c, o, n: hole(c, o, n)), None),
    'data, a hole and a final chunk': (reads(lambda c, o, n: data(c, o, bytes(n // 2), 0),
                                             lambda c, o, n: hole(c, o + n // 2, n - n // 2, 0), lambda c, o, n: chunk(c, NONE)), None),
    'unknown chunk flags': (reads(lambda c, o, n: hole(c, o, n, 0xffff)), None),
    'an error': (reads(lambda c, o, n: failure(c)), ''),
    'an error with a text': (reads(lambda c, o, n: failure(c, text=b'the disk is on fire')), ''),
    'an error after data': (reads(lambda c, o, n: data(c, o, bytes(n), 0), lambda c, o, n: failure(c)), ''),
    'an error and data after it': (reads(lambda c, o, n: failure(c, flags=0), lambda c, o, n: data(c, o, bytes(n))), ''),
    'an error at an offset': (reads(lambda c, o, n: chunk(c, ERROR_OFFSET, struct.pack('>IHQ', 5, 0, o))), ''),
    'an unknown kind of error': (reads(lambda c, o, n: failure(c, kind=0x9999)), ''),
    'an unknown number of an error': (reads(lambda c, o, n: failure(c, error=0xffffffff)), ''),
    'an error of number 0': (reads(lambda c, o, n: failure(c, error=0)), 'inconsistent error'),
    'an error whose text ends behind it': (reads(lambda c, o, n: failure(c, length=99)), 'inconsistent error'),
    'a short error': (reads(lambda c, o, n: chunk(c, ERROR, b'\0\0\0\5')), 'error of a wrong length'),
    'an endless error': (reads(lambda c, o, n: chunk(c, ERROR, length=0xffffffff)), 'error of a wrong length'),
    'nothing of the data': (reads(lambda c, o, n: chunk(c, NONE)), 'left out part of a read'),
    'half of the data': (reads(lambda c, o, n: data(c, o, bytes(n // 2))), 'left out part of a read'),
    'the data twice': (reads(lambda c, o, n: data(c, o, bytes(n), 0), lambda c, o, n: data(c, o, bytes(n))), 'twice'),
    'data before the request': (reads(lambda c, o, n: data(c, (o - 1) % (1 << 64), bytes(n))), 'outside of the read'),
    'data behind the request': (reads(lambda c, o, n: data(c, o + 1, bytes(n))), 'outside of the read'),
    'too much data': (reads(lambda c, o, n: data(c, o, bytes(n + 1))), 'data chunk of a wrong length'),
    'no data in a data chunk': (reads(lambda c, o, n: data(c, o, b'')), 'data chunk of a wrong length'),
    'a data chunk of four bytes': (reads(lambda c, o, n: chunk(c, DATA, bytes(4))), 'data chunk of a wrong length'),
    'a hole of nothing': (reads(lambda c, o, n: hole(c, o, 0)), 'outside of the read'),
    'a hole that is too long': (reads(lambda c, o, n: hole(c, o, 0xffffffff)), 'outside of the read'),
    'a short hole': (reads(lambda c, o, n: chunk(c, HOLE, bytes(8))), 'hole chunk of a wrong length'),
    'a final chunk with a payload': (reads(lambda c, o, n: chunk(c, NONE, b'x')), 'invalid final chunk'),
    'an empty chunk that is not final': (reads(lambda c, o, n: chunk(c, NONE, flags=0)), 'invalid final chunk'),
    'an unknown chunk': (reads(lambda c, o, n: chunk(c, 99, b'x')), 'chunk of unknown type'),
    'extents for a read': (reads(lambda c, o, n: extents(c, (n, 0))), 'invalid block status'),
    'another cookie': (reads(lambda c, o, n: data(c + 1, o, bytes(n))), 'a request that was not made'),
    'a simple reply': (reads(lambda c, o, n: simple(c)), 'a simple reply where a structured one was agreed'),
    'a reply of no magic': (reads(lambda c, o, n: b'\0' * 32), 'invalid reply magic'),
    'a structured reply that was not agreed': ({OPT_STRUCTURED: [(UNSUP, b'')], **reads(lambda c, o, n: data(c, o, bytes(n)))},
                                               'structured reply that was not negotiated'),
    'a simple error': ({OPT_STRUCTURED: [(UNSUP, b'')], **reads(lambda c, o, n: simple(c, 28))}, ''),
}

# The same for block status; what a read of it shows does not depend on it.
STATUSES = {
    'flags that are not known': (lambda c, o, n: extents(c, (n, 0xfffffffc)), None),
    'more than was asked for': (lambda c, o, n: extents(c, (SIZE * 4, 3)), None),
    'an error': (lambda c, o, n: failure(c), None),
    'another context': (lambda c, o, n: extents(c, (n, 0), context=8), 'block status that was not asked for'),
    'no extent': (lambda c, o, n: extents(c), 'invalid block status'),
    'half an extent': (lambda c, o, n: chunk(c, EXTENTS, struct.pack('>III', 7, n, 0) + bytes(4)), 'invalid block status'),
    'an extent of nothing': (lambda c, o, n: extents(c, (0, 0)), 'extent of no length'),
    'nothing behind an extent': (lambda c, o, n: extents(c, (n // 2, 0), (0, 0)), 'extent of no length'),
    'nothing at all': (lambda c, o, n: chunk(c, NONE), 'left out the block status'),
    'data': (lambda c, o, n: data(c, o, bytes(8)), 'outside of the read|wrong length'),
    'a simple success': (lambda c, o, n: simple(c), 'a simple reply where a structured one was agreed'),
}


@pytest.fixture
def vm(vmm):
    return vmm('-trace', 'nbd_client_broken')


def connect(vm, work, script, **options):
    Server(work / 'server', script)
    vm.add('nbd', 'disk', server={'type': 'unix', 'path': str(work / 'server')}, **options)


def read_all(vm):
    """What qemu-io says when it reads all that the node has."""
    size = next(n for n in vm.cmd('query-named-block-nodes', flat=True) if n['node-name'] == 'disk')['image']['virtual-size']
    return vm.qemu_io('disk', f'read -P 0 0 {size}') if size else ''


@pytest.mark.parametrize('what', HANDSHAKE)
def test_handshake(vm, work, what):
    script, refusal = HANDSHAKE[what]
    if refusal:
        options = {'open_timeout': SILENCE_S} if refusal == SILENT else {}
        with pytest.raises(ferry.QMPError, match=refusal):
            connect(vm, work, script, **options)
    else:
        connect(vm, work, script)
        assert 'failed' not in read_all(vm)
    vm.quit()


def test_tries_within_the_timeout_do_not_hide_the_reason(vm, work):
    with pytest.raises(ferry.QMPError, match='no such thing'):
        connect(vm, work, go((UNKNOWN, b'no such thing')), open_timeout=SILENCE_S)


@pytest.mark.parametrize('what', REPLIES)
def test_reply_to_a_read(vm, work, what):
    script, why = REPLIES[what]
    connect(vm, work, script)
    text = read_all(vm)
    assert ('failed' in text) == (why is not None), text
    if why:
        assert why in vm.stderr()
    vm.quit()


@pytest.mark.parametrize('what', STATUSES)
def test_block_status(vm, work, what):
    make, why = STATUSES[what]
    connect(vm, work, statuses(make), reconnect_delay=60)
    vm.add_file(ferry.make_image(work / 'copy.raw', SIZE), node_name='copy')
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full')
    vm.wait('BLOCK_JOB_READY', device='m')
    assert (why is None) == ('nbd_client_broken' not in vm.stderr()), vm.stderr()
    if why:
        assert any(part in vm.stderr() for part in why.split('|'))
    vm.quit()
