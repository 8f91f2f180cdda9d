# SPDX-License-Identifier: GPL-2.0-or-later
"""Stock QEMU as the other side of a migration, in whatever versions are here.

A guest of either kind has its memory in a file of its own, shared, that a test fills, reads and compares. There is no
CPU: with qtest a test plays Ferry's guest. In stock QEMU qtest wants a CPU, but its `loader` device writes a file
into guest memory at each reset, and the log of written pages sees that.
"""
import os
import random
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

from . import migration as m
from .guard import Guard
from .images import MIB
from .qtest import QTest

RAM = 32 * MIB
WRITTEN_AT = MIB + MIB // 2    # where writers write
WRITE_MAX = 256
LAST = ['-machine', 'none', '-display', 'none', '-nodefaults', '-S']
WAYS = ['ferry-stock', 'stock-ferry']
# What a machine type of that version would say to Ferry; `none` has no version.
BARRIERS_BY_FLUSH = ['-global', 'migration.multifd-flush-after-each-section=off']
ACK_WHERE_ASKED = ['-global', 'migration.switchover-ack-legacy=off']


class Peer:
    """A stock qemu-system-x86_64: its command and version."""

    def __init__(self, command):
        self.command = str(command)
        done = subprocess.run([self.command, '--version'], capture_output=True, text=True, timeout=60, check=True)
        self.version = tuple(map(int, re.search(r'version (\d+)\.(\d+)', done.stdout).groups()))
        self.name = '.'.join(map(str, self.version))

    @property
    def new_barriers(self):
        """Machine `none` waits for multifd at FLUSH records only: 8.1 and newer."""
        return self.version >= (8, 1)


def is_stock(program):
    """False for Ferry, which has the same name and may be installed in the place of stock QEMU."""
    done = subprocess.run([program, '--version'], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode == 0 and 'Ferry' not in done.stdout


def programs(name):
    """Paths of the distribution's program and of those named NAME-VERSION in FERRY_PEERS (make-peers writes them)."""
    found = [shutil.which(name, path=part) for part in os.get_exec_path()]      # Ferry may come first
    found = [path for path in found if path and is_stock(path)][:1]
    found += sorted(Path(os.environ.get('FERRY_PEERS') or '/nonexistent').glob(f'{name}-*'))
    return [str(path) for path in found]


def distribution():
    """The command of the distribution's qemu-system-x86_64 as a list; empty where there is none."""
    found = [path for path in programs('qemu-system-x86_64') if Path(path).name == 'qemu-system-x86_64']
    return found[:1]


def peers():
    """By version."""
    return {peer.name: peer for peer in map(Peer, programs('qemu-system-x86_64'))}


class Lane:
    """Starts guests of both kinds that can be migrated to one another; `who` is 'ferry' or 'stock'.

    `size` is their memory, `writes` how many of its pages a writer changes.
    """

    def __init__(self, vmm, work, peer, size=RAM, writes=400):
        self.vmm, self.work, self.peer, self.size, self.writes = vmm, work, peer, size, writes
        self.count = 0

    def guest(self, who, *args, caps=(), params=None, peer=None, writer=False, pass_fds=()):
        """`writer` makes it one whose memory write() changes; `peer` is another version than the lane's."""
        self.count += 1
        peer = peer or self.peer
        memory = self.work / f'memory{self.count}'
        if 'multifd' in caps and who == 'ferry' and '-incoming' not in args and peer.new_barriers:
            args = *BARRIERS_BY_FLUSH, *args
        if 'switchover-ack' in caps and who == 'ferry' and peer.version >= (11, 1):
            args = *ACK_WHERE_ASKED, *args
        change = None
        if writer:
            change = (StockWriter if who == 'stock' else FerryWriter)(self.work, self.writes)
            args += *change.args,
        vm = self.vmm(*LAST, '-m', f'{self.size // MIB}M', '-object',
                      f'memory-backend-file,id=ram0,mem-path={memory},size={self.size},share=on',
                      '-machine', 'memory-backend=ram0', *args, defaults=False, name=who, pass_fds=pass_fds,
                      command=[peer.command] if who == 'stock' else None)
        vm.memory = memory
        vm.writer = change
        if change:
            change.attach(vm)
        m.set_caps(vm, 'events', *caps)
        if params:
            vm.cmd('migrate-set-parameters', params)
        return vm

    def pair(self, way, *args, caps=(), params=None, source_caps=(), source_params=None, **more):
        """way is 'ferry-stock' or the other one; the destination listens at the third value."""
        first, second = way.split('-')
        source = self.guest(first, *args, caps=[*caps, *source_caps], params={**(params or {}), **(source_params or {})},
                            **more)
        destination = self.guest(second, *args, '-incoming', 'defer', caps=caps, params=params)
        uri = f'unix:{self.work}/in{self.count}'
        destination.cmd('migrate-incoming', uri=uri)
        return source, destination, uri


class FerryWriter:
    """Some bytes of every page of a piece of memory that is full of them, by qtest; a few pages become empty."""

    def __init__(self, work, pages):
        self.qtest = QTest(work)
        self.args = self.qtest.args
        self.pages = pages
        self.rng = random.Random(71)

    def attach(self, vm):
        self.qtest.write(WRITTEN_AT, self.rng.randbytes(self.pages * m.PAGE))

    def write(self):
        for page in range(self.pages):
            at = WRITTEN_AT + page * m.PAGE
            kind = self.rng.randrange(32)
            if kind == 0:
                self.qtest.memset(at, m.PAGE, 0)
            elif kind < 4:
                self.qtest.write(at, self.rng.randbytes(m.PAGE))
            else:
                self.qtest.write(at + self.rng.randrange(m.PAGE - WRITE_MAX),
                                 self.rng.randbytes(self.rng.randrange(1, WRITE_MAX)))

    def finish(self):
        pass


class StockWriter:
    """A piece of memory that each reset writes again. The log sees that, and then the pages are changed a little behind
    its back, so that they differ from what was sent before. finish() must come last: what it writes is what stays."""

    def __init__(self, work, pages):
        self.rng = random.Random(72)
        self.content = b''.join(self.rng.randbytes(m.PAGE) if n % 8 else bytes(m.PAGE) for n in range(pages))
        path = work / 'loaded'
        path.write_bytes(self.content)
        self.args = ['-device', f'loader,file={path},addr={WRITTEN_AT},force-raw=on']

    def attach(self, vm):
        self.vm = vm

    def finish(self):
        self.vm.cmd('system_reset')
        self.vm.wait('RESET')

    def write(self):
        self.finish()
        with open(self.vm.memory, 'r+b') as memory:
            for at in range(0, len(self.content), m.PAGE):
                memory.seek(WRITTEN_AT + at + self.rng.randrange(m.PAGE - WRITE_MAX))
                memory.write(self.rng.randbytes(self.rng.randrange(1, WRITE_MAX)))


def fill(vm, seed, end=None, start=0):
    """Writes into the file that is the guest's memory, before a process has looked at it."""
    print(f'memory: seed {seed}')
    rng = random.Random(seed)
    end = end or os.path.getsize(vm.memory)
    with open(vm.memory, 'r+b') as file:
        at = start
        while at < end:
            size = min(rng.randrange(1, 500) * m.PAGE, end - at)
            kind = rng.randrange(3)
            if kind:
                file.seek(at)
                file.write(rng.randbytes(size) if kind == 1 else bytes([rng.randrange(256)]) * size)
            at += size


class Gate:
    """Stands between a source and a destination and lets so many bytes through as it is told, on all channels together.

    What a source has not got rid of keeps it from the end of a pass. So whoever lets through less than a pass, writes,
    and lets through more has written in every pass, however slow or fast anything is. Replies pass freely.
    """

    def __init__(self, target):
        self.target = str(target)
        self.room = 0       # None: no limit
        self.changed = threading.Condition()

    def listen(self, path):
        """A URI for sources with any number of channels."""
        listener = m.unix_listener(path)

        def accept():
            while True:
                self.connect(listener.accept()[0])
        threading.Thread(target=accept, daemon=True).start()
        return f'unix:{path}'

    def pair(self):
        """The end of a source with one channel; hardly anything fits into it."""
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.connect(ours)
        return theirs

    def connect(self, source):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(self.target)
        for args in ((source, peer, True), (peer, source, False)):
            threading.Thread(target=self.pump, args=args, daemon=True).start()

    def take(self, most):
        with self.changed:
            while self.room is not None and self.room <= 0:
                self.changed.wait()
            return most if self.room is None else min(most, self.room)

    def pump(self, a, b, gated):
        try:
            while data := a.recv(self.take(1 << 16) if gated else 1 << 16):
                if gated and self.room is not None:
                    with self.changed:
                        self.room -= len(data)
                b.sendall(data)
        except OSError:
            pass
        try:
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def let(self, count):
        """So many bytes from now on, and what was left of them before does not count; None: all that come."""
        with self.changed:
            self.room = count
            self.changed.notify_all()


def write_while_it_goes(source, gate, step, passes=5, until=lambda info: True):
    """Writes, and lets `step` bytes through, until so many passes are over and `until` is content; then lets it end.

    The source has pause-before-switchover and a downtime-limit that what is written does not allow, and writes several
    times as much as `step` and what its sockets hold. Returns what it says of itself before the end.
    """
    guard = Guard(60)
    # Stock completes without another look at the log when a first pass ends before it has measured a bandwidth, which
    # takes it 100 ms.
    while source.cmd('query-migrate').get('total-time', 0) < 150:
        guard.left()
    while True:
        source.writer.write()
        gate.let(step)
        info = source.cmd('query-migrate')
        assert info['status'] in ('setup', 'active'), f'it ended while memory was written: {info}'
        if info.get('ram', {}).get('dirty-sync-count', 0) >= passes and until(info):
            break
        guard.left()
    source.writer.finish()
    source.cmd('migrate-set-parameters', {'downtime-limit': 2000})
    gate.let(None)
    info = m.wait_status(source, 'pre-switchover')
    source.cmd('migrate-continue', state='pre-switchover')
    return info


def same_memory(source, destination):
    """Says which page is the first that differs."""
    ours, theirs = source.memory.read_bytes(), destination.memory.read_bytes()
    if ours != theirs:
        assert len(ours) == len(theirs)
        bad = [at for at in range(0, len(ours), m.PAGE) if ours[at:at + m.PAGE] != theirs[at:at + m.PAGE]]
        raise AssertionError(f'{len(bad)} pages differ, the first at {bad[0]:#x}')


def arrived(source, destination, uri=None):
    """The migration (begun here if there is a uri) completes, and memory is the same on both sides."""
    if uri:
        source.cmd('migrate', uri=uri)
    info = m.wait_over(source)
    assert info['status'] == 'completed', info
    assert m.wait_over(destination)['status'] == 'completed'
    m.wait_run_state(source, 'postmigrate')     # stock 7.2 says completed first
    same_memory(source, destination)
    for vm in (source, destination):
        assert m.error_lines(vm) == []
    return info
