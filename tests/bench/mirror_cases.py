# SPDX-License-Identifier: GPL-2.0-or-later
"""Mirrors that are hard: a source in small pieces, a disk that clients write to as fast as they can, a busy machine."""
import contextlib
import json
import os
import random
import subprocess
import sys
import time

from cases import GIB, MIB, Mirror, Unsupported, cpu_ns, end, write_data
from ferry.images import qemu_img, run_tool
from migrate_cases import warm

WRITTEN_MIB = 512       # of the disk that clients write to
READY_LIMIT_S = 60
PIECE = 4096


@contextlib.contextmanager
def busy_processors(busy):
    """One process a core that computes all the time, while the block runs."""
    loops = [subprocess.Popen([sys.executable, '-c', 'while True: pass'])
             for _ in range(len(os.sched_getaffinity(0)) if busy else 0)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


class Fragmented(Mirror):
    """1 GiB of alternating 4 KiB data and holes, raw or in a qcow2 image, to a raw file, a qcow2 image or stock qemu-nbd."""

    def __init__(self, name, title, target, **options):
        super().__init__(name, title, 0.7, cpu_goal=0.7, nbd=target == 'nbd', **options)
        self.target_fmt = 'raw' if target == 'nbd' else target

    def prepare(self, lab, options):
        self.folder = lab.disk_folder() if self.disk else lab.work
        self.bytes = self.virtual = options.size * MIB
        self.source = self.folder / f'source.{self.fmt}'
        self.cache = {'direct': False, 'no-flush': False}
        raw = self.folder / 'source.raw'
        block = random.Random(1).randbytes(MIB)
        with open(raw, 'wb') as file:
            for i in range(self.bytes // (2 * PIECE)):
                file.seek(i * 2 * PIECE)
                start = i * 512 % (MIB - PIECE)
                file.write(block[start:start + PIECE])
            file.truncate(self.bytes)
        if self.fmt != 'raw':
            qemu_img('convert', '-f', 'raw', '-O', self.fmt, raw, self.source)
            raw.unlink()

    def target_node(self, lab, path):
        qemu_img('create', '-q', '-f', self.target_fmt, path, self.virtual)
        if self.nbd:
            self.server = lab.qemu_nbd(path)
            return self.server.node('target')
        return {**self.node('target', path), 'driver': self.target_fmt}

    def run(self, lab, command):
        target = self.folder / 'target'
        target.unlink(missing_ok=True)
        self.server = None
        node = self.target_node(lab, target)
        vm = lab.vmm(command=command)
        try:
            vm.cmd('blockdev-add', self.node('source', self.source))
            vm.cmd('blockdev-add', node)
            warm(self.bytes)
            before, start = cpu_ns(vm.pid), time.monotonic()
            vm.cmd('blockdev-mirror', job_id='j', device='source', target='target', sync='full')
            vm.wait('BLOCK_JOB_READY', 300)
            took, used = time.monotonic() - start, cpu_ns(vm.pid) - before
        finally:
            end(vm)
            if self.server:
                self.server.close()
        return {'ready_s': took, 'cpu_s_per_gib': used / 1e9 / (self.bytes / GIB), 'peak_mib': 0}


class UnderWrites:
    """READY while fio writes 4 KiB at random through the NBD export, as fast as it can."""

    def __init__(self, name, title, target, depth, disk=False):
        self.name, self.title, self.target, self.depth, self.disk = name, title, target, depth, disk

    def goals(self):
        return {'ready_s': 0.8, 'background_p99_us': 1.0}

    def prepare(self, lab, options):
        if 'nbd' not in run_tool('fio', '--enghelp'):
            raise Unsupported('this fio has no nbd engine')
        self.folder = lab.disk_folder() if self.disk else lab.work
        self.source = self.folder / 'source.raw'
        write_data(self.source, WRITTEN_MIB * MIB)

    def target_node(self, lab):
        fmt = 'raw' if self.target == 'nbd' else self.target
        path = self.folder / 'target'
        path.unlink(missing_ok=True)
        qemu_img('create', '-q', '-f', fmt, path, WRITTEN_MIB * MIB)
        if self.target == 'nbd':
            self.server = lab.qemu_nbd(path)
            return self.server.node('target')
        return {'driver': fmt, 'node-name': 'target', 'file': {'driver': 'file', 'filename': str(path)}}

    def run(self, lab, command):
        self.server = None
        node = self.target_node(lab)
        vm = lab.vmm(command=command)
        fio = None
        try:
            vm.add_file(self.source, node_name='source')
            vm.cmd('blockdev-add', node)
            warm(2 * WRITTEN_MIB * MIB)
            fio = self.clients(vm.export('source'))
            time.sleep(1)
            start = time.monotonic()
            vm.cmd('blockdev-mirror', job_id='j', device='source', target='target', sync='full')
            vm.wait('BLOCK_JOB_READY', READY_LIMIT_S)
            took = time.monotonic() - start
            fio.terminate()
            text = fio.communicate()[0]
        finally:
            if fio and fio.poll() is None:
                fio.kill()
                fio.wait()
            end(vm)
            if self.server:
                self.server.close()
        job = json.loads(text[text.index('{'):text.rindex('}') + 1])['jobs'][0]['write']
        self.iops = job['iops']
        return {'ready_s': took, 'background_p99_us': job['clat_ns']['percentile']['99.000000'] / 1000}

    def clients(self, uri):
        # A job that fio forks begins a session of its own. The kernel schedules sessions as groups (autogroup), so the
        # figure would tell how this group gets on with those of other work on the machine.
        return subprocess.Popen(
            ['fio', '--thread', '--name=w', '--ioengine=nbd', f'--uri={uri}', '--rw=randwrite', '--bs=4k', f'--iodepth={self.depth}',
             f'--size={WRITTEN_MIB}m', '--time_based', f'--runtime={READY_LIMIT_S + 10}', '--ramp_time=1',
             '--randseed=1', '--output-format=json'], stdout=subprocess.PIPE, text=True)


class Busy:
    """Another case, with every core kept busy by a process that only computes."""

    def __init__(self, case):
        self.case = case
        self.name, self.title = f'{case.name}-busy', f'{case.title}, cores busy'
        self.prepare = case.prepare

    def goals(self):
        return {'ready_s': 0.8}

    def run(self, lab, command):
        with busy_processors(True):
            return {'ready_s': self.case.run(lab, command)['ready_s']}


COPYING = ('raw', 'disk', 'qcow2', 'nbd', 'sparse')

HARD_CASES = [
    Fragmented('small-raw', 'pieces of 4 KiB, tmpfs, to raw', 'raw'),
    Fragmented('small-qcow2', 'pieces of 4 KiB, tmpfs, to qcow2', 'qcow2'),
    Fragmented('small-nbd', 'pieces of 4 KiB, tmpfs, to NBD', 'nbd'),
    Fragmented('small-disk-raw', 'pieces of 4 KiB, ext4, to raw', 'raw', disk=True),
    Fragmented('small-disk-qcow2', 'pieces of 4 KiB, ext4, to qcow2', 'qcow2', disk=True),
    Fragmented('small-disk-nbd', 'pieces of 4 KiB, ext4, to NBD', 'nbd', disk=True),
    Fragmented('small-image-raw', 'pieces of 4 KiB, qcow2, to raw', 'raw', fmt='qcow2'),
    Fragmented('small-image-qcow2', 'pieces of 4 KiB, qcow2, to qcow2', 'qcow2', fmt='qcow2'),
    Fragmented('small-image-nbd', 'pieces of 4 KiB, qcow2, to NBD', 'nbd', fmt='qcow2'),
    *(UnderWrites(f'written-{where}{target}-{depth}', f'{target}, written at depth {depth}{on}', target, depth, disk)
      for where, on, disk in (('', '', False), ('disk-', ', disk', True))
      for target in ('raw', 'qcow2', 'nbd') for depth in (1, 16)),
]
