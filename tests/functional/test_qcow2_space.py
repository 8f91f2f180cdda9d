# SPDX-License-Identifier: GPL-2.0-or-later
"""Clusters that a qcow2 image has freed come back, whether a flush is asked for or not."""
import os

import nbd
import pytest

import ferry

MIB = ferry.MIB
DISK = 32 * MIB
ROOM = 8 * MIB          # for metadata, and for clusters that wait to be freed


@pytest.mark.parametrize('fmt', [{}, {'discard-no-unref': False}], ids=['plain', 'options'])
def test_a_disk_that_is_written_and_discarded_keeps_its_size(vm, work, fmt):
    image = ferry.make_image(work / 'disk.qcow2', DISK, 'qcow2')
    vm.add_file(image, 'qcow2', node_name='disk', discard='unmap', **fmt)
    io = ferry.nbd_connect(vm.export('disk'))
    for turn in range(10):
        for offset in range(0, DISK, MIB):
            io.pwrite(bytes([turn + 1]) * MIB, offset)
        io.trim(DISK, 0)
    io.pwrite(b'\x5a' * MIB, 5 * MIB)
    assert io.pread(MIB, 5 * MIB) == b'\x5a' * MIB
    io.shutdown()
    assert os.path.getsize(image) <= DISK + ROOM
    vm.quit()
    ferry.check_qcow2(image)


@pytest.mark.parametrize('what', ['data', 'zeroes', 'compressed'])
def test_a_full_device_takes_writes_into_what_was_freed(vm, work, what):
    """The image fills a device of 8 MiB; then clusters are freed, and no flush follows."""
    base = ferry.make_image(work / 'base.raw', 64 * MIB, seed=1, data=MIB)
    image = ferry.make_image(work / 'disk.qcow2', 64 * MIB, 'qcow2', options='cluster_size=4k', backing=base)
    os.truncate(image, 8 * MIB)
    vm.add('qcow2', 'disk', discard='unmap', file={'driver': 'raw', 'size': 8 * MIB, 'file': {
        'driver': 'file', 'filename': str(image), 'discard': 'unmap'}})
    io = ferry.nbd_connect(vm.export('disk'))
    offset = 0
    for size in (MIB, 65536, 4096):
        while True:
            try:
                io.pwrite(b'\1' * size, offset)
            except nbd.Error:
                break
            offset += size
    io.trim(768 << 10, 0)
    if what == 'data':
        io.pwrite(b'\2' * (512 << 10), 60 * MIB)
    elif what == 'compressed':
        vm.qemu_io('disk', 'write -c -P 2 60M 512k')
    else:
        io.zero(32 * MIB, 30 * MIB)                 # needs tables
    assert io.pread(512 << 10, 60 * MIB) == (b'\0' if what == 'zeroes' else b'\2') * (512 << 10)
    io.shutdown()
    vm.quit()
    ferry.check_qcow2(image)


def test_the_copy_of_a_ready_mirror_keeps_its_size(vm, work):
    vm.add_file(ferry.make_image(work / 'disk.raw', DISK), node_name='disk', discard='unmap')
    image = ferry.make_image(work / 'copy.qcow2', DISK, 'qcow2')
    vm.add_file(image, 'qcow2', node_name='copy', discard='unmap')
    io = ferry.nbd_connect(vm.export('disk'))
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full', copy_mode='write-blocking')
    vm.wait('BLOCK_JOB_READY', device='m')
    for turn in range(8):
        for offset in range(0, DISK, MIB):
            io.pwrite(bytes([turn + 1]) * MIB, offset)
        io.zero(DISK, 0)
    io.shutdown()
    assert os.path.getsize(image) <= DISK + ROOM
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)
    vm.quit()
    ferry.compare(work / 'disk.raw', image, 'raw', 'qcow2')
    ferry.check_qcow2(image)


def test_a_guests_flush_reaches_a_copy_that_is_in_step(vmm, work):
    vm = vmm('-trace', 'file_flush*')
    vm.add_file(ferry.make_image(work / 'disk.raw', MIB), node_name='disk')
    vm.add('raw', 'copy', file={'driver': 'blkdebug', 'node-name': 'hook', 'image': {
        'driver': 'file', 'filename': str(ferry.make_image(work / 'copy.raw', MIB))}})
    io = ferry.nbd_connect(vm.export('disk'))
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full')
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.qemu_io('hook', 'break flush_to_disk here')
    io.pwrite(b'\1' * 4096, 0)
    io.flush()
    vm.qemu_io('hook', 'wait_break here')
    vm.qemu_io('hook', 'resume here')
    io.shutdown()
