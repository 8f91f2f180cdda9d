# SPDX-License-Identifier: GPL-2.0-or-later
"""A target that hangs does not hold up clients of the disk, whatever the mirror is doing; nothing is lost once it goes on."""
import signal
import threading
from pathlib import Path

import nbd
import pytest

import ferry

MIB = ferry.MIB
SIZE = 16 * MIB


def stop(server):
    server.signal(signal.SIGSTOP)
    while 'State:\tT' not in Path(f'/proc/{server.process.pid}/status').read_text():
        pass                                        # stopping takes a moment


@pytest.fixture
def disk(vm, work, qemu_nbd):
    """(client of the disk, model of it, server of the copy)."""
    source = ferry.make_image(work / 'source.raw', SIZE, seed=1)
    vm.add_file(source, node_name='disk')
    server = qemu_nbd(ferry.make_image(work / 'copy.raw', SIZE), 'raw')
    vm.cmd('blockdev-add', server.node('copy', reconnect_delay=600))
    io = ferry.nbd_connect(vm.export('disk'))
    yield io, bytearray(source.read_bytes()), server
    server.signal(signal.SIGCONT)


def write_everywhere(io, model, byte, step=512 * 1024):
    """Returns when each write was acknowledged; a client that is held up for good hangs here."""
    for offset in range(0, SIZE, step):
        data = bytes([byte]) * 4096
        io.pwrite(data, offset)
        model[offset:offset + 4096] = data
    io.flush()


def start(vm, **args):
    vm.cmd('blockdev-mirror', {'job-id': 'm', 'device': 'disk', 'target': 'copy', 'sync': 'full',
                               **{k.replace('_', '-'): v for k, v in args.items()}})


def finish(vm, work, model, event=True):
    if event:
        vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)
    vm.quit()
    assert (work / 'copy.raw').read_bytes() == bytes(model)


@pytest.mark.parametrize('mode', ['background', 'write-blocking'])
def test_while_it_copies(vm, work, disk, mode):
    io, model, server = disk
    start(vm, copy_mode=mode, speed=4 * MIB)
    while vm.cmd('query-block-jobs')[0]['offset'] < MIB:
        pass
    stop(server)
    vm.cmd('block-job-set-speed', device='m', speed=0)
    write_everywhere(io, model, 1)
    server.signal(signal.SIGCONT)
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.cmd('block-job-complete', device='m')
    io.shutdown()
    finish(vm, work, model)


@pytest.mark.parametrize('mode', ['background', 'write-blocking'])
@pytest.mark.parametrize('verb', ['complete', 'cancel'])
def test_once_it_is_ready_and_while_it_is_told_to_end(vm, work, disk, mode, verb):
    io, model, server = disk
    start(vm, copy_mode=mode)
    vm.wait('BLOCK_JOB_READY', device='m')
    write_everywhere(io, model, 1)
    stop(server)
    write_everywhere(io, model, 2)
    vm.cmd(f'block-job-{verb}', device='m')
    write_everywhere(io, model, 3)
    server.signal(signal.SIGCONT)
    io.shutdown()
    finish(vm, work, model)


def test_while_the_pivot_is_awaited_and_under_way(vm, work, disk):
    io, model, server = disk
    start(vm, auto_finalize=False)
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.cmd('block-job-complete', device='m')
    vm.wait('BLOCK_JOB_PENDING', id='m')
    write_everywhere(io, model, 1)
    stop(server)
    write_everywhere(io, model, 2)
    vm.cmd('job-finalize', id='m')
    write_everywhere(io, model, 3)
    server.signal(signal.SIGCONT)
    io.shutdown()
    finish(vm, work, model)


def test_in_step_again_after_a_write_was_left_behind(vm, work, disk):
    io, model, server = disk
    start(vm, copy_mode='write-blocking')
    vm.wait('BLOCK_JOB_READY', device='m')
    stop(server)
    write_everywhere(io, model, 1)
    assert not vm.cmd('query-block-jobs')[0]['actively-synced']
    server.signal(signal.SIGCONT)
    guard = ferry.Guard(60)
    while not vm.cmd('query-block-jobs')[0]['actively-synced']:
        guard.left()
    io.shutdown()
    vm.cmd('block-job-cancel', device='m')
    finish(vm, work, model)


@pytest.mark.parametrize('phase', ['copying', 'left behind', 'finalizing'])
def test_a_forced_cancel_ends_it(vm, work, disk, phase):
    io, model, server = disk
    start(vm, copy_mode='write-blocking', auto_finalize=False, speed=MIB if phase == 'copying' else 0)
    if phase != 'copying':
        vm.wait('BLOCK_JOB_READY', device='m')
    if phase == 'finalizing':
        vm.cmd('block-job-complete', device='m')
        vm.wait('BLOCK_JOB_PENDING', id='m')
    stop(server)
    write_everywhere(io, model, 1)
    if phase == 'finalizing':
        vm.cmd('job-finalize', id='m')
    vm.cmd('block-job-cancel', device='m', force=True)
    vm.wait('BLOCK_JOB_CANCELLED', device='m')
    write_everywhere(io, model, 2)
    io.shutdown()
    vm.quit()
    assert (work / 'source.raw').read_bytes() == bytes(model)


@pytest.fixture
def far_disk(vm, work, qemu_nbd):
    """The server of a disk that is being copied to a file; it has stopped while the job reads."""
    server = qemu_nbd(ferry.make_image(work / 'source.raw', SIZE, seed=1), 'raw')
    vm.cmd('blockdev-add', server.node('disk', reconnect_delay=600))
    vm.add_file(ferry.make_image(work / 'copy.raw', SIZE), node_name='copy')
    start(vm, speed=MIB, filter_node_name='filter')
    while vm.cmd('query-block-jobs')[0]['offset'] == 0:
        pass
    stop(server)
    vm.cmd('block-job-set-speed', device='m', speed=0)
    yield server
    server.signal(signal.SIGCONT)


def has_filter(vm):
    return any(node['node-name'] == 'filter' for node in vm.cmd('query-named-block-nodes', flat=True))


def test_a_forced_cancel_does_not_wait_for_a_source_that_hangs(vm, work, far_disk):
    vm.cmd('block-job-cancel', device='m', force=True)
    vm.wait('BLOCK_JOB_CANCELLED', device='m')
    assert not has_filter(vm)
    vm.cmd('blockdev-del', node_name='copy')
    far_disk.signal(signal.SIGCONT)
    vm.add_file(work / 'copy.raw', node_name='copy')
    start(vm)
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)
    vm.quit()
    ferry.compare(work / 'source.raw', work / 'copy.raw')


def test_a_forced_cancel_does_not_wait_for_guests_of_a_source_that_hangs(vm, far_disk):
    io = ferry.nbd_connect(vm.export('disk'))
    reading = threading.Thread(target=io.pread, args=(4096, SIZE - 4096))
    reading.start()
    vm.cmd('block-job-cancel', device='m', force=True)
    vm.wait('BLOCK_JOB_CANCELLED', device='m')
    far_disk.signal(signal.SIGCONT)
    reading.join()
    guard = ferry.Guard(60)
    while has_filter(vm):
        guard.left()
    io.shutdown()
    vm.quit()


@pytest.mark.parametrize('side', ['disk', 'copy'])
@pytest.mark.parametrize('how', ['quit', 'cancel'])
def test_limits_do_not_hold_up_the_end(vm, work, side, how):
    """Copying at 10 kB/s: what was asked for at the limits is not waited for."""
    vm.cmd('object-add', qom_type='throttle-group', id='slow', limits={'bps-total': 10000})
    for name in ('disk', 'copy'):
        node = {'driver': 'raw', 'file': {'driver': 'file',
                                          'filename': str(ferry.make_image(work / f'{name}.raw', SIZE, seed=1))}}
        if name == side:
            node = {'driver': 'throttle', 'throttle-group': 'slow', 'file': node}
        vm.cmd('blockdev-add', {'node-name': name, **node})
    start(vm)
    while not vm.cmd('query-block-jobs')[0]['busy']:
        pass
    if how == 'cancel':
        vm.cmd('block-job-cancel', device='m', force=True)
        vm.wait('BLOCK_JOB_CANCELLED', device='m')
    vm.quit()


def test_a_write_whose_own_disk_was_slow_waits_for_the_target_no_longer_than_others(vm, work):
    """Both halves are held; the target answers another write in between, and then not this one."""
    for name in ('disk', 'copy'):
        path = ferry.make_image(work / f'{name}.raw', SIZE)
        vm.cmd('blockdev-add', driver='raw', node_name=name,
               file={'driver': 'blkdebug', 'image': {'driver': 'file', 'filename': str(path)}})
    slow, other = (ferry.nbd_connect(vm.export('disk', name=f'e{n}')) for n in range(2))
    start(vm, copy_mode='write-blocking')
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.qemu_io('disk', 'break write_aio source')
    vm.qemu_io('copy', 'break write_aio first')
    cookie = slow.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b'a' * 4096)), 0)
    vm.qemu_io('copy', 'wait_break first')
    vm.qemu_io('disk', 'wait_break source')
    vm.qemu_io('copy', 'break write_aio second')
    other.pwrite(b'b' * 4096, MIB)                  # acknowledged without the target, when the time is over
    vm.qemu_io('copy', 'resume second')
    while (work / 'copy.raw').read_bytes()[MIB:MIB + 4096] != b'b' * 4096:
        pass                                        # the target answers
    vm.cmd('query-block-jobs')
    vm.qemu_io('disk', 'resume source')
    while not slow.aio_command_completed(cookie):
        slow.poll(1000)
    vm.qemu_io('copy', 'resume first')
    slow.shutdown()
    other.shutdown()
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m')
    vm.quit()
    assert (work / 'copy.raw').read_bytes()[:4096] == b'a' * 4096


def test_a_migration_gives_the_guest_back_when_the_target_hangs_in_the_pause(vmm, work, vm):
    """Its stop waits for the mirror's request, and guests wait with it: no longer than for any command."""
    source = ferry.make_image(work / 'source.raw', SIZE, seed=1)
    vm.add_file(source, node_name='disk')
    vm.cmd('blockdev-add', {'driver': 'raw', 'node-name': 'copy', 'file': {'driver': 'blkdebug', 'node-name': 'hook', 'image': {
        'driver': 'file', 'filename': str(ferry.make_image(work / 'copy.raw', SIZE))}}})
    vm.cmd('cont')
    io, model = ferry.nbd_connect(vm.export('disk')), bytearray(source.read_bytes())
    vm.qemu_io('hook', 'break write_aio A')
    start(vm)
    vm.qemu_io('hook', 'wait_break A')
    vmm('-incoming', f'unix:{work}/incoming', name='destination').expected.add(1)
    vm.cmd('migrate-set-capabilities', capabilities=[{'capability': 'events', 'state': True}])
    vm.cmd('migrate', uri=f'unix:{work}/incoming')
    vm.wait('MIGRATION', status='failed')
    assert 'did not become idle in time' in vm.cmd('query-migrate')['error-desc']
    assert vm.cmd('query-status')['status'] == 'running'
    write_everywhere(io, model, 1)
    vm.qemu_io('hook', 'resume A')
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.cmd('block-job-complete', device='m')
    io.shutdown()
    finish(vm, work, model)
