# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations of guest memory between two processes of one binary; machine none, whose guest does nothing or is played."""
import contextlib
import mmap
import os
import random
import socket
import threading
import time
from pathlib import Path

import ferry
from ferry.images import MIB

GIB = 1 << 30
LIMIT_S = 300               # hang guard
COMPARED = 64 * MIB         # how much of private memory is looked at
HOT = 128 * MIB             # what a guest rewrites, in steps, bytes a second
STEP = 64 << 10
WRITE_RATE = 50 * MIB
BLOCK = 'm0'
RESERVE = 3 * GIB           # most of what is kept ready for a run
SLACK_MIB = 48              # what a side holds besides the guest's data
MADV_POPULATE_WRITE = 23    # Linux 5.14; mmap has no name for it


def fill(path, data, total):
    """Bytes that no two pages share, then memory that was never touched."""
    block = random.Random(1).randbytes(4 * MIB)
    with open(path, 'wb') as file:
        for i in range(data // MIB):
            start = i * 4097 % (3 * MIB)
            file.write(block[start:start + MIB - 8] + i.to_bytes(8, 'little'))
        file.truncate(total)


class Reserve:
    """
    Memory that is held between runs and given away right before one. What a virtual machine frees goes back to its host
    within seconds, and then each page that is allocated costs a fault there, several times what a migration does with it.
    """

    def __init__(self):
        self.memory = None

    def take(self, size):
        if self.memory:
            return
        with open('/proc/meminfo', encoding='ascii') as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith('MemAvailable:'))
        size = min(size, RESERVE, free // 2) // (2 * MIB) * (2 * MIB)
        self.memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory.madvise(mmap.MADV_HUGEPAGE)
        with contextlib.suppress(OSError):
            self.memory.madvise(MADV_POPULATE_WRITE)

    def give(self):
        if self.memory:
            self.memory.close()
        self.memory = None


reserve = Reserve()


def warm(size):
    """Has memory ready for what is run now."""
    reserve.give()
    reserve.take(size)
    reserve.give()


def plain_pair_s(source, target, size):
    """Seconds that write and read take to carry the same bytes from file memory to fresh file memory over a socket."""
    ours, theirs = socket.socketpair()
    with open(target, 'w+b') as out, open(source, 'rb') as inp:
        out.truncate(size)
        with mmap.mmap(out.fileno(), size) as dst, mmap.mmap(inp.fileno(), size, access=mmap.ACCESS_READ) as src:
            start = time.monotonic()
            child = os.fork()
            if child == 0:
                got, view = 1, memoryview(dst)
                with contextlib.suppress(BaseException):
                    ours.close()
                    while got and view:
                        got = theirs.recv_into(view[:MIB])
                        view = view[got:]
                os._exit(0 if not view else 1)
            theirs.close()
            with memoryview(src) as view:
                for at in range(0, size, MIB):
                    ours.sendall(view[at:at + MIB])
            _, status = os.waitpid(child, 0)
            took = time.monotonic() - start
            ours.close()
    Path(target).unlink()
    assert status == 0, 'the plain pair failed'
    return took


class Rewriter(threading.Thread):
    """Plays a guest that overwrites a part of its memory again and again."""

    def __init__(self, qtest):
        super().__init__(daemon=True)
        self.qtest, self.ending, self.random = qtest, threading.Event(), random.Random(1)

    def run(self):
        start, count = time.monotonic(), 0
        with contextlib.suppress(OSError, ferry.QTestError):     # the process ends
            while not self.ending.is_set():
                self.qtest.memset(self.random.randrange(HOT // STEP) * STEP, STEP, count % 255 + 1)
                count += 1
                self.ending.wait(max(0, start + count * STEP / WRITE_RATE - time.monotonic()))


class Migrate:
    """`migrate` until both sides say that it is over. Goals are in relation to the best of the stock versions."""

    best = True

    def __init__(self, name, title, goal, cpu_goal=0.6, mib=2048, data=GIB, shared=True, caps=(), params=None, way='unix',
                 pair=False, rewriting=False):
        self.name, self.title, self.goal, self.cpu_goal = name, title, goal, cpu_goal
        self.mib, self.data, self.shared, self.way, self.pair, self.rewriting = mib, data, shared, way, pair, rewriting
        self.caps, self.params = ['events', *caps], params or {}

    def goals(self):
        goals = {'total_s': self.goal, 'cpu_s': self.cpu_goal, 'downtime_ms': None, 'held_mib': None}
        if self.pair:
            goals['pairs'] = None
        return goals

    def limits(self):
        """Figures that must not be larger than this, whatever stock QEMU reaches."""
        sides = 1 if self.way in ('exec', 'file') else 2
        limits = {'held_mib': sides * (self.data / MIB + SLACK_MIB)}    # untouched memory stays untouched on both
        if not self.rewriting:
            limits['downtime_ms'] = 20
        if self.pair:
            limits['pairs'] = 1 / 0.7
        return limits

    def prepare(self, lab, options):
        reserve.give()
        self.memory = lab.work / 'source.ram'
        fill(self.memory, self.data, self.mib * MIB)
        self.target = lab.work / 'target.ram'
        self.stream = None
        if not self.shared:     # private memory is filled by a migration from a file
            self.stream = lab.work / 'filling.stream'
            self.save(lab, options, ['events'], f'exec:cat > {self.stream}')

    def save(self, lab, options, caps, uri):
        vm = lab.vmm(*self.arguments(self.memory), command=[options.binary])
        self.set_caps(vm, caps)
        vm.cmd('migrate', uri=uri)
        self.over(vm)
        vm.kill()

    @staticmethod
    def set_caps(vm, caps):
        vm.cmd('migrate-set-capabilities', capabilities=[{'capability': c, 'state': True} for c in caps])

    def allocated(self):
        """Most bytes that any binary has the kernel allocate: where the memory goes to, and the holes of the source's."""
        return 2 * self.mib * MIB - self.data if self.shared else self.data

    def arguments(self, path):
        kind = f'memory-backend-file,mem-path={path},share=on' if path else 'memory-backend-ram'
        return ['-machine', f'memory-backend={BLOCK}', '-m', f'{self.mib}M',
                '-object', f'{kind},id={BLOCK},size={self.mib}M']

    def held_mib(self, sides):
        """Host memory of both sides at the end: their own, and the files that are guest memory."""
        files = [path for path in (self.memory, self.target) if self.shared and path.exists()]
        own = sum(vm.memory_kib('RssAnon') for vm in sides)
        return own / 1024 + sum(path.stat().st_blocks for path in files) * 512 / MIB

    @staticmethod
    def over(vm):
        event = vm.wait('MIGRATION', LIMIT_S, where=lambda data: data['status'] in ('completed', 'failed', 'cancelled'))
        if event['data']['status'] != 'completed':
            raise RuntimeError(f'{event["data"]["status"]}: {vm.cmd("query-migrate").get("error-desc")}')

    def source(self, lab, command):
        if self.stream:
            vm = lab.vmm(*self.arguments(None), '-incoming', 'defer', command=command)
            self.set_caps(vm, ['events'])
            vm.cmd('migrate-incoming', uri=f'exec:cat {self.stream}')
            self.over(vm)
            return vm, None
        if self.rewriting:
            qtest = ferry.QTest(lab.work, f'qtest{time.monotonic_ns()}')
            return lab.vmm(*self.arguments(self.memory), *qtest.args, command=command), qtest
        return lab.vmm(*self.arguments(self.memory), command=command), None

    def destination(self, lab, command):
        if self.way in ('exec', 'file'):
            return None
        path = self.target if self.shared else None
        args = ['-accel', 'qtest'] if self.rewriting else []
        return lab.vmm(*self.arguments(path), *args, '-incoming', 'defer', command=command)

    def uri(self, lab):
        target = lab.work / 'migrate.out'
        target.unlink(missing_ok=True)
        return {'unix': f'unix:{target}', 'tcp': 'tcp:127.0.0.1:0', 'exec': f'exec:cat > {target}', 'file': f'file:{target}'}[self.way]

    def check(self, lab, destination):
        if self.shared and not self.rewriting:
            ferry.compare(self.memory, self.target, 'raw', 'raw')
        elif not self.shared:
            part = lab.work / 'part.ram'
            destination.cmd('pmemsave', val=0, size=COMPARED, filename=str(part))
            with open(part, 'rb') as got, open(self.memory, 'rb') as want:
                assert got.read() == want.read(COMPARED), 'memory differs at the destination'

    def renew(self, lab):
        """Nothing is left of a run before: a run that reads untouched memory allocates it for the runs that follow."""
        for path in (self.target, lab.work / 'migrate.out'):
            path.unlink(missing_ok=True)
        for size in (self.data, self.mib * MIB):
            os.truncate(self.memory, size)
        reserve.take(self.allocated())

    def run(self, lab, command):
        from cases import cpu_ns
        pair = None
        if self.pair:
            self.renew(lab)
            reserve.give()
            pair = plain_pair_s(self.memory, lab.work / 'pair.ram', self.data)
        self.renew(lab)
        source, qtest = self.source(lab, command)
        sides = [source]
        writer = None
        try:
            destination = self.destination(lab, command)
            sides += [destination] if destination else []
            for vm in sides:
                self.set_caps(vm, self.caps)
                vm.cmd('migrate-set-parameters', {'max-bandwidth': 1 << 40, 'downtime-limit': 300, **self.params})
            uri = self.uri(lab)
            if destination:
                destination.cmd('migrate-incoming', uri=uri)
            if self.way == 'tcp':
                address = destination.cmd('query-migrate')['socket-address'][0]
                uri = f'tcp:{address["host"]}:{address["port"]}'
            if qtest:
                writer = Rewriter(qtest)
                writer.start()
            reserve.give()
            before, start = sum(cpu_ns(vm.pid) for vm in sides), time.monotonic()
            source.cmd('migrate', uri=uri)
            for vm in sides:
                self.over(vm)
            took, used = time.monotonic() - start, sum(cpu_ns(vm.pid) for vm in sides) - before
            if writer:
                writer.ending.set()
                writer.join()
            info = source.cmd('query-migrate')
            result = {'total_s': took, 'cpu_s': used / 1e9, 'downtime_ms': info['downtime'], 'held_mib': self.held_mib(sides)}
            if pair:    # a guest that is rewritten is sent more than once
                result['pairs'] = took / pair * min(1, self.data / info['ram']['transferred'])
            if destination:
                self.check(lab, destination)
        finally:
            if writer:
                writer.ending.set()
            for vm in sides:
                vm.kill()
                vm.close()
            if qtest:
                qtest.close()
            self.renew(lab)
        return result


class Restore(Migrate):
    """A guest comes back from a file that Ferry has written, until `completed`."""

    def __init__(self, name, title, how, caps=(), params=None):
        super().__init__(name, title, None, cpu_goal=None, way='file', caps=caps, params=params)
        self.how = how

    def limits(self):
        return {'held_mib': self.data / MIB + SLACK_MIB}

    def goals(self):
        return {'total_s': None, 'cpu_s': None, 'held_mib': None}

    def prepare(self, lab, options):
        super().prepare(lab, options)
        self.saved = lab.work / 'saved'
        reserve.give()
        self.save(lab, options, [c for c in self.caps if c != 'multifd'], f'file:{self.saved}')

    def run(self, lab, command):
        from cases import cpu_ns
        self.renew(lab)
        vm = lab.vmm(*self.arguments(self.target), '-incoming', 'defer', command=command)
        try:
            self.set_caps(vm, self.caps)
            if self.params:
                vm.cmd('migrate-set-parameters', self.params)
            reserve.give()
            before, start = cpu_ns(vm.pid), time.monotonic()
            vm.cmd('migrate-incoming', uri=f'{self.how}{self.saved}')
            self.over(vm)
            took, used = time.monotonic() - start, cpu_ns(vm.pid) - before
            held = self.target.stat().st_blocks * 512 / MIB + vm.memory_kib('RssAnon') / 1024
            self.check(lab, vm)
        finally:
            vm.kill()
            vm.close()
            self.renew(lab)
        return {'total_s': took, 'cpu_s': used / 1e9, 'held_mib': held}


MULTIFD = {'caps': ['multifd'], 'params': {'multifd-channels': 2}}
MIGRATE_CASES = [
    Migrate('mig-unix', 'migrate 2 GiB, 1 GiB data, unix', 0.6, pair=True),
    Migrate('mig-multifd', 'migrate, multifd, 2 channels', 0.7, **MULTIFD),
    Migrate('mig-tcp', 'migrate, one channel, tcp', 0.6, way='tcp'),
    Migrate('mig-tcp-multifd', 'migrate, multifd over tcp', 0.7, way='tcp', **MULTIFD),
    Migrate('mig-exec', 'migrate to exec:cat > file', 0.6, way='exec'),
    Migrate('mig-file', 'migrate to file:', 0.6, way='file'),
    Migrate('mig-mapped', 'migrate to file:, mapped-ram', 0.6, way='file', caps=['mapped-ram']),
    Migrate('mig-mapped-multifd', 'the same, 2 threads', 0.6, way='file', caps=['mapped-ram', *MULTIFD['caps']], params=MULTIFD['params']),
    Restore('mig-restore', 'restore by exec:cat file', 'exec:cat '),
    Restore('mig-restore-mapped', 'restore from file:, mapped-ram', 'file:', caps=['mapped-ram']),
    Restore('mig-restore-multifd', 'the same, 2 threads', 'file:', caps=['mapped-ram', *MULTIFD['caps']], params=MULTIFD['params']),
    Migrate('mig-8g', 'migrate 8 GiB, 1 GiB touched', 0.15, mib=8192),
    Migrate('mig-8g-ram', 'the same, private memory', 0.7, mib=8192, shared=False),
    Migrate('mig-steady', 'migrate under steady rewriting', None, cpu_goal=None, rewriting=True, pair=True),
]
