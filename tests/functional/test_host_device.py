# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of the host as they are: sectors of 4096 bytes, and disks that lose what the page cache writes to them."""
import os
import subprocess

import pytest

import ferry

MIB = ferry.MIB
DIRECT = {'direct': True, 'no-flush': False}


class LoopDevices:
    """Block devices over files; detached, and what lies on them unmounted, at the end."""

    def __init__(self):
        self.undo = []

    def attach(self, path, *options):
        done = subprocess.run(['losetup', '--find', '--show', *options, path], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f'no loop device: {done.stderr.strip()}')
        device = done.stdout.strip()
        self.undo.append(['losetup', '--detach', device])
        return device

    def mount(self, what, where, *options):
        done = subprocess.run(['mount', *options, what, where], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f'cannot mount: {done.stderr.strip()}')
        self.undo.append(['umount', '--lazy', where])

    def close(self):
        for command in reversed(self.undo):
            subprocess.run(command, capture_output=True, check=False)


@pytest.fixture
def loops(need):
    need.root()
    need.tool('losetup', 'mkfs.ext4')
    devices = LoopDevices()
    yield devices
    devices.close()


@pytest.fixture
def large_sectors(loops, disk_work):
    """A disk with sectors of 4096 bytes."""
    path = disk_work / 'backing'
    path.write_bytes(b'')
    os.truncate(path, 64 * MIB)
    return loops.attach(path, '--sector-size', '4096')


@pytest.fixture
def large_sectors_file(loops, large_sectors, disk_work):
    """A sparse file in a file system on such a disk."""
    where = disk_work / 'mounted'
    where.mkdir()
    subprocess.run(['mkfs.ext4', '-q', '-b', '4096', large_sectors], check=True)
    loops.mount(large_sectors, where)
    path = where / 'disk.raw'
    path.write_bytes(b'')
    os.truncate(path, 8 * MIB)
    return path


def small_writes_are_right(vm, node, size):
    handle = ferry.nbd_connect(vm.export(node))
    expected = bytearray(handle.pread(MIB, 0))
    for offset, length in ((0, 512), (512, 512), (4096 + 512, 1024), (300, 7000), (MIB - 512, 512)):
        data = bytes((offset + i) % 251 for i in range(length))
        handle.pwrite(data, offset)
        expected[offset:offset + length] = data
    handle.flush()
    assert handle.pread(MIB, 0) == bytes(expected)
    handle.shutdown()
    return bytes(expected)


def test_direct_io_on_a_sparse_file_over_sectors_of_4096_bytes(vm, large_sectors_file):
    path = large_sectors_file
    vm.add('raw', 'disk', cache=DIRECT, file={'driver': 'file', 'filename': str(path), 'cache': DIRECT})
    expected = small_writes_are_right(vm, 'disk', 8 * MIB)
    vm.quit()
    assert path.read_bytes()[:MIB] == expected


@pytest.mark.parametrize('direct', [True, False])
def test_a_device_with_sectors_of_4096_bytes(vm, large_sectors, direct):
    cache = {'direct': direct, 'no-flush': False}
    vm.add('raw', 'disk', cache=cache, file={'driver': 'host_device', 'filename': large_sectors, 'cache': cache})
    small_writes_are_right(vm, 'disk', 64 * MIB)


def write_back(device):
    """The kernel writes what its page cache holds of a device; errors stay for its other users to see."""
    fd = os.open(device, os.O_RDONLY)
    try:
        os.fdatasync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def test_a_write_through_does_not_hide_that_an_older_write_was_lost(vm, loops, work):
    """The disk is full for a while. A write with FUA meets the error first; flushes must go on failing."""
    where = work / 'small'
    where.mkdir()
    loops.mount('tmpfs', where, '-t', 'tmpfs', '-o', 'size=4m')
    backing, ballast = where / 'backing', where / 'ballast'
    backing.write_bytes(b'\1' * MIB)
    os.truncate(backing, 8 * MIB)
    device = loops.attach(backing)
    vm.add('raw', 'disk', file={'driver': 'host_device', 'filename': device})
    handle = ferry.nbd_connect(vm.export('disk'))
    ballast.write_bytes(bytes(3 * MIB))
    handle.pwrite(b'\2' * MIB, 4 * MIB)         # acknowledged; there is no room for it
    write_back(device)
    ballast.unlink()
    with pytest.raises(Exception, match='(?i)error|space'):
        handle.pwrite(b'\3' * 4096, 0, 1)       # NBD_CMD_FLAG_FUA
    for _ in range(2):
        with pytest.raises(Exception, match='(?i)error|space'):
            handle.flush()
    handle.shutdown()
    vm.signal(15)
    vm.expected.update({0, 1})
    vm.wait_exit()
