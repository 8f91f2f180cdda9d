# SPDX-License-Identifier: GPL-2.0-or-later
"""auto-read-only: a file is open for writing while a user may write, and only then."""
import os

import nbd
import pytest

import ferry
from ferry import stock as stock_qemu

SIZE = ferry.MIB
ACCESS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


def modes(vm, path):
    """How the process has the file open, one letter a descriptor."""
    found = []
    for fd in os.listdir(f'/proc/{vm.pid}/fd'):
        try:
            if os.readlink(f'/proc/{vm.pid}/fd/{fd}').removesuffix(' (deleted)') != str(path):
                continue
        except FileNotFoundError:
            continue
        info = open(f'/proc/{vm.pid}/fdinfo/{fd}').read()
        flags = int(info.split('flags:')[1].split()[0], 8)
        found.append('r' if flags & ACCESS == os.O_RDONLY else 'w')
    return ''.join(found)


def locks(path):
    """The bytes that a process has locked: 100.. what it does, 200.. what others may not do."""
    inode = os.stat(path).st_ino
    rows = [line.split() for line in open('/proc/locks')]
    held = [(int(row[-2]), int(row[-1])) for row in rows if row[-3].endswith(f':{inode}')]
    return {byte for first, last in held for byte in range(first, last + 1)}


@pytest.fixture
def disk(vm, work):
    """The file and raw nodes as libvirt makes them."""
    path = ferry.make_image(work / 'disk.raw', SIZE)
    vm.path = str(path)
    vm.add('file', 'file', filename=vm.path, auto_read_only=True, discard='unmap')
    vm.add('raw', 'disk', file='file', read_only=False)
    return vm


def unexport(vm, name):
    vm.cmd('block-export-del', id=f'export-{name}')
    vm.wait('BLOCK_EXPORT_DELETED', id=f'export-{name}')


def test_file_is_written_only_while_a_writer_has_it(disk):
    assert modes(disk, disk.path) == 'r'
    disk.export('disk', name='reader', writable=False)
    assert modes(disk, disk.path) == 'r'
    assert 101 not in locks(disk.path)
    for round_ in range(3):
        client = ferry.nbd_connect(disk.export('disk', name='writer'))
        assert modes(disk, disk.path) == 'w'
        assert {101} <= locks(disk.path)
        client.pwrite(bytes([round_ + 1]) * 4096, 0)
        client.shutdown()
        unexport(disk, 'writer')
        assert modes(disk, disk.path) == 'r'
        assert 101 not in locks(disk.path)
    reader = ferry.nbd_connect(f'nbd+unix:///reader?socket={disk.workdir}/{disk.name}.nbd')
    assert bytes(reader.pread(4096, 0)) == bytes([3]) * 4096
    reader.shutdown()


def test_reads_in_flight_do_not_notice_the_change(disk):
    ferry.fill(disk.path, SIZE, seed=7)
    data = open(disk.path, 'rb').read()
    reader = ferry.nbd_connect(disk.export('disk', name='reader', writable=False))
    buffers = []
    for round_ in range(50):
        buf = nbd.Buffer(65536)
        offset = (round_ * 65536) % SIZE
        reader.aio_pread(buf, offset)
        buffers.append((buf, offset))
        disk.export('disk', name='writer')
        unexport(disk, 'writer')
    while reader.aio_in_flight():
        reader.poll(-1)
    for buf, offset in buffers:
        assert bytes(buf.to_bytearray()) == data[offset:offset + 65536]
    reader.shutdown()


def test_file_that_cannot_be_written_serves_readers(vmm, work):
    path = ferry.make_image(work / 'disk.raw', SIZE)
    os.chmod(path, 0o444)
    # Permissions of files bind root too once it has no capabilities.
    vm = vmm(command=['setpriv', '--bounding-set=-all', '--inh-caps=-all', *ferry.vmm.binary()])
    vm.add('file', 'file', filename=str(path), auto_read_only=True)
    vm.add('raw', 'disk', file='file')
    vm.export('disk', name='reader', writable=False)
    with pytest.raises(ferry.QMPError) as failure:
        vm.export('disk', name='writer')
    assert failure.value.desc == f"Could not open '{path}': Permission denied"
    assert modes(vm, path) == 'r'
    # The obstacle may go: an image is relabelled before its format node is made writable.
    os.chmod(path, 0o666)
    client = ferry.nbd_connect(vm.export('disk', name='again'))
    client.pwrite(b'x' * 512, 0)
    client.shutdown()
    assert modes(vm, path) == 'w'
    with pytest.raises(ferry.QMPError, match="Could not open .*Permission denied"):
        os.chmod(ferry.make_image(work / 'other.raw', SIZE), 0o444)
        vm.add_file(work / 'other.raw', 'raw', 'other')
    vm.quit()


def test_writer_does_not_get_a_file_that_took_the_name(disk, work):
    (work / 'disk.raw').rename(work / 'moved.raw')
    ferry.make_image(work / 'disk.raw', SIZE)
    with pytest.raises(ferry.QMPError, match="'.*disk.raw' is no longer the file that was opened"):
        disk.export('disk', name='writer')
    assert modes(disk, work / 'moved.raw') == 'r' and modes(disk, work / 'disk.raw') == ''


def test_other_process_locks_out_the_writer_only(disk, vmm, work):
    other = vmm(command=stock_qemu.distribution())
    other.add_file(disk.path, 'raw', 'disk')
    other.export('disk')
    with pytest.raises(ferry.QMPError, match='Is another process using the image'):
        disk.cmd('block_resize', node_name='disk', size=2 * SIZE)
    assert modes(disk, disk.path) == 'r'
    other.quit()


def test_format_node_made_writable_reopens_the_file(vm, work):
    path = ferry.make_image(work / 'base.qcow2', SIZE, 'qcow2')
    file = {'driver': 'file', 'node-name': 'file', 'filename': str(path), 'auto-read-only': True}
    vm.cmd('blockdev-add', file)
    vm.add('qcow2', 'disk', file='file', read_only=True)
    assert modes(vm, path) == 'r' and 101 not in locks(path)

    def reopen(read_only, *more):
        vm.cmd('blockdev-reopen', options=[
            {'driver': 'qcow2', 'node-name': 'disk', 'file': 'file', 'read-only': read_only}, *more])

    for more in ((), (file,)):
        reopen(False, *more)
        assert modes(vm, path) == 'w' and 101 in locks(path)
        assert 'wrote' in vm.qemu_io('disk', 'write -P 5 0 64k')
        reopen(True, *more)
        assert modes(vm, path) == 'r' and 101 not in locks(path)
        assert 'read 65536' in vm.qemu_io('disk', 'read -P 5 0 64k')
    vm.quit()
    ferry.check_qcow2(path)


def test_raw_node_becomes_writable_over_a_file_that_was_read_only(vm, work):
    path = ferry.make_image(work / 'disk.raw', SIZE)
    file = {'driver': 'file', 'node-name': 'file', 'filename': str(path)}
    raw = {'driver': 'raw', 'node-name': 'disk', 'file': 'file'}
    for auto in (False, True):
        for order in (1, -1):
            vm.cmd('blockdev-add', {**file, 'read-only': True})
            vm.cmd('blockdev-add', {**raw, 'read-only': True})
            vm.cmd('blockdev-reopen', options=[raw, {**file, 'auto-read-only': auto}][::order])
            assert modes(vm, path) == ('r' if auto else 'w')
            assert 'wrote' in vm.qemu_io('disk', 'write -P 5 0 512')
            for name in ('disk', 'file'):
                vm.cmd('blockdev-del', node_name=name)
