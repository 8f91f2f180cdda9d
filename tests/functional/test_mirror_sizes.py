# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks whose size is no multiple of a sector are mirrored; the copy has their bytes, and zeroes up to the end of its last sector."""
import os

import pytest

import ferry

SIZES = [100, ferry.MIB + 1, 3 * ferry.MIB - 1]


def rounded(size):
    return -(-size // 512) * 512


def content(size):
    return (b'one ragged disk ' * (size // 16 + 1))[:size]


@pytest.fixture(params=SIZES)
def disk(request, vm, work):
    """A raw disk of an odd size; returns its contents."""
    data = content(request.param)
    (work / 'source.raw').write_bytes(data)
    vm.add_file(work / 'source.raw', node_name='disk')
    return data


def finish(vm, verb='block-job-complete'):
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.cmd(verb, device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda data: 'error' not in data)


def check(path, data, fmt):
    copy = ferry.read_raw(path, fmt)
    assert copy[:len(data)] == data
    assert len(copy) <= rounded(len(data)) and not any(copy[len(data):])


@pytest.mark.parametrize('verb', ['block-job-complete', 'block-job-cancel'])
@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_drive_mirror_makes_a_target_that_holds_all_of_it(vm, work, disk, fmt, verb):
    vm.cmd('drive-mirror', job_id='m', device='disk', target=str(work / 'copy'), format=fmt, sync='full')
    finish(vm, verb)
    vm.quit()
    check(work / 'copy', disk, fmt)


@pytest.mark.parametrize('mode', ['background', 'write-blocking'])
def test_writes_up_to_the_last_byte_reach_the_copy(vm, work, disk, mode):
    vm.cmd('drive-mirror', job_id='m', device='disk', target=str(work / 'copy'), format='qcow2', sync='full', copy_mode=mode)
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.qemu_io('disk', f'write -P 0x77 {len(disk) - 60} 60')
    vm.cmd('block-job-complete', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda data: 'error' not in data)
    vm.quit()
    check(work / 'copy', disk[:-60] + b'\x77' * 60, 'qcow2')


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_target_of_whole_sectors_is_taken_and_its_end_zeroed(vm, work, disk, fmt):
    size = rounded(len(disk))
    (work / 'old').write_bytes(b'\xff' * size)
    ferry.qemu_img('convert', '-q', '-f', 'raw', '-O', fmt, work / 'old', work / 'copy')
    vm.add_file(work / 'copy', fmt=fmt, node_name='copy')
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full')
    finish(vm)
    vm.quit()
    check(work / 'copy', disk, fmt)


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_target_that_fails_at_its_end_is_an_error_of_the_target(vm, work, disk, fmt):
    (work / 'old').write_bytes(b'\xff' * rounded(len(disk)))
    ferry.qemu_img('convert', '-q', '-f', 'raw', '-O', fmt, work / 'old', work / 'copy')
    vm.add('blkdebug', 'copy', image={'driver': fmt, 'file': {'driver': 'file', 'filename': str(work / 'copy')}},
           inject_error=[{'event': 'none', 'iotype': 'write-zeroes', 'errno': 5, 'once': True}])
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full', on_target_error='stop')
    event = vm.wait('BLOCK_JOB_ERROR', device='m')
    assert (event['data']['operation'], event['data']['action']) == ('write', 'stop')
    assert not vm.seen('BLOCK_JOB_READY')
    vm.cmd('block-job-resume', device='m')
    finish(vm)
    vm.quit()
    check(work / 'copy', disk, fmt)


def test_only_the_last_sector_may_differ(vm, work, disk):
    for size in (rounded(len(disk)) + 512, rounded(len(disk)) + 1, len(disk) - 1):
        (work / 'copy').write_bytes(bytes(size))
        vm.add_file(work / 'copy', node_name='copy')
        with pytest.raises(ferry.QMPError, match='different sizes'):
            vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full')
        vm.cmd('blockdev-del', node_name='copy')
    assert os.path.getsize(work / 'source.raw') == len(disk)


def test_copy_above_a_backing_file_keeps_what_is_below(vm, work):
    """sync=top: the target's last cluster comes from the backing file, and is not filled with zeroes."""
    data = content(ferry.MIB + 100)
    (work / 'base.raw').write_bytes(data)
    ferry.make_image(work / 'top.qcow2', 2 * ferry.MIB, fmt='qcow2', backing=work / 'base.raw')
    vm.add_file(work / 'top.qcow2', fmt='qcow2', node_name='disk')
    vm.qemu_io('disk', 'write -P 1 0 64k')
    vm.cmd('drive-mirror', job_id='m', device='disk', target=str(work / 'copy'), format='qcow2', sync='top')
    finish(vm)
    vm.quit()
    copy = ferry.read_raw(work / 'copy', 'qcow2')
    assert copy[:len(data)] == b'\1' * 65536 + data[65536:]
