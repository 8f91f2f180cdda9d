# SPDX-License-Identifier: GPL-2.0-or-later
"""One disk with a queue in each of several iothreads: what users do to it while all queues are busy.

The device (tests/devices/test-disk.c) writes and reads by itself, compares what it reads with what it wrote, and
knows what the disk should hold.
"""
import hashlib
import json
import time
from pathlib import Path

import pytest

import ferry
from ferry import migration as m

TESTER = str(Path(ferry.binary()[-1]).resolve().parent / 'tests' / 'devices' / 'qemu-system-test')
THREADS = ('io0', 'io1', 'io2')
TWO = THREADS[:2]
BASE = 0x320
SLOT, EJECT = 7, 0xae08
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

    def contents(self):
        """What the disk should hold, while no load runs."""
        assert not self.register(1, 'inb') & RUNS
        return self.register(12)

    def finish(self, path, fmt='raw'):
        """Ends the process; the image has the bytes that the device has written."""
        self.stop()
        expected = self.contents()
        self.vm.quit()
        holds(path, expected, fmt)

    def eject(self):
        """What a guest does that lets the device go."""
        self.qtest.cmd('outl', EJECT, 1 << SLOT)


def holds(path, expected, fmt='raw'):
    data = Path(path).read_bytes() if fmt == 'raw' else ferry.read_raw(path, fmt)
    assert hashlib.md5(data[:LOAD_BYTES]).hexdigest()[-8:] == f'{expected:08x}'
    assert not any(data[LOAD_BYTES:])


@pytest.fixture
def machine(vmm, work, need):
    """Starts a guest with a disk over an image: machine(path, fmt, threads, *args, name=)."""
    need.that(Path(TESTER).exists(), f'{TESTER} is not built')
    guests = []

    def start(path, fmt='raw', threads=THREADS, *args, name='vmm'):
        guests.append(ferry.QTest(work, f'guest{len(guests)}'))
        iothreads = [word for thread in threads for word in ('-object', f'iothread,id={thread}')]
        vm = vmm('-display', 'none', '-nodefaults', '-machine', 'ferry-test', '-m', '16M', *guests[-1].args, *iothreads,
                 '-blockdev', f'file,node-name=file,filename={path},discard=unmap',
                 '-blockdev', f'{fmt},node-name=disk,file=file',
                 '-device', f'test-disk,id=d,addr={SLOT},drive=disk,iothreads={":".join(threads)}',
                 *args, command=[TESTER], defaults=False, name=name)
        return Disk(vm, guests[-1])
    yield start
    for guest in guests:
        guest.close()


@pytest.fixture
def disk(machine, work):
    ferry.make_image(work / 'disk.raw', SIZE)
    one = machine(work / 'disk.raw')
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


# The guest moves

def migrates(disk, there, path):
    """Both wait, if they do, with all that was acknowledged on the disk; returns when the guest is there."""
    disk.vm.cmd('migrate', uri=f'unix:{path}')
    assert m.wait_over(disk.vm)['status'] == 'completed'
    assert m.wait_over(there.vm)['status'] == 'completed'
    assert disk.register(8) == 0 and not disk.register(1, 'inb') & RUNS


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_load_moves_with_the_guest(machine, work, fmt):
    """From process to process over one image; every second one waits at first, with all that was acknowledged."""
    image = work / f'disk.{fmt}'
    ferry.make_image(image, SIZE, fmt)
    disk = machine(image, fmt, TWO)
    disk.start()
    for hop in range(3):
        disk.progress()
        waits = hop % 2 == 0
        there = machine(image, fmt, TWO, '-incoming', f'unix:{work}/in{hop}', *(['-S'] if waits else []), name='destination')
        migrates(disk, there, work / f'in{hop}')
        if waits:
            assert there.contents() == disk.contents()
            if fmt == 'raw':
                holds(image, there.contents())
            there.vm.cmd('cont')
        there.progress()
        if fmt == 'raw':
            there.await_direct()
            there.progress()
        disk.vm.quit()
        disk = there
    disk.finish(image, fmt)


def test_load_goes_on_when_a_migration_is_cancelled(machine, work):
    """The guest has been stopped, and its disk given away, when the user thinks better of it."""
    ferry.make_image(work / 'disk.raw', SIZE)
    disk = machine(work / 'disk.raw', 'raw', TWO)
    disk.start()
    m.set_caps(disk.vm, 'pause-before-switchover')
    for hop in range(3):
        disk.progress()
        there = machine(work / 'disk.raw', 'raw', TWO, '-incoming', 'defer', name='destination')
        there.vm.cmd('migrate-incoming', {'uri': f'unix:{work}/in{hop}', 'exit-on-error': False})
        disk.vm.cmd('migrate', uri=f'unix:{work}/in{hop}')
        m.wait_status(disk.vm, 'pre-switchover')
        holds(work / 'disk.raw', disk.contents())
        disk.vm.cmd('migrate_cancel')
        m.wait_status(disk.vm, 'cancelled')
        disk.progress()
        there.vm.quit()
    disk.await_direct()
    disk.finish(work / 'disk.raw')


def test_load_moves_together_with_its_disk(machine, work):
    """The disk is mirrored to the destination's own; it has what was acknowledged, and the load goes on upon it."""
    for name in ('here', 'there'):
        ferry.make_image(work / f'{name}.raw', SIZE)
    disk = machine(work / 'here.raw', 'raw', TWO)
    disk.start()
    there = machine(work / 'there.raw', 'raw', TWO, '-incoming', 'defer', '-S', name='destination')
    there.vm.export('disk', socket_path=None)
    there.vm.cmd('migrate-incoming', uri=f'unix:{work}/in')
    disk.vm.cmd('blockdev-add', {'driver': 'nbd', 'node-name': 'far', 'export': 'disk',
                                 'server': {'type': 'unix', 'path': f'{work}/{there.vm.name}.nbd'}})
    disk.vm.cmd('blockdev-mirror', job_id='copy', device='disk', target='far', sync='full')
    disk.progress()
    disk.vm.wait('BLOCK_JOB_READY')
    disk.progress()
    m.set_caps(disk.vm, 'pause-before-switchover')
    disk.vm.cmd('migrate', uri=f'unix:{work}/in')
    m.wait_status(disk.vm, 'pre-switchover')
    disk.vm.cmd('block-job-cancel', device='copy')
    disk.vm.wait('BLOCK_JOB_COMPLETED')
    disk.vm.cmd('blockdev-del', node_name='far')
    disk.vm.cmd('migrate-continue', state='pre-switchover')
    assert m.wait_over(disk.vm)['status'] == 'completed'
    assert m.wait_over(there.vm)['status'] == 'completed'
    assert there.contents() == disk.contents()
    holds(work / 'there.raw', there.contents())
    there.vm.cmd('block-export-del', id='export-disk')
    there.vm.wait('BLOCK_EXPORT_DELETED')
    there.vm.cmd('cont')
    there.await_direct()
    there.progress()
    disk.vm.quit()
    there.finish(work / 'there.raw')


# The device leaves

def is_free(vm):
    """Nothing of the disk is held: its nodes go, and the threads of its queues."""
    vm.cmd('blockdev-del', node_name='disk')
    vm.cmd('blockdev-del', node_name='file')
    for name in TWO:
        vm.cmd('object-del', id=name)
    assert vm.cmd('query-iothreads') == [] and vm.cmd('query-named-block-nodes') == []


def plug_again(disk, path, fmt):
    """With an empty disk, into the running guest."""
    vm = disk.vm
    ferry.make_image(path, SIZE, fmt)
    for name in TWO:
        vm.cmd('object-add', qom_type='iothread', id=name)
    vm.add('file', 'file', filename=str(path), discard='unmap')
    vm.add(fmt, 'disk', file='file')
    vm.cmd('device_add', driver='test-disk', id='d', addr=str(SLOT), drive='disk', iothreads=':'.join(TWO))
    disk.start()


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_disk_leaves_while_its_queues_run(machine, work, fmt):
    image = work / f'disk.{fmt}'
    ferry.make_image(image, SIZE, fmt)
    disk = machine(image, fmt, TWO)
    disk.start()
    for number in range(3):
        disk.progress()
        disk.vm.cmd('device_del', id='d')
        disk.progress()                 # the guest has not let it go yet
        disk.eject()
        assert disk.vm.wait('DEVICE_DELETED')['data']['device'] == 'd'
        is_free(disk.vm)
        image = work / f'disk{number}.{fmt}'
        plug_again(disk, image, fmt)
    disk.progress()
    disk.finish(image, fmt)


def test_disk_leaves_a_job_that_copies_it(machine, work):
    ferry.make_image(work / 'disk.raw', SIZE)
    ferry.make_image(work / 'copy.raw', SIZE)
    disk = machine(work / 'disk.raw', 'raw', TWO)
    disk.start()
    vm = disk.vm
    vm.add_file(work / 'copy.raw', 'raw', 'copy')
    vm.cmd('blockdev-mirror', job_id='j', device='disk', target='copy', sync='full', copy_mode='write-blocking')
    vm.wait('BLOCK_JOB_READY')
    disk.progress()
    vm.cmd('device_del', id='d')
    disk.eject()
    vm.wait('DEVICE_DELETED')
    vm.cmd('block-job-cancel', device='j')      # READY: both have the same
    vm.wait('BLOCK_JOB_COMPLETED')
    vm.cmd('blockdev-del', node_name='copy')
    vm.job_until('j', 'null')
    is_free(vm)
    vm.quit()
    assert any((work / 'copy.raw').read_bytes()[:LOAD_BYTES])
    ferry.compare(work / 'disk.raw', work / 'copy.raw')


def test_disk_that_leaves_while_its_guest_is_taken_is_free_afterwards(machine, work):
    ferry.make_image(work / 'disk.raw', SIZE)
    disk = machine(work / 'disk.raw', 'raw', TWO)
    disk.start()
    m.set_caps(disk.vm, 'pause-before-switchover')
    disk.progress()
    disk.vm.cmd('device_del', id='d')
    disk.vm.cmd('migrate', uri=f'file:{work}/stream')
    m.wait_status(disk.vm, 'pre-switchover')
    disk.eject()
    expected = disk.contents()
    holds(work / 'disk.raw', expected)
    disk.vm.cmd('migrate_cancel')
    disk.vm.wait('DEVICE_DELETED')
    is_free(disk.vm)


def test_quit_ends_while_a_disk_leaves(machine, work):
    ferry.make_image(work / 'disk.raw', SIZE)
    disk = machine(work / 'disk.raw', 'raw', TWO)
    disk.start()
    disk.progress()
    disk.vm.cmd('device_del', id='d')
    disk.eject()
    disk.vm.quit()


# The device that does not end is never freed: a leak to the sanitizer.
@pytest.mark.once
def test_quit_leaves_a_disk_in_its_threads_when_another_device_hangs(vmm, qtest, work, need):
    """The image has a timer in its iothread (of its caches), which stays like the disk."""
    need.that(Path(TESTER).exists(), f'{TESTER} is not built')
    ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    vm = vmm('-display', 'none', '-nodefaults', '-machine', 'ferry-test', *qtest.args, '-object', 'iothread,id=io0',
             '-blockdev', f'file,node-name=file,filename={work}/disk.qcow2', '-blockdev', 'qcow2,node-name=disk,file=file',
             '-device', 'test-disk,id=d,drive=disk,iothreads=io0', '-device', 'test-counter,id=hangs',
             command=[TESTER], defaults=False)
    disk = Disk(vm, qtest)
    disk.start()
    disk.progress()
    qtest.cmd('outb', 0x309, 1)
    vm.quit()
    assert 'hangs: 1 requests have not ended' in vm.stderr()


@pytest.mark.parametrize('attempt', range(4))      # requests have to end while the process does
def test_quit_under_load_closes_the_image(vmm, qtest, work, need, attempt):
    """What the image holds in memory alone, such as its bitmaps, is written back."""
    need.that(Path(TESTER).exists(), f'{TESTER} is not built')
    ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    iothreads = [word for name in THREADS for word in ('-object', f'iothread,id={name}')]
    vm = vmm('-display', 'none', '-nodefaults', '-machine', 'ferry-test', *qtest.args, *iothreads,
             '-blockdev', f'file,node-name=file,filename={work}/disk.qcow2', '-blockdev', 'qcow2,node-name=disk,file=file',
             '-device', f'test-disk,id=d,drive=disk,iothreads={":".join(THREADS)}', command=[TESTER], defaults=False)
    vm.cmd('block-dirty-bitmap-add', node='disk', name='b', persistent=True)
    disk = Disk(vm, qtest)
    disk.start()
    disk.progress(10)
    vm.quit()
    assert 'have not ended' not in vm.stderr()
    info = json.loads(ferry.qemu_img('info', '--output=json', work / 'disk.qcow2'))['format-specific']['data']
    assert [bitmap['name'] for bitmap in info['bitmaps'] if 'in-use' not in bitmap['flags']] == ['b']
