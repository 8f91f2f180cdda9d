# SPDX-License-Identifier: GPL-2.0-or-later
"""Files and devices of the host: what kind each driver takes, windows of them, direct I/O, and where they have holes."""
import os
import re
import shutil
import signal
import subprocess

import pytest

import ferry

SIZE = 8 * ferry.MIB
KIB = 1024
nbd = pytest.importorskip('nbd', reason='python3-libnbd is not installed')


@pytest.fixture
def loop(work, need):
    """(a block device of SIZE bytes, the file behind it)."""
    need.root()
    need.tool('losetup')
    path = ferry.make_image(work / 'behind.raw', SIZE, seed=3, data=SIZE)
    done = subprocess.run(['losetup', '--find', '--show', path], capture_output=True, text=True, check=False, timeout=60)
    need.that(done.returncode == 0, f'no loop device can be had: {done.stderr.strip()}')
    device = done.stdout.strip()
    yield device, path
    subprocess.run(['losetup', '--detach', device], check=True, timeout=60)


def any_place(uri):
    """A client that does not care for the alignment that an export prefers."""
    handle = nbd.NBD()
    handle.set_strict_mode(0)
    handle.connect_uri(uri)
    return handle


def extents(handle, length=SIZE):
    """Runs of the disk as (length, is a hole)."""
    found = []

    def take(_context, _offset, entries, _error):
        found.extend((entries[i], bool(entries[i + 1] & nbd.STATE_HOLE)) for i in range(0, len(entries), 2))
    at = 0
    while at < length:
        before = len(found)
        handle.block_status(length - at, at, take)
        at += sum(n for n, _ in found[before:])
    merged = []
    for count, hole in found:
        if merged and merged[-1][1] == hole:
            merged[-1] = (merged[-1][0] + count, hole)
        else:
            merged.append((count, hole))
    return merged


def with_data(path, offset, length):
    """A file of SIZE bytes that is one hole but for data in one place."""
    with open(path, 'wb') as file:
        file.truncate(SIZE)
        file.seek(offset)
        file.write(b'd' * length)
    return path


def mirror(vm, source, target):
    vm.cmd('blockdev-mirror', job_id='j', device=source, target=target, sync='full')
    vm.wait('BLOCK_JOB_READY', device='j')
    vm.cmd('block-job-cancel', device='j')
    vm.wait('BLOCK_JOB_COMPLETED', device='j', where=lambda data: 'error' not in data)


# --- host_device ---

def test_host_device_is_read_written_and_as_long_as_the_device(vm, loop):
    device, path = loop
    vm.add('host_device', 'disk', filename=device)
    handle = any_place(vm.export('disk'))
    assert handle.get_size() == SIZE
    assert handle.pread(ferry.MIB, ferry.MIB) == path.read_bytes()[ferry.MIB:2 * ferry.MIB]
    handle.pwrite(b'w' * 5000, 12345)
    handle.zero(64 * KIB, 4 * ferry.MIB)
    handle.flush()
    handle.shutdown()
    vm.quit()
    with open(device, 'rb') as file:
        data = file.read()
    assert data[12345:12345 + 5000] == b'w' * 5000
    assert data[4 * ferry.MIB:][:64 * KIB] == bytes(64 * KIB)


@pytest.mark.parametrize('cache', [{}, {'cache': {'direct': True, 'no-flush': False}}])
def test_mirror_from_a_host_device_to_another_file_and_back(vm, loop, work, cache):
    device, path = loop
    copy = ferry.make_image(work / 'copy.raw', SIZE)
    vm.add('host_device', 'disk', filename=device, **cache)
    vm.add_file(copy, node_name='copy')
    mirror(vm, 'disk', 'copy')
    ferry.compare(path, copy)
    ferry.fill(copy, SIZE, seed=4)
    mirror(vm, 'copy', 'disk')
    vm.quit()
    ferry.compare(copy, device)


def test_host_device_cannot_be_made_longer(vm, loop):
    vm.add('host_device', 'disk', filename=loop[0])
    with pytest.raises(ferry.QMPError):
        vm.cmd('block_resize', node_name='disk', size=2 * SIZE)
    assert vm.cmd('query-named-block-nodes', flat=True)[0]['image']['virtual-size'] == SIZE


def test_each_driver_takes_its_kind_of_file(vm, work, loop):
    path = ferry.make_image(work / 'd.raw', SIZE)
    with pytest.raises(ferry.QMPError, match="'file' driver requires .* regular file"):
        vm.add('file', 'disk', filename=loop[0])
    with pytest.raises(ferry.QMPError, match="'host_device' driver requires .* block device"):
        vm.add('host_device', 'disk', filename=str(path))


def test_host_device_is_no_regular_file_and_no_folder(vm, work):
    path = ferry.make_image(work / 'd.raw', SIZE)
    with pytest.raises(ferry.QMPError, match="'host_device' driver requires .* block device"):
        vm.add('host_device', 'disk', filename=str(path))
    for driver in ('file', 'host_device'):
        with pytest.raises(ferry.QMPError):
            vm.add(driver, 'disk', filename=str(work))
    assert vm.cmd('query-named-block-nodes') == []


# --- windows ---

def test_raw_window_reads_and_writes_its_part_only(vm, work):
    path = ferry.make_image(work / 'd.raw', SIZE, seed=5, data=SIZE)
    before = path.read_bytes()
    start, length = ferry.MIB + 512, 64 * KIB
    vm.add_file(path, node_name='window', offset=start, size=length)
    handle = any_place(vm.export('window'))
    assert handle.get_size() == length
    assert handle.pread(length, 0) == before[start:start + length]
    handle.pwrite(b'w' * 1000, length - 1000)
    handle.zero(512, 0)
    for call in (lambda: handle.pwrite(b'x', length), lambda: handle.pwrite(b'xx', length - 1),
                 lambda: handle.pread(1, length), lambda: handle.zero(2, length - 1)):
        with pytest.raises(nbd.Error):
            call()
    handle.shutdown()
    vm.quit()
    expected = before[:start] + bytes(512) + before[start + 512:start + length - 1000] + b'w' * 1000 + before[start + length:]
    assert path.read_bytes() == expected


def test_raw_window_without_size_goes_to_the_end(vm, work):
    path = ferry.make_image(work / 'd.raw', SIZE, seed=5, data=SIZE)
    copy = ferry.make_image(work / 'copy.raw', SIZE - ferry.MIB)
    vm.add_file(path, node_name='window', offset=ferry.MIB)
    vm.add_file(copy, node_name='copy')
    mirror(vm, 'window', 'copy')
    assert copy.read_bytes() == path.read_bytes()[ferry.MIB:]


def test_mirror_into_a_window_leaves_the_rest_alone(vm, work):
    path = ferry.make_image(work / 'd.raw', ferry.MIB, seed=6, data=ferry.MIB)
    big = ferry.make_image(work / 'big.raw', SIZE, seed=7, data=SIZE)
    before = big.read_bytes()
    vm.add_file(path, node_name='disk')
    vm.add_file(big, node_name='window', offset=2 * ferry.MIB, size=ferry.MIB)
    mirror(vm, 'disk', 'window')
    vm.quit()
    assert big.read_bytes() == before[:2 * ferry.MIB] + path.read_bytes() + before[3 * ferry.MIB:]


@pytest.mark.parametrize('options', [{'offset': SIZE + 512}, {'offset': ferry.MIB, 'size': SIZE}, {'size': SIZE + 512},
                                     {'offset': (1 << 63) - 512, 'size': 1 << 20}])
def test_raw_window_beyond_the_file_is_refused(vm, work, options):
    path = ferry.make_image(work / 'd.raw', SIZE)
    with pytest.raises(ferry.QMPError):
        vm.add_file(path, node_name='window', **options)
    assert vm.cmd('query-named-block-nodes') == []


def test_raw_window_has_the_holes_of_its_part(vm, work):
    path = with_data(work / 'd.raw', 2 * ferry.MIB, ferry.MIB)
    vm.add_file(path, node_name='window', offset=ferry.MIB, size=4 * ferry.MIB)
    handle = ferry.nbd_connect(vm.export('window'), 'base:allocation')
    assert extents(handle, 4 * ferry.MIB) == [(ferry.MIB, True), (ferry.MIB, False), (2 * ferry.MIB, True)]


# --- direct I/O ---

def opened_direct(vm, path):
    """Whether each descriptor of the file is open with O_DIRECT."""
    found = []
    for fd in os.listdir(f'/proc/{vm.pid}/fd'):
        try:
            if os.path.samefile(f'/proc/{vm.pid}/fd/{fd}', path):
                with open(f'/proc/{vm.pid}/fdinfo/{fd}', encoding='ascii') as info:
                    found.append(bool(int(re.search(r'flags:\s*(\d+)', info.read())[1], 8) & os.O_DIRECT))
        except FileNotFoundError:
            pass
    return found


@pytest.mark.parametrize('direct', [True, False])
def test_unaligned_requests_are_right_with_and_without_direct_io(vm, disk_work, direct):
    """Nothing of what clients send fits the blocks of the disk, in place, length or memory."""
    path = ferry.make_image(disk_work / 'd.raw', ferry.MIB, seed=8, data=ferry.MIB)
    expected = bytearray(path.read_bytes())
    cache = {'direct': direct, 'no-flush': False}
    vm.add('raw', 'disk', cache=cache, file={'driver': 'file', 'filename': str(path), 'cache': cache})
    assert opened_direct(vm, path) == [direct]
    handle = ferry.nbd_connect(vm.export('disk'))
    for offset, length in ((1, 1), (511, 2), (4095, 4098), (5000, 100000), (ferry.MIB - 3, 3), (65536, 4096)):
        data = bytes((offset + i) & 0xff for i in range(length))
        handle.pwrite(data, offset)
        expected[offset:offset + length] = data
    handle.zero(10001, 300001)
    expected[300001:310002] = bytes(10001)
    handle.flush()
    assert handle.pread(200003, 7) == bytes(expected[7:200010])
    handle.shutdown()
    vm.quit()
    assert path.read_bytes() == bytes(expected)


def test_direct_io_reads_the_tail_of_a_file_that_ends_within_a_block(vm, disk_work):
    path = disk_work / 'd.raw'
    path.write_bytes(bytes(range(256)) * 40 + b'tail' * 128)
    path.open('ab').write(b'x' * 512)
    cache = {'direct': True, 'no-flush': False}
    vm.add('file', 'disk', filename=str(path), cache=cache)
    handle = any_place(vm.export('disk'))
    assert handle.get_size() == path.stat().st_size
    assert handle.pread(1000, path.stat().st_size - 1000) == path.read_bytes()[-1000:]


def test_file_system_without_direct_io_is_named(vm, need):
    """/proc has files that cannot be opened so; the reason must not be a bare "Invalid argument"."""
    with pytest.raises(OSError):
        os.close(os.open('/proc/self/status', os.O_RDONLY | os.O_DIRECT))
    with pytest.raises(ferry.QMPError, match='O_DIRECT'):
        vm.add('file', 'disk', filename='/proc/self/status', read_only=True, cache={'direct': True}, locking='off')


# --- holes ---

@pytest.fixture
def sparse(vm, work):
    """A disk with data in its third and fourth MiB, exported."""
    path = with_data(work / 'd.raw', 2 * ferry.MIB, 2 * ferry.MIB)
    vm.add_file(path, node_name='disk', discard='unmap')
    return ferry.nbd_connect(vm.export('disk'), 'base:allocation')


def test_holes_of_the_file_are_holes_of_the_disk(sparse):
    assert extents(sparse) == [(2 * ferry.MIB, True), (2 * ferry.MIB, False), (4 * ferry.MIB, True)]


def test_remembered_extents_follow_writes_zeroes_and_discards(sparse):
    """Each change comes right after a question whose answer it makes wrong."""
    assert extents(sparse)[0] == (2 * ferry.MIB, True)
    sparse.pwrite(b'n' * ferry.MIB, 0)
    assert extents(sparse) == [(ferry.MIB, False), (ferry.MIB, True), (2 * ferry.MIB, False), (4 * ferry.MIB, True)]
    sparse.trim(ferry.MIB, 2 * ferry.MIB)
    assert extents(sparse) == [(ferry.MIB, False), (2 * ferry.MIB, True), (ferry.MIB, False), (4 * ferry.MIB, True)]
    sparse.zero(ferry.MIB, 3 * ferry.MIB)
    assert extents(sparse) == [(ferry.MIB, False), (7 * ferry.MIB, True)]
    sparse.zero(ferry.MIB, 3 * ferry.MIB, nbd.CMD_FLAG_NO_HOLE)
    sparse.pwrite(b'e' * 4096, SIZE - 4096)
    assert extents(sparse)[-1] == (4096, False)


def test_one_extent_is_asked_for_once(vm, work, need):
    """Many questions about parts of one extent are one lseek() for data and one for its end."""
    need.tool('strace')
    path = ferry.make_image(work / 'd.raw', 64 * ferry.MIB)
    with open(path, 'r+b') as file:
        file.write(b'd' * 64 * ferry.MIB)
    vm.add_file(path, node_name='disk')
    handle = ferry.nbd_connect(vm.export('disk'), 'base:allocation')
    log = work / 'calls'
    with subprocess.Popen([shutil.which('strace'), '-f', '-e', 'trace=lseek', '-o', log, '-p', str(vm.pid)],
                          stderr=subprocess.PIPE, text=True) as tracer:
        line = tracer.stderr.readline()
        need.that('attached' in line, f'strace cannot attach: {line.strip()}')
        for at in range(64):
            handle.block_status(ferry.MIB, at * ferry.MIB, lambda *_: 0)
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=60)
    calls = [line for line in log.read_text().splitlines() if 'SEEK_DATA' in line]
    assert len(calls) == 1, calls
