# SPDX-License-Identifier: GPL-2.0-or-later
"""One disk with a queue in each of several iothreads: what users do to it while all queues are busy.

The device (tests/devices/test-disk.c) writes and reads by itself, compares what it reads with what it wrote, and
knows what the disk should hold.
"""
import hashlib
import time
from pathlib import Path

import pytest

import ferry

TESTER = str(Path(ferry.binary()[-1]).resolve().parent / 'tests' / 'devices' / 'qemu-system-test')
THREADS = ('io0', 'io1', 'io2')
BASE = 0x320
LOAD_BYTES = 4 * 4 * 16384
SIZE = 4 * ferry.MIB
RUNS, DIRECT = 1, 2
LIMIT_S = 60


class Disk:
    """The device's registers."""

    def __init__(self, vm, qtest):
        self.vm = vm
        self.qtest = qtest

    def register(self, offset, access='inl'):
        return int(self.qtest.cmd(access, BASE + offset), 0)

    def until(self, condition):
        guard = ferry.Guard(LIMIT_S)
        while not condition():
            assert guard.left() > 0
            time.sleep(0.005)

    def start(self):
        self.qtest.cmd('outb', BASE, 1)

    def is_direct(self):
        return bool(self.register(1, 'inb') & DIRECT)

    def await_direct(self):
        self.until(self.is_direct)

    def progress(self, requests=50):
        """Until every queue has ended some more requests."""
        start = self.register(4)
        self.until(lambda: self.register(4) - start >= requests)
        assert self.register(8) == 0

    def stop(self):
        self.qtest.cmd('outb', BASE, 0)
        self.until(lambda: not self.register(1, 'inb') & RUNS)
        assert self.register(8) == 0

    def finish(self, path, fmt='raw'):
        """Ends the process; the image has the bytes that the device has written."""
        self.stop()
        expected = self.register(12)
        self.vm.quit()
        data = Path(path).read_bytes() if fmt == 'raw' else ferry.read_raw(path, fmt)
        assert hashlib.md5(data[:LOAD_BYTES]).hexdigest()[-8:] == f'{expected:08x}'
        assert not any(data[LOAD_BYTES:])


@pytest.fixture
def disk(vmm, qtest, work, need):
    need.that(Path(TESTER).exists(), f'{TESTER} is not built')
    ferry.make_image(work / 'disk.raw', SIZE)
    iothreads = [word for name in THREADS for word in ('-object', f'iothread,id={name}')]
    vm = vmm('-display', 'none', '-nodefaults', '-machine', 'ferry-test', *qtest.args, *iothreads,
             '-blockdev', f'file,node-name=file,filename={work}/disk.raw,discard=unmap',
             '-blockdev', 'raw,node-name=disk,file=file',
             '-device', f'test-disk,id=d,drive=disk,iothreads={":".join(THREADS)}',
             command=[TESTER], defaults=False)
    one = Disk(vm, qtest)
    one.start()
    return one


def test_all_queues_write_at_once(disk, work):
    assert disk.is_direct()
    disk.progress(1000)
    assert disk.is_direct()
    disk.finish(work / 'disk.raw')


def test_mirror_copies_what_all_queues_write(disk, work):
    vm = disk.vm
    for number in range(3):
        ferry.make_image(work / f'copy{number}.raw', SIZE)
        vm.add_file(work / f'copy{number}.raw', 'raw', f'copy{number}')
        vm.cmd('blockdev-mirror', job_id='j', device='disk' if number == 0 else f'copy{number - 1}',
               target=f'copy{number}', sync='full', copy_mode='background' if number % 2 else 'write-blocking')
        assert not disk.is_direct()
        disk.progress()
        vm.wait('BLOCK_JOB_READY')
        disk.progress()
        vm.cmd('job-complete', id='j')
        vm.wait('JOB_STATUS_CHANGE', where=lambda data: data['id'] == 'j' and data['status'] == 'null')
        disk.await_direct()
        disk.progress()
    disk.finish(work / 'copy2.raw')


def test_cancelled_mirror_gives_the_queues_their_threads_back(disk, work):
    vm = disk.vm
    ferry.make_image(work / 'copy.raw', SIZE)
    vm.add_file(work / 'copy.raw', 'raw', 'copy')
    for _ in range(5):
        vm.cmd('blockdev-mirror', job_id='j', device='disk', target='copy', sync='full')
        vm.cmd('job-cancel', id='j')
        vm.wait('JOB_STATUS_CHANGE', where=lambda data: data['id'] == 'j' and data['status'] == 'null')
        disk.await_direct()
        disk.progress()
    disk.finish(work / 'disk.raw')


def test_snapshot_takes_what_the_queues_write_from_then_on(disk, work):
    vm = disk.vm
    disk.progress()
    vm.cmd('blockdev-snapshot-sync', node_name='disk', snapshot_file=str(work / 'top.qcow2'),
           snapshot_node_name='top', format='qcow2')
    assert not disk.is_direct()     # qcow2 has one thread
    disk.progress()
    disk.finish(work / 'top.qcow2', 'qcow2')


def test_bitmap_reopen_limits_and_size_change_under_load(disk, work):
    vm = disk.vm
    for number in range(3):
        vm.cmd('block-dirty-bitmap-add', node='disk', name='b')
        assert not disk.is_direct()
        disk.progress()
        vm.cmd('block-dirty-bitmap-remove', node='disk', name='b')
        disk.await_direct()
        vm.cmd('blockdev-reopen', options=[{'driver': 'file', 'node-name': 'file', 'filename': str(work / 'disk.raw'),
                                            'discard': 'unmap', 'cache': {'direct': False, 'no-flush': bool(number % 2)}}])
        disk.progress()
        vm.cmd('block_resize', node_name='disk', size=SIZE + (number + 1) * 65536)
        disk.progress()
        vm.cmd('query-blockstats')
        vm.cmd('query-named-block-nodes')
        disk.await_direct()
    disk.finish(work / 'disk.raw')
    assert (work / 'disk.raw').stat().st_size == SIZE + 3 * 65536


def test_guest_stops_goes_on_and_is_reset_under_load(disk, work):
    vm = disk.vm
    for _ in range(3):
        disk.progress()
        vm.cmd('stop')
        disk.until(lambda: not disk.register(1, 'inb') & RUNS)
        vm.cmd('cont')
        disk.progress()
        vm.cmd('system_reset')
        vm.wait('RESET')
        disk.until(lambda: not disk.register(1, 'inb') & RUNS)
        disk.start()
    disk.finish(work / 'disk.raw')


def test_other_users_share_the_disk_but_do_not_take_it_away(disk, work):
    vm = disk.vm
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(work / 'nbd')}})
    with pytest.raises(ferry.QMPError, match="keeps it in iothread 'io0'"):
        vm.cmd('block-export-add', type='nbd', id='e', node_name='disk', name='disk', iothread='io1', fixed_iothread=True)
    vm.cmd('block-export-add', type='nbd', id='e', node_name='disk', name='disk', iothread='io1')
    client = ferry.nbd_connect(f'nbd+unix:///disk?socket={work}/nbd')
    for name in THREADS:
        with pytest.raises(ferry.QMPError, match='in use'):
            vm.cmd('object-del', id=name)
    disk.progress()
    assert disk.is_direct()
    assert len(client.pread(LOAD_BYTES, 0)) == LOAD_BYTES
    client.shutdown()
    vm.cmd('block-export-del', id='e', mode='hard')
    vm.wait('BLOCK_EXPORT_DELETED', id='e')
    disk.finish(work / 'disk.raw')


def test_quit_ends_under_load(disk):
    disk.progress()
    disk.vm.quit()
