# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's second half: move a guest's memory while the guest rewrites it, and compare both sides.

No guest code runs yet: a thread plays the guest through qtest. It writes until the source says that the guest
is stopped, and every write it was told of must be found at the destination. A binary without qtest (Debian's QEMU)
holds a guest that does nothing.
"""
import os
import random
import subprocess
import threading
import time

import ferry
from ferry.images import MIB

GIB = 1 << 30
HOT = 128 * MIB             # the part of memory that the guest rewrites
STEP = 256 << 10            # bytes of one write
WRITE_RATE = 100 * MIB      # bytes a second
BANDWIDTH = 400 * MIB       # slow enough to watch
DOWNTIME_LIMIT_MS = 25
PATIENCE_PASSES = 12        # after so many the guest may be stopped for longer
PATIENT_LIMIT_MS = 300
TICK_S = 0.02
LIMIT_S = 120               # hang guard of one step


def guest_size(work):
    """2 GiB, or less where two copies of it would not fit."""
    with open('/proc/meminfo', encoding='ascii') as file:
        fields = dict(line.split(':') for line in file)
    free = int(fields['MemAvailable'].split()[0]) << 10
    room = os.statvfs(work)
    free = min(free, room.f_bavail * room.f_frsize)
    return 2 * GIB if free >= 6 * GIB else 512 * MIB


def fill(path, total, seed):
    """Half of the memory holds data that no two pages share, the rest was never touched."""
    block = random.Random(seed).randbytes(8 * MIB)
    with open(path, 'wb') as file:
        for i in range(total // MIB // 2):
            file.seek(2 * i * MIB)
            start = i * 4097 % (7 * MIB)
            file.write(block[start:start + MIB - 8] + i.to_bytes(8, 'little'))
        file.truncate(total)


def has_qtest(command):
    told = subprocess.run([*command, '-accel', 'help'], capture_output=True, text=True, check=False).stdout
    return 'qtest' in told.split()


class Guest:
    """A process that holds a guest: its memory is a file, so that other programs can read it."""

    def __init__(self, lab, name, command, total, incoming=None):
        self.name = name
        self.memory = lab.work / f'{name}.ram'
        with open(self.memory, 'ab') as file:
            file.truncate(total)
        command = command or ferry.binary()
        self.qtest = ferry.QTest(lab.work, name) if has_qtest(command) else None
        args = ['-machine', 'none,memory-backend=ram', '-m', f'{total // MIB}M', '-nodefaults', '-display', 'none',
                '-object', f'memory-backend-file,id=ram,size={total},mem-path={self.memory},share=on',
                *(self.qtest.args if self.qtest else [])]
        if incoming:
            args += ['-incoming', 'defer']
        self.vm = lab.vmm(*args, command=command, defaults=False)
        if self.qtest:
            self.qtest.accept()
        caps = ['events', 'return-path'] + ([] if incoming else ['pause-before-switchover'])
        self.capabilities(caps)
        if incoming:
            self.vm.cmd('migrate-incoming', uri=incoming)

    def capabilities(self, names):
        self.vm.cmd('migrate-set-capabilities', capabilities=[{'capability': n, 'state': True} for n in names])

    def end(self):
        if self.qtest:
            self.qtest.close()
        self.vm.quit()
        self.memory.unlink()


class Rewriter(threading.Thread):
    """Plays the guest's program: overwrites random places of its hot memory, and remembers what it wrote."""

    def __init__(self, guest, total, record, seed):
        super().__init__(daemon=True)
        self.guest, self.record, self.error = guest, record, None
        self.places = min(HOT, total // 2) // STEP
        self.random = random.Random(seed)
        self.count = 0
        self.ending = threading.Event()

    def run(self):
        start, number = time.monotonic(), len(self.record) << 32
        try:
            while not self.ending.is_set():
                addr = self.random.randrange(self.places) * STEP
                number += 1
                self.guest.qtest.memset(addr, STEP, number % 255 + 1)
                self.guest.qtest.cmd('writeq', addr, number)
                self.record[addr] = number
                self.count += 1
                due = start + self.count * STEP / WRITE_RATE
                self.ending.wait(max(0, due - time.monotonic()))      # paces the writes
        except Exception as error:      # raised again by stop()
            self.error = error

    def stop(self):
        self.ending.set()
        self.join()
        if self.error:
            raise self.error


def figures(info):
    """What query-migrate says, in words."""
    ram = info['ram']
    return (f'{ram["remaining"] / MIB:6.0f} MiB left, dirtied {ram["dirty-pages-rate"] * ram["page-size"] / MIB:4.0f} MiB/s, '
            f'sent {ram["mbps"] / 8 * 1e6 / MIB:4.0f} MiB/s, downtime would be {info["expected-downtime"]:4.0f} ms')


def watch(vm, screen):
    """A line a pass until the guest is stopped for the switch-over."""
    shown = 0
    while not vm.seen('MIGRATION', status='pre-switchover'):
        failed = vm.seen('MIGRATION', status='failed') or vm.seen('MIGRATION', status='cancelled')
        info = vm.cmd('query-migrate')
        if failed or info['status'] in ('failed', 'cancelled'):
            raise AssertionError(f'the migration failed: {info.get("error-desc")}')
        if info['status'] == 'active':
            current = info['ram']['dirty-sync-count']
            if current != shown:
                first = f'{info["ram"]["remaining"] / MIB:6.0f} MiB left: everything'
                screen.line(f'  pass {current:2}: {first if current == 1 else figures(info)}')
                if shown < PATIENCE_PASSES <= current:
                    screen.step(f'this machine is too busy for a downtime of {DOWNTIME_LIMIT_MS} ms: {PATIENT_LIMIT_MS} ms now')
                    vm.cmd('migrate-set-parameters', downtime_limit=PATIENT_LIMIT_MS)
                shown = current
            screen.draw(f'           {figures(info)}')
        time.sleep(TICK_S)      # how often the line is drawn


def check(source, destination, record):
    """Compares all memory, and looks for every last write of the guest."""
    ferry.compare(source.memory, destination.memory, 'raw', 'raw')
    with open(destination.memory, 'rb') as file:
        for addr, number in record.items():
            found = int.from_bytes(os.pread(file.fileno(), 8, addr), 'little')
            if found != number:
                raise AssertionError(f'the guest wrote {number:#x} at {addr:#x}, the destination has {found:#x}')
    addr, number = next(iter(record.items()), (0, None))
    if number and destination.qtest and destination.qtest.value('readq', addr) != number:
        raise AssertionError(f'the destination\'s guest does not see its memory at {addr:#x}')


def check_one_runs(source, destination):
    """The guest runs at the destination alone. Stock QEMU leaves finish-migrate a moment after it says `completed`."""
    guard = ferry.guard.Guard(LIMIT_S)
    while source.vm.cmd('query-status')['status'] == 'finish-migrate':
        guard.left()
    status = [side.vm.cmd('query-status')['status'] for side in (source, destination)]
    if status != ['postmigrate', 'running']:
        raise AssertionError(f'the guest should run at the destination alone: {status}')


def move(lab, screen, source, name, command, total, record, seed):
    """Moves the guest to a new process; returns that."""
    uri = f'unix:{lab.work}/{name}.mig'
    destination = Guest(lab, name, command, total, incoming=uri)
    source.vm.cmd('migrate-set-parameters', max_bandwidth=BANDWIDTH, downtime_limit=DOWNTIME_LIMIT_MS)
    doing = f'rewrites {WRITE_RATE // MIB} MiB/s' if source.qtest else 'rests (no qtest there)'
    screen.step(f'{source.name} -> {name}: migrate {total // MIB} MiB over a unix socket while the guest {doing}')
    writer = Rewriter(source, total, record, seed) if source.qtest else None
    if writer:
        writer.start()
    start = time.monotonic()
    try:
        source.vm.cmd('migrate', uri=uri)
        watch(source.vm, screen)
    finally:
        if writer:
            writer.stop()
    source.vm.cmd('migrate-continue', state='pre-switchover')
    source.vm.wait('MIGRATION', LIMIT_S, status='completed')
    destination.vm.wait('MIGRATION', LIMIT_S, status='completed')
    took = time.monotonic() - start
    check_one_runs(source, destination)
    info = source.vm.cmd('query-migrate')
    screen.step(f'moved after {took:.1f} s and {info["ram"]["dirty-sync-count"]} looks at the dirty log, downtime '
                f'{info["downtime"]} ms, {info["ram"]["transferred"] / MIB:.0f} MiB sent; '
                f'{writer.count if writer else 0} writes meanwhile')
    check(source, destination, record)
    writes = ', with every write of the guest' if record else ''
    screen.step(f'IDENTICAL: all memory is the same on both sides{writes}')
    source.end()
    return destination


def play(lab, screen, hosts, seed):
    """Moves one guest along these hosts, (name, command) each."""
    total = guest_size(lab.work)
    if total < 2 * GIB:
        screen.step(f'memory is short here: a guest of {total // MIB} MiB instead of 2 GiB')
    screen.step(f'a guest of {total // MIB} MiB, half of it data (seed {seed})')
    (name, command), *others = hosts
    fill(lab.work / f'{name}.ram', total, seed)
    guest, record = Guest(lab, name, command, total), {}
    for number, (name, command) in enumerate(others):
        if number:
            guest.capabilities(['pause-before-switchover'])
        guest = move(lab, screen, guest, name, command, total, record, seed + number)
    guest.end()
