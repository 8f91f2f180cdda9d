# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations that are broken on purpose: connections that break, peers that die, and which side has the guest
afterwards.

A Mover has one source, whose guest is sent again and again, and destinations that may be tried again. The proxies
between them (Channels) break the connection that a test names, where the test wants it.
"""
import itertools
import random
import socket
import struct
import threading
import time

from . import MIB, QTest
from . import migration as m
from .guard import Guard
from .qmp import QMPClosed

RAM = 4 * MIB
MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults', '-m', f'{RAM // MIB}M']
KNOWN = 4       # bytes by which a destination knows a source
MAIN = 0        # the first connection of a migration; those of multifd follow
_numbers = itertools.count()


def quiet(call, *args):
    try:
        call(*args)
    except OSError:
        pass


class Link:
    """One connection through Channels. count is how many bytes went (to the destination, back)."""

    def __init__(self, index, source, peer):
        self.index, self.source, self.peer = index, source, peer
        self.count = [0, 0]
        self.record = bytearray()
        self.ended = threading.Event()


class Channels:
    """Stands between a source and a destination, for any number of connections; thread-driven.

    break_at is {(connection, back): (byte, how)}, or a list of such pairs: what happens when so many bytes have gone in
    this direction of that connection. how: 'cut' (both sides read an end), 'reset', 'stall' (nothing moves in it, and
    `stalled` is set, until release() lets it go on or drop() ends all of it). edit is {connection: [(offset, bytes)]}:
    written over what goes to the destination. `broken` is set when something was cut or reset. A (connection, back) that
    is put into `hold` stalls at whatever comes next there. target: a path, or a TCP port; listens alike.
    """

    def __init__(self, path, target, break_at=None, edit=None):
        self.break_at, self.edit = break_at or {}, edit or {}
        self.hold = set()
        self.target = target
        if isinstance(target, int):
            self.listener = socket.create_server(('127.0.0.1', 0))
            self.uri = f'tcp:127.0.0.1:{self.listener.getsockname()[1]}'
        else:
            self.listener = m.unix_listener(path)
            self.uri = f'unix:{path}'
        self.links = []
        self.stalled, self.broken = threading.Event(), threading.Event()
        self._go_on = threading.Event()
        self._dropped = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        try:
            while True:
                source = self.listener.accept()[0]
                if isinstance(self.target, int):
                    peer = socket.create_connection(('127.0.0.1', self.target))
                else:
                    peer = socket.socket(socket.AF_UNIX)
                    peer.connect(str(self.target))
                link = Link(len(self.links), source, peer)
                self.links.append(link)
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()
        except OSError:     # closed, or the destination does not listen any more
            self.listener.close()

    def _serve(self, link):
        back = threading.Thread(target=self._pump, args=(link, link.peer, link.source, True), daemon=True)
        back.start()
        self._pump(link, link.source, link.peer, False)
        back.join()
        link.source.close()
        link.peer.close()
        link.ended.set()

    def _pump(self, link, a, b, back):
        breaks = self.break_at.get((link.index, back), [])
        breaks = [breaks] if isinstance(breaks, tuple) else list(breaks)
        try:
            while True:
                room = 1 << 16
                if breaks:
                    room = min(room, breaks[0][0] - link.count[back])
                    if room == 0:
                        if not self._break(link, breaks.pop(0)[1]):
                            return
                        continue
                data = a.recv(room)
                if not data:
                    break
                if (link.index, back) in self.hold and not self._break(link, 'stall'):
                    return
                data = self._edited(link, data, back)
                b.sendall(data)
                if not back:
                    link.record += data
                link.count[back] += len(data)
        except OSError:
            pass
        quiet(b.shutdown, socket.SHUT_WR)       # what is on its way still arrives

    def _edited(self, link, data, back):
        if back or link.index not in self.edit:
            return data
        data = bytearray(data)
        start = link.count[False]
        for offset, new in self.edit[link.index]:
            for i, byte in enumerate(new):
                if start <= offset + i < start + len(data):
                    data[offset + i - start] = byte
        return bytes(data)

    def _break(self, link, how):
        """True: go on after all."""
        if how == 'stall':
            self.stalled.set()
            self._go_on.wait(m.LIMIT_S)
            if not self._dropped:
                self._go_on.clear()
            return not self._dropped
        self.break_link(link, how)
        return False

    def break_link(self, link, how):
        self.broken.set()
        for one in (link.source, link.peer):
            if how == 'reset':
                quiet(one.setsockopt, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                quiet(one.shutdown, socket.SHUT_RD)
            else:
                quiet(one.shutdown, socket.SHUT_RDWR)

    def wait_known(self):
        """Until the destination can know the first connection for a source's; before, it waits on when that ends."""
        guard = Guard(m.LIMIT_S)
        while not self.links or self.links[MAIN].count[False] < KNOWN:
            time.sleep(0.001)
            guard.left()

    def release(self):
        """What is stalled goes on; one connection is."""
        self.stalled.clear()
        self._go_on.set()

    def drop(self, how='cut'):
        """Ends every connection."""
        self._dropped = True
        quiet(self.listener.shutdown, socket.SHUT_RDWR)
        for link in list(self.links):
            self.break_link(link, how)
        self._go_on.set()

    def close(self):
        self.drop()
        for link in self.links:
            assert link.ended.wait(Guard(m.LIMIT_S).left())


class Guest:
    """A binary with memory that a test writes and reads."""

    def __init__(self, vmm, work, name, *args, caps=(), params=None):
        self.qtest = QTest(work, f'{name}{next(_numbers)}')
        self.vm = vmm(*MACHINE, *self.qtest.args, *args, defaults=False, name=name)
        self.seen_errors = 0
        m.set_caps(self.vm, 'events', *caps)
        if params:
            self.vm.cmd('migrate-set-parameters', params)

    def memory(self):
        return self.qtest.read(0, RAM)

    def new_errors(self):
        """Lines of the binary itself; programs that it starts may have their say."""
        lines = [line for line in m.error_lines(self.vm) if line.startswith(self.vm.argv[0])][self.seen_errors:]
        self.seen_errors += len(lines)
        return lines


class Mover:
    """A source with data, and destinations; both sides have the capabilities and parameters, in `params` or apart."""

    def __init__(self, vmm, work, caps=('return-path',), params=None, source_params=None, destination_params=None,
                 source_args=(), destination_args=(), tcp=False, running=True):
        self.vmm, self.work, self.caps, self.tcp = vmm, work, tuple(caps), tcp
        self.destination_params = {**(params or {}), **(destination_params or {})}
        self.source_params = {**(params or {}), **(source_params or {})}
        self.source_args, self.destination_args = source_args, destination_args
        self.running = running
        self.source = self.destination = self.channels = None
        self.new_source()

    def new_source(self):
        self.source = Guest(self.vmm, self.work, 'source', *self.source_args, *([] if self.running else ['-S']),
                            caps=self.caps, params=self.source_params)
        self.state = m.run_state(self.source.vm)
        self.data = random.Random(1).randbytes(RAM)
        self.source.qtest.write(0, self.data)

    def new_destination(self):
        self.destination = Guest(self.vmm, self.work, 'destination', *self.destination_args, '-incoming', 'defer',
                                 caps=self.caps, params=self.destination_params)

    def listen(self):
        """The destination waits, an old one that failed or a new one; returns where."""
        if self.destination is None:
            self.new_destination()
        vm = self.destination.vm
        if vm.cmd('query-migrate').get('status') == 'setup':
            return self.where
        path = self.work / f'in{next(_numbers)}'
        vm.cmd('migrate-incoming', uri='tcp:127.0.0.1:0' if self.tcp else f'unix:{path}', exit_on_error=False)
        self.where = int(vm.cmd('query-migrate')['socket-address'][0]['port']) if self.tcp else path
        return self.where

    def start(self, break_at=None, edit=None):
        """`migrate` through a new Channels, which is returned; what is left of the one before ends."""
        if self.channels:
            self.channels.drop()
        self.channels = Channels(self.work / f'proxy{next(_numbers)}', self.listen(), break_at, edit)
        self.source.vm.cmd('migrate', uri=self.channels.uri)
        return self.channels

    # Which side has the guest

    def outcome(self, *, waits=False, source_causes=(), destination_causes=()):
        """'here', 'there' or 'unknown', once it is over; AssertionError if not exactly one side has the guest.

        waits: the destination may go on waiting for a source, as it does after a TLS handshake that failed. Causes:
        words of which the error must have one. Afterwards the guest is here, and can be sent again.
        """
        info = m.wait_over(self.source.vm)
        lines = self.source.new_errors()
        if info['status'] == 'failed':
            assert len(lines) == 1 and info['error-desc'] in lines[0], (lines, info)
            assert not source_causes or any(cause in lines[0] for cause in source_causes), lines
        else:
            assert lines == [], lines
        state = m.run_state(self.source.vm)
        if info['status'] in ('failed', 'cancelled') and state != 'postmigrate':
            assert state == self.state
            self.destination_failed(waits, destination_causes)
            return 'here'
        assert state == 'postmigrate'
        where = 'there' if self.destination_is_over() == 'completed' else 'unknown'
        assert where == 'there' or info['status'] != 'completed' or 'return-path' not in self.caps
        self.take_back(where)
        return where

    def destination_is_over(self, waits=False):
        """Its final status; 'setup' if it waits on."""
        if self.destination is None:
            return 'gone'
        guard = Guard(m.LIMIT_S)
        vm = self.destination.vm
        while (info := vm.cmd('query-migrate')).get('status') not in m.OVER:
            if waits and info['status'] == 'setup':
                break
            guard.left()
        return info['status']

    def destination_failed(self, waits, causes):
        status = self.destination_is_over(waits)
        if status == 'gone':
            return
        assert status in (('failed', 'setup') if waits else ('failed',))
        vm = self.destination.vm
        assert m.run_state(vm) == 'inmigrate'
        # A channel that broke in its handshake is told of, and is no failure of the load.
        lines = [line for line in self.destination.new_errors() if 'a peer was turned away' not in line]
        if waits and len(lines) == 2 and 'TLS handshake failed' in lines[0]:
            lines = lines[1:]       # before the main channel's handshake was over
        if status == 'failed':
            assert len(lines) == 1 and vm.cmd('query-migrate')['error-desc'] in lines[0], lines
            assert 'load of migration failed: ' in lines[0]
        else:
            assert len(lines) <= 1, lines       # peers that fail are told once a second
        assert not causes or not lines or any(cause in lines[0] for cause in causes), lines

    def take_back(self, where):
        """What a user does: looks whether the guest is there, ends it there, and only then has it go on here."""
        if where == 'there':
            assert m.run_state(self.destination.vm) == self.state
            assert self.destination.memory() == self.data
            assert self.destination.new_errors() == []
        if self.destination:
            self.destination.vm.kill()
        self.destination = None
        self.source.vm.cmd('cont')
        self.state = m.run_state(self.source.vm)
        assert self.source.memory() == self.data

    def kill_destination(self):
        self.destination.vm.kill()
        self.destination = None

    def finish(self):
        """The guest goes after all, and every byte of it."""
        assert self.source.memory() == self.data
        state = self.state
        self.start()
        assert m.wait_over(self.source.vm)['status'] == 'completed'
        assert self.destination_is_over() == 'completed'
        assert m.run_state(self.source.vm) == 'postmigrate' and m.run_state(self.destination.vm) == state
        assert self.destination.memory() == self.data
        assert self.source.new_errors() == [] and self.destination.new_errors() == []
        return self.channels


def status_of(vm):
    """None: the process has gone."""
    try:
        return vm.cmd('query-migrate').get('status', 'none')
    except QMPClosed:
        return None
