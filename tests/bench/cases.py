# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks do with one binary: each case prepares images once and then measures one run at a time."""
import json
import os
import random
import shlex
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'lib'))

from ferry.images import MIB, qemu_img, run_tool        # noqa: E402  the path is set just above
from ferry.stock import distribution                    # noqa: E402
from migrate_cases import warm                          # noqa: E402

GIB = 1 << 30
LATENCY_RUN_S = 3
LATENCY_SPEED = 200 * MIB   # keeps a background mirror of 1 GiB going for as long as the clients are measured


class Unsupported(Exception):
    """This machine cannot run the case."""


def cpu_ns(pid):
    """CPU time of a process in ns: the clock id clock_getcpuclockid(3) gives for its pid."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def write_data(path, data, size=None, spread=False):
    """A raw file with `data` bytes that do not compress, at its start or spread over it, and holes."""
    block = random.Random(1).randbytes(4 * MIB)
    size = size or data
    step = size // (data // MIB) if spread else MIB
    with open(path, 'wb') as file:
        for i in range(data // MIB):
            file.seek(i * step // MIB * MIB)
            start = i * 4096 % (3 * MIB)
            file.write(block[start:start + MIB])
        file.truncate(size)


class Mirror:
    """blockdev-mirror until READY."""

    def __init__(self, name, title, goal, fmt='raw', size=None, data=None, disk=False, direct=False, nbd=False,
                 cpu_goal=None):
        self.name, self.title, self.goal, self.fmt = name, title, goal, fmt
        self.size, self.data, self.disk, self.direct, self.nbd, self.cpu_goal = size, data, disk, direct, nbd, cpu_goal

    def goals(self):
        return {'ready_s': self.goal, 'cpu_s_per_gib': self.cpu_goal, 'peak_mib': None}

    def prepare(self, lab, options):
        self.folder = lab.disk_folder() if self.disk else lab.work
        self.bytes = self.data or options.size * MIB
        self.virtual = self.size or self.bytes
        self.source = self.folder / f'source.{self.fmt}'
        raw = self.folder / 'source.raw'
        write_data(raw, self.bytes, self.virtual, spread=self.size is not None)
        if self.fmt != 'raw':
            qemu_img('convert', '-f', 'raw', '-O', self.fmt, raw, self.source)
            raw.unlink()
        if self.direct:
            try:
                os.close(os.open(self.source, os.O_RDONLY | os.O_DIRECT))
            except OSError as error:
                raise Unsupported(f'no O_DIRECT in {self.folder}: {error.strerror}') from None
        self.cache = {'direct': self.direct, 'no-flush': False}

    def node(self, name, path):
        return {'driver': self.fmt, 'node-name': name, 'cache': self.cache, 'discard': 'unmap',
                'file': {'driver': 'file', 'filename': str(path), 'cache': self.cache}}

    def run(self, lab, command):
        target = self.folder / 'target'
        target.unlink(missing_ok=True)
        qemu_img('create', '-q', '-f', self.fmt, target, self.virtual)
        if self.disk:
            os.sync()
        server = lab.qemu_nbd(target) if self.nbd else None
        vm = lab.vmm(command=command)
        try:
            vm.cmd('blockdev-add', self.node('source', self.source))
            if server:
                vm.cmd('blockdev-add', server.node('target'))
            else:
                vm.cmd('blockdev-add', self.node('target', target))
            warm(2 * self.bytes)
            before, start = cpu_ns(vm.pid), time.monotonic()
            vm.cmd('blockdev-mirror', job_id='j', device='source', target='target', sync='full')
            vm.wait('BLOCK_JOB_READY', 300)
            took, used = time.monotonic() - start, cpu_ns(vm.pid) - before
            peak = vm.memory_kib('VmHWM') / 1024
            vm.cmd('block-job-cancel', device='j', force=True)
            vm.wait('BLOCK_JOB_CANCELLED')
        finally:
            end(vm)
            if server:
                server.close()
        return {'ready_s': took, 'cpu_s_per_gib': used / 1e9 / (self.bytes / GIB), 'peak_mib': peak}


class Startup:
    """exec to the answer to qmp_capabilities, and memory when idle."""

    name, title = 'startup', 'start-up'

    def goals(self):
        return {'startup_ms': 0.7, 'idle_mib': 0.4}

    def prepare(self, lab, options):
        pass

    def run(self, lab, command):
        vm = lab.vmm(command=command)
        try:
            return {'startup_ms': vm.startup_s * 1000, 'idle_mib': vm.memory_kib('VmRSS') / 1024}
        finally:
            end(vm)


class Latency:
    """p99 of 4 KiB random writes through the NBD export, alone and while a mirror runs."""

    name, title = 'latency', 'p99 of client writes'

    def goals(self):
        return {'alone_p99_us': None, 'background_p99_us': 0.7, 'write_blocking_p99_us': 0.7}

    def prepare(self, lab, options):
        if 'nbd' not in run_tool('fio', '--enghelp'):
            raise Unsupported('this fio has no nbd engine')
        self.source = lab.work / 'source.raw'
        write_data(self.source, GIB)

    def clients(self, uri):
        """p99 in µs of what fio's clients saw."""
        text = run_tool('fio', '--name=w', '--ioengine=nbd', f'--uri={uri}', '--rw=randwrite', '--bs=4k', '--iodepth=4',
                        '--size=1g', '--time_based', f'--runtime={LATENCY_RUN_S}', '--randseed=1', '--output-format=json')
        job = json.loads(text[text.index('{'):])['jobs'][0]
        return job['write']['clat_ns']['percentile']['99.000000'] / 1000

    def run(self, lab, command):
        result = {}
        for key, mode in (('alone', None), ('background', 'background'), ('write_blocking', 'write-blocking')):
            target = lab.work / 'target.raw'
            target.unlink(missing_ok=True)
            qemu_img('create', '-q', '-f', 'raw', target, GIB)
            vm = lab.vmm(command=command)
            try:
                vm.add_file(self.source, node_name='source')
                vm.add_file(target, node_name='target')
                uri = vm.export('source')
                if mode:
                    speed = LATENCY_SPEED if mode == 'background' else 0
                    vm.cmd('blockdev-mirror', job_id='j', device='source', target='target', sync='full', copy_mode=mode,
                           speed=speed)
                if mode == 'write-blocking':
                    vm.wait('BLOCK_JOB_READY')
                result[f'{key}_p99_us'] = self.clients(uri)
            finally:
                end(vm)
        return result


def end(vm):
    """Ends a run; how it ends is not measured."""
    vm.kill()
    vm.close()


CASES = [
    Startup(),
    Mirror('raw', 'raw to raw, tmpfs', 0.7, cpu_goal=0.7),
    Mirror('disk', 'raw to raw, disk, page cache', 0.55, disk=True, cpu_goal=0.7),
    Mirror('qcow2', 'qcow2 to qcow2', 0.7, fmt='qcow2', cpu_goal=0.7),
    Mirror('nbd', 'raw to NBD over unix', 0.6, nbd=True, cpu_goal=0.7),
    Mirror('sparse', '1 TiB sparse, 1 GiB of data', 0.4, size=1 << 40, data=GIB),
    Mirror('huge', '4 TiB sparse, 64 MiB of data', 0.15, size=4 << 40, data=64 * MIB),
    Mirror('direct', 'raw to raw, O_DIRECT', 1.0, disk=True, direct=True),
    Latency(),
]


def peers(own):
    """The binaries to compare: ours, Debian's, and those in FERRY_PEERS; name to command."""
    found = {'ferry': shlex.split(own)}
    if distribution():
        found['qemu'] = distribution()
    folder = os.environ.get('FERRY_PEERS')
    if folder:
        for path in sorted(Path(folder).glob('qemu-system-x86_64-*')):
            found[path.name.removeprefix('qemu-system-x86_64-')] = [str(path)]
    return found
