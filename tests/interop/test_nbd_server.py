# SPDX-License-Identifier: GPL-2.0-or-later
"""The NBD server serves every client there is: stock QEMU's tools, libnbd's, fio; and keeps its promises to them."""
import errno
import json
import os
import shutil
import socket
import struct
import subprocess
import threading

import pytest

import ferry

SIZE = 16 * ferry.MIB
IMAGE_DATA = 4 * ferry.MIB
nbd = pytest.importorskip('nbd', reason='python3-libnbd is not installed')


@pytest.fixture
def disk(vm, work):
    """(URI of a writable export of a half-empty raw image, the image)."""
    path = ferry.make_image(work / 'disk.raw', SIZE, seed=1, data=IMAGE_DATA)
    vm.add_file(path, node_name='disk', discard='unmap')
    return vm.export('disk'), path


def start_server(vm, work, **options):
    path = str(work / 'server.sock')
    vm.cmd('nbd-server-start', {'addr': {'type': 'unix', 'data': {'path': path}},
                                **{k.replace('_', '-'): v for k, v in options.items()}})
    return path


# --- tools ---

def test_qemu_img_finds_the_same_bytes(disk):
    uri, path = disk
    ferry.qemu_img('compare', '-f', 'raw', '-F', 'raw', path, uri)


def test_qemu_img_copies_in_and_out(disk, work):
    uri, path = disk
    new = ferry.make_image(work / 'new.raw', SIZE, seed=2, data=SIZE // 2)
    ferry.qemu_img('convert', '-n', '-f', 'raw', '-O', 'raw', new, uri)
    ferry.qemu_img('convert', '-f', 'raw', '-O', 'qcow2', uri, work / 'out.qcow2')
    ferry.compare(new, work / 'out.qcow2', b_fmt='qcow2')


def test_qemu_io_verifies_what_it_wrote(disk):
    uri, _ = disk
    out = ferry.qemu_io(uri, 'write -P 1 0 3M', 'write -z -u 1M 64k', 'discard 2M 64k', 'write -f -P 9 12345 999',
                        'flush', 'read -P 9 12345 999', 'read -P 0 1M 64k', 'read -P 1 1114112 64k')
    assert 'verification failed' not in out


def test_nbdcopy_keeps_holes(disk, work):
    uri, path = disk
    subprocess.run(['nbdcopy', uri, work / 'copy.raw'], check=True, timeout=60)
    ferry.compare(path, work / 'copy.raw')
    assert ferry.allocated(work / 'copy.raw') <= ferry.allocated(path) + ferry.MIB


def test_nbdcopy_fills_from_several_connections(disk, work):
    uri, path = disk
    new = ferry.make_image(work / 'new.raw', SIZE, seed=3, data=SIZE)
    subprocess.run(['nbdcopy', '--connections=4', '--flush', new, uri], check=True, timeout=60)
    ferry.compare(new, path)


def test_nbdinfo_tells_what_the_export_can(vm, disk, work):
    uri, _ = disk
    info = json.loads(subprocess.run(['nbdinfo', '--json', uri], check=True, capture_output=True, timeout=60).stdout)
    export = info['exports'][0]
    assert export['export-size'] == SIZE
    for ability in ('can_flush', 'can_fua', 'can_trim', 'can_zero', 'can_fast_zero', 'can_multi_conn', 'can_cache', 'can_df'):
        assert export[ability] is True, ability
    assert export['is_read_only'] is False
    assert 'base:allocation' in export['contexts']
    assert info['structured'] is True


def test_nbdsh_reads_what_it_wrote(disk, need):
    need.tool('nbdsh')
    uri, path = disk
    script = ['h.pwrite(b"sh" * 2048, 4096)', 'h.flush()', 'seen = []',
              'h.block_status(h.get_size(), 0, lambda name, offset, entries, error: seen.append((name, entries[1])) and 0)',
              'print(h.get_size(), bytes(h.pread(4, 4096)), seen[0])']
    done = subprocess.run(['nbdsh', '--base-allocation', '-u', uri, *(word for line in script for word in ('-c', line))],
                          capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, 'PATH': '/usr/bin:/bin'})      # the python that libnbd is installed for
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{SIZE} {b'shsh'} {('base:allocation', 0)}\n"
    assert path.read_bytes()[4096:8192] == b'sh' * 2048


def test_fio_reads_back_what_it_wrote(disk, need):
    need.tool('fio')
    engines = subprocess.run(['fio', '--enghelp'], capture_output=True, text=True, check=False).stdout
    need.that('nbd' in engines.split(), 'fio has no nbd engine')
    uri, _ = disk
    subprocess.run(['fio', '--name=t', '--ioengine=nbd', f'--uri={uri}', '--rw=randrw', '--bs=4k', '--iodepth=16',
                    '--size=8M', '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--randseed=1'],
                   check=True, timeout=120, stdout=subprocess.DEVNULL)


def test_the_kernels_client_reads_and_writes(disk, vm, need):
    need.root()
    need.tool('nbd-client')
    if shutil.which('modprobe'):
        subprocess.run(['modprobe', 'nbd'], check=False, stderr=subprocess.DEVNULL)
    free = [n for n in range(16) if os.path.exists(f'/dev/nbd{n}') and not os.path.exists(f'/sys/block/nbd{n}/pid')]
    need.that(free, 'the kernel has no nbd')
    device = f'/dev/nbd{free[-1]}'
    uri, path = disk
    ferry.images.run_tool('nbd-client', '-unix', uri.split('socket=')[1], device, '-N', 'disk')
    try:
        ferry.qemu_io(device, 'write -P 0x6b 1M 64k', 'flush')
    finally:
        ferry.images.run_tool('nbd-client', '-d', device)
    assert ferry.nbd_connect(uri).pread(65536, ferry.MIB) == b'\x6b' * 65536


# --- exports ---

def test_export_list_has_names_and_descriptions(vm, work):
    vm.add('null-co', 'n0', size=SIZE)
    path = start_server(vm, work)
    vm.cmd('block-export-add', type='nbd', id='e0', node_name='n0', name='first', description='the first one')
    vm.cmd('block-export-add', type='nbd', id='e1', node_name='n0')
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.connect_unix(path)
    seen = []
    handle.opt_list(lambda name, description: seen.append((name, description)) or 0)
    handle.opt_abort()
    assert seen == [('first', 'the first one'), ('n0', '')]


def test_unknown_export_is_refused(vm, disk):
    uri, _ = disk
    with pytest.raises(nbd.Error):
        ferry.nbd_connect(uri.replace('/disk?', '/nosuch?'))
    ferry.nbd_connect(uri).shutdown()


def test_read_only_export_refuses_changes(vm, work):
    vm.add('null-co', 'n0', size=SIZE)
    handle = ferry.nbd_connect(vm.export('n0', writable=False), strict=False)
    assert handle.is_read_only()
    assert ferry.nbd_failure(handle.pwrite, b'x' * 512, 0) == errno.EPERM
    assert ferry.nbd_failure(handle.trim, 512, 0) == errno.EPERM
    assert ferry.nbd_failure(handle.zero, 512, 0) == errno.EPERM
    assert handle.pread(512, 0) is not None


def test_export_of_read_only_node_cannot_be_writable(vm, work):
    path = ferry.make_image(work / 'd.raw', ferry.MIB)
    vm.add_file(path, node_name='ro', read_only=True)
    start_server(vm, work)
    with pytest.raises(ferry.QMPError, match='read-only'):
        vm.cmd('block-export-add', type='nbd', id='e', node_name='ro', writable=True)
    assert vm.cmd('query-block-exports') == []


def test_wrong_exports_are_refused_with_a_reason(vm, work):
    vm.add('null-co', 'n0', size=SIZE)
    with pytest.raises(ferry.QMPError, match='NBD server not running'):
        vm.cmd('block-export-add', type='nbd', id='e', node_name='n0')
    start_server(vm, work)
    vm.cmd('block-export-add', type='nbd', id='e', node_name='n0', name='x')
    with pytest.raises(ferry.QMPError, match="Block export id 'e' is already in use"):
        vm.cmd('block-export-add', type='nbd', id='e', node_name='n0', name='y')
    with pytest.raises(ferry.QMPError, match="already has export named 'x'"):
        vm.cmd('block-export-add', type='nbd', id='f', node_name='n0', name='x')
    with pytest.raises(ferry.QMPError, match='nosuch'):
        vm.cmd('block-export-add', type='nbd', id='f', node_name='nosuch')
    with pytest.raises(ferry.QMPError, match='too long'):
        vm.cmd('block-export-add', type='nbd', id='f', node_name='n0', name='n' * 4097)
    with pytest.raises(ferry.QMPError, match='already running'):
        start_server(vm, work)
    with pytest.raises(ferry.QMPError, match="Export 'g' is not found"):
        vm.cmd('block-export-del', id='g')
    assert [e['id'] for e in vm.cmd('query-block-exports')] == ['e']


def test_exported_node_cannot_be_deleted(vm, work):
    vm.add('null-co', 'n0', size=SIZE)
    vm.export('n0', 'x')
    with pytest.raises(ferry.QMPError, match='in use'):
        vm.cmd('blockdev-del', node_name='n0')


def test_safe_removal_never_waits_and_hard_removal_disconnects(vm, disk):
    uri, _ = disk
    handle = ferry.nbd_connect(uri)
    with pytest.raises(ferry.QMPError, match='still in use'):
        vm.cmd('block-export-del', id='export-disk')
    assert len(handle.pread(512, 0)) == 512
    vm.cmd('block-export-del', id='export-disk', mode='hard')
    vm.wait('BLOCK_EXPORT_DELETED', id='export-disk')
    with pytest.raises(nbd.Error):
        handle.pread(512, 0)
    assert vm.cmd('query-block-exports') == []


def test_stop_disconnects_and_removes_all(vm, disk, work):
    uri, _ = disk
    handle = ferry.nbd_connect(uri)
    vm.cmd('nbd-server-stop')
    vm.wait('BLOCK_EXPORT_DELETED', id='export-disk')
    with pytest.raises(nbd.Error):
        handle.pread(512, 0)
    assert vm.cmd('query-block-exports') == []
    with pytest.raises(ferry.QMPError, match='not running'):
        vm.cmd('nbd-server-stop')
    path = start_server(vm, work)
    vm.cmd('block-export-add', type='nbd', id='again', node_name='disk', name='disk')
    ferry.nbd_connect(f'nbd+unix:///disk?socket={path}').shutdown()


def test_older_commands_work(vm, work):
    vm.add('null-co', 'n0', size=SIZE)
    path = start_server(vm, work)
    vm.cmd('nbd-server-add', device='n0', writable=True)
    handle = ferry.nbd_connect(f'nbd+unix:///n0?socket={path}')
    assert not handle.is_read_only()
    handle.shutdown()
    vm.cmd('nbd-server-remove', name='n0', mode='hard')
    vm.wait('BLOCK_EXPORT_DELETED', id='n0')


def test_tcp_listens_where_it_was_told(vm):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    vm.add('null-co', 'n0', size=SIZE)
    vm.cmd('nbd-server-start', addr={'type': 'inet', 'data': {'host': '127.0.0.1', 'port': str(port)}})
    vm.cmd('block-export-add', type='nbd', id='e', node_name='n0', name='x')
    handle = ferry.nbd_connect(f'nbd://127.0.0.1:{port}/x')
    assert handle.get_size() == SIZE


def test_address_in_use_is_an_error_with_the_address(vm, work):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        with pytest.raises(ferry.QMPError, match='[Aa]ddress already in use'):
            vm.cmd('nbd-server-start', addr={'type': 'inet', 'data': {'host': '127.0.0.1',
                                                                      'port': str(taken.getsockname()[1])}})
    start_server(vm, work)


# --- requests ---

def test_requests_outside_the_export_fail_and_nothing_else(disk):
    uri, _ = disk
    handle = ferry.nbd_connect(uri, strict=False)
    assert ferry.nbd_failure(handle.pread, 512, SIZE) == errno.EINVAL
    assert ferry.nbd_failure(handle.pwrite, b'x' * 512, SIZE - 1) == errno.ENOSPC
    assert ferry.nbd_failure(handle.zero, 1024, SIZE - 512) == errno.ENOSPC
    assert ferry.nbd_failure(handle.trim, 1024, SIZE - 512) == errno.EINVAL
    assert ferry.nbd_failure(handle.pread, 512, 1 << 62) == errno.EINVAL
    assert len(handle.pread(512, SIZE - 512)) == 512


def test_largest_requests_pass(vm):
    vm.add('null-co', 'n0', size=128 * ferry.MIB, read_zeroes=True)
    handle = ferry.nbd_connect(vm.export('n0'))
    assert len(handle.pread(32 * ferry.MIB, 0)) == 32 * ferry.MIB
    handle.pwrite(bytes(32 * ferry.MIB), 1)
    assert handle.get_block_size(nbd.SIZE_MAXIMUM) == 32 * ferry.MIB


def test_zero_and_trim_of_several_gigabytes_pass(vm):
    vm.add('null-co', 'n0', size=8 << 30)
    handle = ferry.nbd_connect(vm.export('n0'))
    handle.zero((4 << 30) - 512, 0)
    handle.trim((4 << 30) - 512, 4096)


def test_cache_requests_change_nothing_and_know_their_bounds(disk):
    uri, path = disk
    before = path.read_bytes()
    handle = ferry.nbd_connect(uri, strict=False)
    for offset, length in ((0, SIZE), (511, 1025), (SIZE - 1, 1), (4096, ferry.MIB)):
        handle.cache(length, offset)
    assert ferry.nbd_failure(handle.cache, 512, SIZE) == errno.EINVAL
    assert ferry.nbd_failure(handle.cache, 1024, SIZE - 512) == errno.EINVAL
    assert ferry.nbd_failure(handle.cache, 1, 1 << 62) == errno.EINVAL
    assert handle.pread(ferry.MIB, 0) == before[:ferry.MIB]
    handle.shutdown()
    assert path.read_bytes() == before


def test_cache_request_fetches_what_copy_on_read_keeps(vm, work, nbdkit, need):
    """The bytes are below the disk afterwards: the server of its backing file may go."""
    need.tool('nbdkit')
    base = ferry.make_image(work / 'base.raw', SIZE, seed=4, data=SIZE)
    server = nbdkit('file', str(base))
    top = ferry.make_image(work / 'top.qcow2', SIZE, 'qcow2')
    vm.cmd('blockdev-add', server.node('base'))
    vm.add('copy-on-read', 'disk', file={'driver': 'qcow2', 'file': {'driver': 'file', 'filename': str(top)}, 'backing': 'base'})
    handle = ferry.nbd_connect(vm.export('disk'))
    handle.cache(ferry.MIB, ferry.MIB)
    server.kill()
    assert handle.pread(ferry.MIB, ferry.MIB) == base.read_bytes()[ferry.MIB:2 * ferry.MIB]


# --- dirty bitmaps ---

GRAIN = 65536


def dirty_by_nbdinfo(uri, name):
    """Dirty (offset, length) of a bitmap as libnbd's tool sees them."""
    out = subprocess.run(['nbdinfo', '--json', f'--map=qemu:dirty-bitmap:{name}', uri], check=True, capture_output=True,
                         timeout=60).stdout
    return [(e['offset'], e['length']) for e in json.loads(out) if e['type'] == 1]


def dirty_by_qemu_img(uri, name):
    """The same as stock qemu-img sees them: with x-dirty-bitmap what is dirty reads as holes."""
    path = uri.split('socket=')[1]
    out = ferry.qemu_img('map', '--output=json', '--image-opts',
                         f'driver=nbd,server.type=unix,server.path={path},export=disk,x-dirty-bitmap=qemu:dirty-bitmap:{name}')
    merged = []
    for entry in json.loads(out):
        if not entry['data']:
            if merged and sum(merged[-1]) == entry['start']:
                merged[-1] = (merged[-1][0], merged[-1][1] + entry['length'])
            else:
                merged.append((entry['start'], entry['length']))
    return merged


@pytest.fixture
def bitmap_export(vm, work):
    """Writes are recorded in bitmap b; exported with it and with the empty bitmap e. Returns the URI."""
    vm.add('null-co', 'disk', size=SIZE)
    vm.cmd('block-dirty-bitmap-add', node='disk', name='b', granularity=GRAIN)
    handle = ferry.nbd_connect(vm.export('disk', name='plain'))
    for offset, length in ((0, 1), (3 * GRAIN - 1, 2), (ferry.MIB, ferry.MIB), (SIZE - 5, 5)):
        handle.pwrite(b'w' * length, offset)
    handle.shutdown()
    vm.cmd('block-dirty-bitmap-disable', node='disk', name='b')
    vm.cmd('block-dirty-bitmap-add', node='disk', name='e', disabled=True)
    vm.cmd('block-export-add', type='nbd', id='with', node_name='disk', name='disk', bitmaps=['b', {'node': 'disk', 'name': 'e'}])
    return f'nbd+unix:///disk?socket={vm.workdir}/{vm.name}.nbd'


def test_dirty_bitmap_is_served_as_it_is(bitmap_export):
    expected = [(0, GRAIN), (2 * GRAIN, 2 * GRAIN), (ferry.MIB, ferry.MIB), (SIZE - GRAIN, GRAIN)]
    assert dirty_by_nbdinfo(bitmap_export, 'b') == expected
    assert dirty_by_qemu_img(bitmap_export, 'b') == expected
    assert dirty_by_nbdinfo(bitmap_export, 'e') == []
    assert dirty_by_qemu_img(bitmap_export, 'e') == []


def test_dirty_bitmap_is_an_offer_and_only_where_it_was_exported(bitmap_export):
    def contexts(uri):
        info = json.loads(subprocess.run(['nbdinfo', '--json', uri], check=True, capture_output=True, timeout=60).stdout)
        return [c for c in info['exports'][0]['contexts'] if c.startswith('qemu:')]
    assert sorted(contexts(bitmap_export)) == ['qemu:dirty-bitmap:b', 'qemu:dirty-bitmap:e']
    assert contexts(bitmap_export.replace('/disk?', '/plain?')) == []
    assert not ferry.nbd_connect(bitmap_export, 'qemu:dirty-bitmap:none').can_meta_context('qemu:dirty-bitmap:none')


def test_dirty_bitmap_that_is_served_cannot_be_removed(vm, bitmap_export):
    with pytest.raises(ferry.QMPError, match='in use'):
        vm.cmd('block-dirty-bitmap-remove', node='disk', name='b')
    vm.cmd('block-export-del', id='with')
    vm.wait('BLOCK_EXPORT_DELETED', id='with')
    vm.cmd('block-dirty-bitmap-remove', node='disk', name='b')


def test_both_contexts_at_once_answer_for_themselves(bitmap_export):
    handle = ferry.nbd_connect(bitmap_export, 'base:allocation', 'qemu:dirty-bitmap:b')
    seen = {}
    handle.block_status(GRAIN * 4, 0, lambda name, offset, entries, error: seen.setdefault(name, list(entries)) and 0)
    assert seen['qemu:dirty-bitmap:b'][:6] == [GRAIN, 1, GRAIN, 0, 2 * GRAIN, 1]
    assert sorted(seen) == ['base:allocation', 'qemu:dirty-bitmap:b']
    assert seen['base:allocation'][0] >= GRAIN


def test_unaligned_writes_leave_neighbours_alone(disk):
    uri, path = disk
    before = path.read_bytes()
    handle = ferry.nbd_connect(uri)
    handle.pwrite(b'a' * 1000, 511)
    handle.zero(3333, 7777)
    handle.flush()
    want = bytearray(before)
    want[511:1511] = b'a' * 1000
    want[7777:7777 + 3333] = bytes(3333)
    assert handle.pread(65536, 0) == want[:65536]
    assert path.read_bytes() == want


def test_writes_are_seen_by_other_connections_and_flush_covers_all(disk):
    uri, path = disk
    one, two = ferry.nbd_connect(uri), ferry.nbd_connect(uri)
    assert one.can_multi_conn()
    one.pwrite(b'1' * 4096, 0)
    assert two.pread(4096, 0) == b'1' * 4096
    two.flush()
    assert path.read_bytes()[:4096] == b'1' * 4096


def test_no_hole_keeps_the_space_and_other_zeroes_return_it(disk):
    uri, path = disk
    handle = ferry.nbd_connect(uri)
    handle.pwrite(b'x' * SIZE, 0)
    handle.zero(SIZE // 2, 0, nbd.CMD_FLAG_NO_HOLE)
    handle.flush()
    assert ferry.allocated(path) >= SIZE
    handle.zero(SIZE // 2, 0)
    handle.flush()
    assert ferry.allocated(path) <= SIZE // 2
    assert path.read_bytes() == bytes(SIZE // 2) + b'x' * (SIZE // 2)


def test_read_sends_holes_as_holes(disk):
    uri, path = disk
    handle = ferry.nbd_connect(uri)
    handle.zero(ferry.MIB, ferry.MIB)
    handle.pwrite(b'x' * ferry.MIB, 0)
    pieces = []
    data = handle.pread_structured(2 * ferry.MIB, 0, lambda buf, off, status, err: pieces.append(
        (off, len(buf), status)) or 0)
    assert data == b'x' * ferry.MIB + bytes(ferry.MIB)
    assert (ferry.MIB, ferry.MIB, nbd.READ_HOLE) in pieces
    pieces.clear()
    handle.pread_structured(2 * ferry.MIB, 0, lambda buf, off, status, err: pieces.append(
        (off, len(buf), status)) or 0, nbd.CMD_FLAG_DF)
    assert pieces == [(0, 2 * ferry.MIB, nbd.READ_DATA)]


def test_block_status_describes_data_and_holes(disk):
    uri, _ = disk
    handle = ferry.nbd_connect(uri, 'base:allocation')
    handle.zero(SIZE, 0)
    handle.pwrite(b'x' * 65536, ferry.MIB)
    extents = []
    handle.block_status(SIZE, 0, lambda name, off, entries, err: extents.append((name, off, list(entries))) or 0)
    assert extents == [('base:allocation', 0, [ferry.MIB, 3, 65536, 0, SIZE - ferry.MIB - 65536, 3])]
    extents.clear()
    handle.block_status(SIZE, 0, lambda name, off, entries, err: extents.append(list(entries)) or 0,
                        nbd.CMD_FLAG_REQ_ONE)
    assert extents == [[ferry.MIB, 3]]


def test_simple_replies_serve_clients_without_structured_ones(disk):
    uri, path = disk
    handle = nbd.NBD()
    handle.set_request_structured_replies(False)
    handle.connect_uri(uri)
    assert handle.pread(SIZE, 0) == path.read_bytes()
    handle.pwrite(b'z' * 4096, 4096)
    assert handle.pread(4096, 4096) == b'z' * 4096


def test_many_requests_in_flight_come_back_right(disk):
    uri, path = disk
    want = path.read_bytes()
    handle = ferry.nbd_connect(uri)
    buffers = []
    for i in range(256):
        offset = (i * 37 % 256) * 65536
        buf = nbd.Buffer(65536)
        buffers.append((offset, buf, handle.aio_pread(buf, offset)))
    for offset, buf, cookie in buffers:
        while not handle.aio_command_completed(cookie):
            handle.poll(-1)
        assert buf.to_bytearray() == want[offset:offset + 65536]


def test_client_that_does_not_read_replies_holds_up_no_other(vm, disk):
    uri, _ = disk
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(uri.split('socket=')[1])
    sock.recv(18, socket.MSG_WAITALL)
    sock.sendall(struct.pack('>IQII', 3, 0x49484156454f5054, 1, 4) + b'disk')
    sock.recv(10, socket.MSG_WAITALL)
    sock.settimeout(1)
    sent = 0
    try:
        for cookie in range(4000):
            sock.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 0, cookie, 0, ferry.MIB))
            sent += 1
    except TimeoutError:
        pass
    other = ferry.nbd_connect(uri)
    assert len(other.pread(4096, 0)) == 4096
    vm.cmd('block-dirty-bitmap-add', node='disk', name='b')     # needs a drained section
    assert vm.memory_kib() < 400 * 1024
    sock.close()


# --- the handshake ---

def test_more_clients_than_allowed_wait(vm, work):
    vm.add('null-co', 'n0', size=SIZE)
    path = start_server(vm, work, max_connections=1)
    vm.cmd('block-export-add', type='nbd', id='e', node_name='n0', name='x')
    uri = f'nbd+unix:///x?socket={path}'
    first = ferry.nbd_connect(uri)
    done = threading.Event()
    second = threading.Thread(target=lambda: (ferry.nbd_connect(uri), done.set()))
    second.start()
    assert not done.wait(0.3)
    first.shutdown()
    second.join(60)
    assert done.is_set()


def test_idle_client_is_dropped_after_the_handshake_deadline(vm, work):
    path = start_server(vm, work, handshake_max_seconds=1)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.settimeout(60)
    assert len(sock.recv(18, socket.MSG_WAITALL)) == 18
    assert sock.recv(1) == b''


def test_deadline_does_not_touch_a_client_that_has_chosen(vm, work):
    vm.add('null-co', 'n0', size=SIZE)
    path = start_server(vm, work, handshake_max_seconds=1)
    vm.cmd('block-export-add', type='nbd', id='e', node_name='n0', name='x')
    handle = ferry.nbd_connect(f'nbd+unix:///x?socket={path}')
    idle = socket.socket(socket.AF_UNIX)
    idle.connect(path)
    idle.settimeout(60)
    while idle.recv(18):
        pass                                    # a later client's deadline has passed
    assert len(handle.pread(512, 0)) == 512


@pytest.mark.parametrize('spoilt', [
    struct.pack('>I', 0xff),                                             # unknown client flags
    struct.pack('>I', 3) + b'\0' * 16,                                   # no option magic
    struct.pack('>IQII', 3, 0x49484156454f5054, 7, 0xffffffff),          # an option of 4 GiB
    struct.pack('>IQII', 3, 0x49484156454f5054, 1, 5) + b'\0\0\0\0\0',   # a name of NULs
    struct.pack('>IQII', 0, 0x49484156454f5054, 3, 0),                   # an option that needs fixed newstyle
], ids=['flags', 'magic', 'huge', 'nul-name', 'nonfixed'])
def test_spoilt_handshake_ends_the_connection_only(disk, spoilt):
    uri, _ = disk
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(uri.split('socket=')[1])
    sock.settimeout(60)
    sock.recv(18, socket.MSG_WAITALL)
    sock.sendall(spoilt)
    while sock.recv(4096):
        pass
    assert len(ferry.nbd_connect(uri).pread(512, 0)) == 512


@pytest.mark.parametrize('option,data', [
    (3, b'x'),                                          # LIST with data
    (7, b''), (7, struct.pack('>I', 100) + b'abc'),     # GO cut short
    (7, struct.pack('>I', 4) + b'disk' + struct.pack('>H', 9)),
    (8, b'x'),                                          # STRUCTURED_REPLY with data
    (10, struct.pack('>I', 4) + b'disk' + struct.pack('>I', 0xffffffff)),
    (9, struct.pack('>I', 0xfffffff0)),
], ids=['list', 'go-empty', 'go-name', 'go-infos', 'structured', 'queries', 'context-name'])
def test_malformed_option_is_answered(disk, option, data):
    uri, _ = disk
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(uri.split('socket=')[1])
    sock.settimeout(60)
    sock.recv(18, socket.MSG_WAITALL)
    magic = 0x49484156454f5054
    sock.sendall(struct.pack('>IQII', 3, magic, option, len(data)) + data)
    head = sock.recv(20, socket.MSG_WAITALL)
    rep, number, kind, length = struct.unpack('>QIII', head)
    assert (rep, number, kind) == (0x3e889045565a9, option, 0x80000003)
    sock.recv(length, socket.MSG_WAITALL)
    sock.sendall(struct.pack('>QII', magic, 2, 0))      # the conversation goes on: ABORT is acknowledged
    assert struct.unpack('>QIII', sock.recv(20, socket.MSG_WAITALL))[1:3] == (2, 1)


def test_oversized_write_ends_the_connection_only(disk):
    uri, _ = disk
    handle = ferry.nbd_connect(uri, strict=False)
    with pytest.raises(nbd.Error):
        handle.pwrite(bytes(33 * ferry.MIB - 1), 0)
        handle.pread(512, 0)
    assert len(ferry.nbd_connect(uri).pread(512, 0)) == 512
