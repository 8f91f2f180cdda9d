# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD peers that bend the protocol to their advantage; what is plainly malformed is the fuzzers' business."""
import socket
import struct
import threading

import pytest

import ferry
from ferry.nbd_script import (CHUNK, DATA, ERROR, MAGIC, OPT_GO, OPT_SET_META, OPT_STRUCTURED, OPTS, READ, REP, REP_ACK, REP_INFO,
                              REP_META, REQUEST, STATUS, Wire)


class Client(Wire):
    def __init__(self, path):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        super().__init__(sock)
        self.unpack('>QQH')
        self.send('>I', 3)

    def option(self, number, data=b''):
        """Sends an option; returns its replies as (type, payload) up to the final one."""
        self.send('>QII', OPTS, number, len(data), data=data)
        replies = []
        while not replies or replies[-1][0] in (REP_INFO, REP_META):
            magic, answered, kind, length = self.unpack('>QIII')
            assert (magic, answered) == (REP, number)
            replies.append((kind, self.take(length)))
        return replies


def text(data):
    return struct.pack('>I', len(data)) + data


def test_contexts_of_an_export_that_was_replaced_do_not_count(vm):
    """Its successor of the same name has fewer bitmaps than the one the client had chosen from."""
    vm.add('null-co', 'disk', size=ferry.MIB, read_zeroes=True)
    vm.cmd('block-dirty-bitmap-add', node='disk', name='b')
    vm.export('disk', 'other')
    add = {'type': 'nbd', 'id': 'e', 'node-name': 'disk', 'name': 'x', 'writable': True}
    vm.cmd('block-export-add', {**add, 'bitmaps': ['b']})
    client = Client(vm.workdir / f'{vm.name}.nbd')
    assert client.option(OPT_STRUCTURED) == [(REP_ACK, b'')]
    chosen = client.option(OPT_SET_META, text(b'x') + struct.pack('>I', 1) + text(b'qemu:dirty-bitmap:b'))
    assert [kind for kind, _ in chosen] == [REP_META, REP_ACK]
    vm.cmd('block-export-del', id='e')
    vm.wait('BLOCK_EXPORT_DELETED', id='e')
    vm.cmd('block-export-add', add)
    assert client.option(OPT_GO, text(b'x') + struct.pack('>H', 0))[-1] == (REP_ACK, b'')
    client.send('>IHHQQI', REQUEST, 0, STATUS, 1, 0, 4096)
    magic, _, kind, cookie, _ = client.unpack('>IHHQI')
    assert (magic, kind, cookie) == (CHUNK, ERROR, 1)
    client.sock.close()


class Splinters(threading.Thread):
    """A server that answers reads by pieces of one byte, the last first, and records whether its client put up with it."""

    PIECES = 4096

    def __init__(self, path):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.left = False
        self.start()

    def run(self):
        wire = Wire(self.listener.accept()[0])
        try:
            self.greet(wire)
            self.serve(wire)
        except (EOFError, ConnectionError):
            self.left = True
        wire.sock.close()

    @staticmethod
    def greet(wire):
        wire.send('>QQH', MAGIC, OPTS, 3)
        wire.unpack('>I')
        while True:
            _, option, length = wire.unpack('>QII')
            wire.take(length)
            if option == OPT_GO:
                info = struct.pack('>HQH', 0, 64 * ferry.MIB, 1)
                wire.send('>QIII', REP, option, REP_INFO, len(info), data=info)
            wire.send('>QIII', REP, option, REP_ACK, 0)
            if option == OPT_GO:
                return

    def serve(self, wire):
        while True:
            _, _, command, cookie, offset, length = wire.unpack('>IHHQQI')
            assert command == READ
            step = length // self.PIECES
            for number in reversed(range(self.PIECES)):
                wire.send('>IHHQI', CHUNK, 0, DATA, cookie, 9,
                          data=struct.pack('>QB', offset + number * step + step - 1, 0))


def test_read_answered_in_splinters_ends_the_connection(vm, work):
    nbd = pytest.importorskip('nbd')
    server = Splinters(work / 'server')
    vm.add('nbd', 'disk', server={'type': 'unix', 'path': str(work / 'server')})
    reader = ferry.nbd_connect(vm.export('disk', writable=False))
    with pytest.raises(nbd.Error):
        reader.pread(16 * ferry.MIB, 0)
    server.join(60 * ferry.time_scale())
    assert server.left
