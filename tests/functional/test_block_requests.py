# SPDX-License-Identifier: GPL-2.0-or-later
"""What the request path promises: any byte range, order where requests overlap, zeroes, discards, sizes, and
permissions."""
import random
import threading

import pytest

import ferry

SIZE = 2 * ferry.MIB
ALIGN = 4096


def blkdebug(path, **options):
    return {'driver': 'blkdebug', 'image': {'driver': 'file', 'filename': str(path)}, **options}


@pytest.fixture
def path(work):
    return ferry.make_image(work / 'disk.raw', SIZE)


def test_unaligned_requests_on_an_aligned_disk(vm, path):
    """Against a record in memory, over a node that takes only whole 4 KiB blocks and short requests."""
    vm.add('raw', 'disk', file=blkdebug(path, **{'align': ALIGN, 'max-transfer': 16 * ALIGN}))
    handle = ferry.nbd_connect(vm.export('disk'))
    rng = random.Random(5)
    print('seed 5')
    record = bytearray(SIZE)
    for _ in range(400):
        length = rng.choice((1, 511, 512, 4095, 4096, 4097, 70000, 200000))
        offset = rng.randrange(SIZE - length)
        kind = rng.randrange(4)
        if kind == 0:
            handle.zero(length, offset)
            record[offset:offset + length] = bytes(length)
        elif kind == 1:
            assert handle.pread(length, offset) == record[offset:offset + length]
        else:
            data = rng.randbytes(length)
            handle.pwrite(data, offset)
            record[offset:offset + length] = data
    handle.flush()
    handle.shutdown()
    vm.quit()
    assert path.read_bytes() == bytes(record)


def test_neighbours_in_one_block_do_not_undo_each_other(vm, path):
    """Writers of bytes that share blocks force read-modify-write cycles of each other's data."""
    vm.add('raw', 'disk', file=blkdebug(path, align=ALIGN))
    uri = vm.export('disk')
    failures = []

    def write(index, of=4, step=512):
        try:
            handle = ferry.nbd_connect(uri)
            for offset in range(index * step, SIZE // 8, of * step):
                handle.pwrite(bytes([index + 1]) * step, offset)
            handle.shutdown()
        except Exception as error:      # reported below
            failures.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    vm.quit()
    assert path.read_bytes()[:SIZE // 8] == b''.join(bytes([i + 1]) * 512 for i in range(4)) * (SIZE // 8 // 2048)


def test_unaligned_write_waits_for_the_one_it_overlaps(vm, path):
    vm.add('raw', 'disk', file=blkdebug(path, align=ALIGN))
    vm.qemu_io('disk', 'break pwritev_rmw_after_head A')
    vm.qemu_io('disk', 'aio_write -P 1 512 512')       # has read its block, has not written it
    vm.qemu_io('disk', 'wait_break A')
    before = len(vm.stderr())
    vm.qemu_io('disk', 'aio_write -P 2 1024 512')      # the same block
    vm.qemu_io('disk', 'aio_write -P 3 8k 4k')         # another one
    assert 'wrote 512/512 bytes at offset 1024' not in vm.stderr()[before:]
    vm.qemu_io('disk', 'resume A')
    vm.qemu_io('disk', 'aio_flush')
    for command in ('read -P 1 512 512', 'read -P 2 1k 512', 'read -P 0 0 512', 'read -P 3 8k 4k'):
        assert 'failed' not in vm.qemu_io('disk', command)


def test_drained_change_waits_for_a_stopped_request(vm, path):
    vm.add('raw', 'disk', file=blkdebug(path))
    vm.qemu_io('disk', 'break write_aio A')
    vm.qemu_io('disk', 'aio_write -P 1 0 4k')
    vm.qemu_io('disk', 'wait_break A')
    assert 'failed' not in vm.qemu_io('disk', 'read -P 0 0 4k')     # not written yet
    vm.qemu_io('disk', 'resume A')
    vm.qemu_io('disk', 'aio_flush')
    vm.cmd('block_resize', node_name='disk', size=SIZE // 2)
    assert 'failed' not in vm.qemu_io('disk', 'read -P 1 0 4k')


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
@pytest.mark.parametrize('mode, discard, zeroed', [('off', 'unmap', False), ('on', 'ignore', True), ('unmap', 'unmap', True)])
def test_detect_zeroes(vm, work, fmt, mode, discard, zeroed):
    path = ferry.make_image(work / 'disk', SIZE, fmt)
    vm.add(fmt, 'disk', file={'driver': 'file', 'filename': str(path), 'discard': discard}, discard=discard,
           **{'detect-zeroes': mode})
    vm.qemu_io('disk', 'write -P 1 0 1M')
    vm.qemu_io('disk', 'write -P 0 0 1M')
    vm.qemu_io('disk', 'write -P 1 512k 512')
    assert 'failed' not in vm.qemu_io('disk', 'read -P 0 0 512k')
    vm.quit()
    if fmt == 'qcow2':
        assert ferry.map_image(path, fmt)[0]['zero'] == zeroed
    else:
        assert (ferry.allocated(path) < ferry.MIB) == (mode == 'unmap')


@pytest.mark.parametrize('discard', ['unmap', 'ignore'])
def test_discard(vm, path, discard):
    vm.add('raw', 'disk', discard=discard, file={'driver': 'file', 'filename': str(path), 'discard': discard})
    vm.qemu_io('disk', 'write -P 1 0 2M')
    handle = ferry.nbd_connect(vm.export('disk'))
    handle.trim(ferry.MIB, 0)
    handle.trim(700, 1536 * 1024 + 100)        # less than a block: what is around it stays
    handle.shutdown()
    for command in ('read -P 1 1M 524388', 'read -P 1 1573664 500k'):
        assert 'failed' not in vm.qemu_io('disk', command)
    assert ferry.allocated(path) == (ferry.MIB if discard == 'unmap' else SIZE)


def test_write_zeroes_may_or_may_not_unmap(vm, path):
    vm.add('raw', 'disk', discard='unmap', file={'driver': 'file', 'filename': str(path), 'discard': 'unmap'})
    vm.qemu_io('disk', 'write -P 1 0 2M')
    vm.qemu_io('disk', 'write -z 0 512k')
    vm.qemu_io('disk', 'write -z 1000 100')
    assert ferry.allocated(path) == SIZE
    vm.qemu_io('disk', 'write -z -u 512k 512k')
    assert ferry.allocated(path) == SIZE - 512 * 1024
    assert 'failed' not in vm.qemu_io('disk', 'read -P 0 0 1M')
    assert 'failed' not in vm.qemu_io('disk', 'read -P 1 1M 1M')


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_resize_under_load(vm, work, fmt):
    path = ferry.make_image(work / 'disk', SIZE, fmt)
    vm.add_file(path, fmt, node_name='disk')
    blocks = SIZE // 65536
    for step in range(1, 4):
        for block in range(step - 1, blocks, 3):
            vm.qemu_io('disk', f'aio_write -q -P {step} {block * 65536} 64k')
        vm.cmd('block_resize', node_name='disk', size=SIZE + step * ferry.MIB)
    vm.qemu_io('disk', 'aio_flush')
    assert 'failed' not in vm.qemu_io('disk', f'read -P 0 {SIZE} 3M')
    vm.cmd('block_resize', node_name='disk', size=SIZE)
    for size, message in ((-1, "size"), (1 << 63, 'size|Invalid|integer')):
        with pytest.raises(ferry.QMPError, match=message):
            vm.cmd('block_resize', node_name='disk', size=size)
    vm.quit()
    assert ferry.read_raw(path, fmt)[:] == b''.join(bytes([1 + block % 3]) * 65536 for block in range(blocks))


@pytest.mark.parametrize('writable', [True, False])
@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_the_size_that_clients_were_told_stays(vm, work, fmt, writable):
    vm.add_file(ferry.make_image(work / 'disk', SIZE, fmt), fmt, node_name='disk')
    vm.export('disk', writable=writable)
    with pytest.raises(ferry.QMPError, match="'resize' .* required by block_resize .* unshared by NBD export 'disk'"):
        vm.cmd('block_resize', node_name='disk', size=2 * SIZE)
    told = vm.qemu_io('disk', f'truncate {2 * SIZE}')
    assert 'required by qemu-io ' in told and "unshared by NBD export 'disk'" in told
    vm.cmd('block-export-del', id='export-disk')
    vm.wait('BLOCK_EXPORT_DELETED')
    vm.cmd('block_resize', node_name='disk', size=2 * SIZE)


def test_a_node_that_its_user_may_resize_is_not_exported(vm, work):
    vm.add('file', 'file', filename=str(ferry.make_image(work / 'disk', SIZE, 'qcow2')))
    vm.add('qcow2', 'disk', file='file')
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(work / 'nbd')}})
    with pytest.raises(ferry.QMPError, match="'resize' .* required by node 'disk' .* unshared by export 'e'"):
        vm.cmd('block-export-add', type='nbd', id='e', node_name='file')


def test_resize_of_a_read_only_node_is_refused(vm, path):
    vm.add_file(path, node_name='disk', read_only=True)
    with pytest.raises(ferry.QMPError, match='read-only'):
        vm.cmd('block_resize', node_name='disk', size=SIZE * 2)
    assert path.stat().st_size == SIZE


def test_write_threshold_is_told_once(vm, path):
    vm.add_file(path, node_name='disk')
    handle = ferry.nbd_connect(vm.export('disk'))
    vm.cmd('block-set-write-threshold', node_name='disk', write_threshold=ferry.MIB)
    handle.pwrite(b'x' * 512, ferry.MIB - 512)
    handle.pwrite(b'x' * 1024, ferry.MIB - 512)
    event = vm.wait('BLOCK_WRITE_THRESHOLD')['data']
    assert event == {'node-name': 'disk', 'amount-exceeded': 512, 'write-threshold': ferry.MIB}
    handle.pwrite(b'x' * 512, ferry.MIB + 512)
    vm.cmd('query-block')
    assert not vm.seen('BLOCK_WRITE_THRESHOLD')
    handle.shutdown()


def test_conflict_names_both_users(vm, work):
    path = ferry.make_image(work / 'disk', SIZE, 'qcow2')
    vm.add('file', 'file', filename=str(path))
    vm.add('qcow2', 'one', file='file')
    with pytest.raises(ferry.QMPError) as failure:
        vm.add('qcow2', 'two', file='file')
    assert "node 'one'" in failure.value.desc and "node 'two'" in failure.value.desc
    assert 'write' in failure.value.desc


def test_nodes_in_use_are_not_deleted(vm, path):
    vm.add('file', 'file', filename=str(path))
    vm.add('raw', 'disk', file='file')
    vm.export('disk')
    for node in ('disk', 'file'):
        with pytest.raises(ferry.QMPError, match='in use'):
            vm.cmd('blockdev-del', node_name=node)
    with pytest.raises(ferry.QMPError, match="Failed to find node with node-name='none'"):
        vm.cmd('blockdev-del', node_name='none')
    vm.cmd('block-export-del', id='export-disk')
    vm.wait('BLOCK_EXPORT_DELETED', id='export-disk')
    vm.cmd('blockdev-del', node_name='disk')
    vm.cmd('blockdev-del', node_name='file')
    assert vm.cmd('query-named-block-nodes') == []


def test_copy_on_read_fills_the_overlay_with_what_was_read(vm, work):
    base = ferry.make_image(work / 'base.raw', SIZE, seed=7)
    top = ferry.make_image(work / 'top.qcow2', SIZE, 'qcow2', backing=base)
    vm.add('copy-on-read', 'disk', file={'driver': 'qcow2', 'node-name': 'top',
                                         'file': {'driver': 'file', 'filename': str(top)}})
    handle = ferry.nbd_connect(vm.export('disk'))
    contents = base.read_bytes()
    assert handle.pread(1000, 300000) == contents[300000:301000]
    handle.pwrite(b'x' * 512, 0)
    handle.shutdown()
    vm.quit()
    depths = {e['start'] // 65536: e['depth'] for e in ferry.map_image(top, 'qcow2')}
    assert depths[0] == 0 and depths[300000 // 65536] == 0 and 1 in depths.values()
    assert base.read_bytes() == contents
    ferry.check_qcow2(top)


def snapshot_action(device, path, name):
    return {'type': 'blockdev-snapshot-sync', 'data': {'node-name': device, 'snapshot-file': str(path), 'format': 'qcow2',
                                                       'snapshot-node-name': name}}


def test_snapshots_of_two_disks_are_one_point_in_time(vm, work):
    """A client writes a number to one disk and then to the other: the second is never ahead of the first."""
    for name in ('a', 'b'):
        vm.add_file(ferry.make_image(work / name, SIZE), node_name=name)
    first, second = (ferry.nbd_connect(vm.export(name, name=name)) for name in ('a', 'b'))
    counted, stop, failures = threading.Semaphore(0), threading.Event(), []

    def count():
        try:
            number = 0
            while not stop.is_set():
                number += 1
                for handle in (first, second):
                    handle.pwrite(number.to_bytes(8, 'little') * 64, 0)
                counted.release()
        except Exception as error:      # reported below
            failures.append(error)

    thread = threading.Thread(target=count)
    thread.start()
    for _ in range(50):
        counted.acquire()
    vm.cmd('transaction', actions=[snapshot_action('a', work / 'a.top', 'a1'), snapshot_action('b', work / 'b.top', 'b1')])
    for _ in range(50):
        counted.acquire()
    stop.set()
    thread.join()
    assert not failures
    numbers = [int.from_bytes((work / name).read_bytes()[:8], 'little') for name in ('a', 'b')]
    assert 50 <= numbers[0] <= numbers[1] + 1 and numbers[1] <= numbers[0]
    for handle in (first, second):
        assert int.from_bytes(handle.pread(8, 0), 'little') >= 100
        handle.shutdown()


def test_failed_transaction_takes_no_snapshot(vm, work):
    vm.add_file(ferry.make_image(work / 'a', SIZE), node_name='a')
    handle = ferry.nbd_connect(vm.export('a'))
    handle.pwrite(b'1' * 512, 0)
    for bad, message in (({'type': 'abort', 'data': {}}, 'aborted'), (snapshot_action('none', work / 'x', 'x'), 'none')):
        with pytest.raises(ferry.QMPError, match=message):
            vm.cmd('transaction', actions=[snapshot_action('a', work / 'a.top', 'a1'), bad])
        assert all(n['node-name'] != 'a1' for n in vm.cmd('query-named-block-nodes'))
    handle.pwrite(b'2' * 512, 512)
    handle.shutdown()
    vm.quit()
    assert (work / 'a').read_bytes()[:1024] == b'1' * 512 + b'2' * 512


def test_null_disk_shows_no_memory_of_the_process(vm):
    for driver in ('null-co', 'null-aio'):
        for zeroes, byte in ((False, b'\xa5'), (True, b'\0')):
            name = f'{driver}-{zeroes}'
            vm.add(driver, name, size=SIZE, read_zeroes=zeroes)
            client = ferry.nbd_connect(vm.export(name, name=name, writable=False))
            for offset, length in ((0, SIZE // 2), (1, 4095), (SIZE - 1, 1)):
                assert bytes(client.pread(length, offset)) == byte * length
            client.shutdown()


def test_window_of_a_raw_file_shows_its_bytes_and_spares_the_others(vm, path):
    before = bytes(range(256)) * (SIZE // 256)
    path.write_bytes(before)
    vm.add('raw', 'disk', file={'driver': 'file', 'filename': str(path)}, offset=ALIGN, size=16 * ALIGN)
    with pytest.raises(ferry.QMPError, match='Cannot resize fixed-size raw disks'):
        vm.cmd('block_resize', node_name='disk', size=8 * ALIGN)
    handle = ferry.nbd_connect(vm.export('disk'))
    assert handle.get_size() == 16 * ALIGN
    assert handle.pread(16 * ALIGN, 0) == before[ALIGN:17 * ALIGN]
    handle.pwrite(b'w' * 512, 15 * ALIGN)
    handle.zero(ALIGN, 0)
    handle.flush()
    handle.shutdown()
    vm.quit()
    after = bytearray(before)
    after[16 * ALIGN:16 * ALIGN + 512] = b'w' * 512
    after[ALIGN:2 * ALIGN] = bytes(ALIGN)
    assert path.read_bytes() == bytes(after)


def test_open_window_ends_where_its_file_ends(vm, path):
    vm.add('raw', 'disk', file={'driver': 'file', 'filename': str(path)}, offset=ALIGN)
    vm.cmd('block_resize', node_name='disk', size=2 * SIZE)
    handle = ferry.nbd_connect(vm.export('disk'))
    assert handle.get_size() == 2 * SIZE
    handle.shutdown()
    assert path.stat().st_size == 2 * SIZE + ALIGN


@pytest.mark.parametrize('window', [{'offset': -512}, {'size': -512}, {'offset': SIZE + 512},
                                    {'offset': SIZE - 512, 'size': 1024}, {'offset': 512, 'size': 2**63 - 1}])
def test_windows_beyond_their_file_are_refused(vm, path, window):
    with pytest.raises(ferry.QMPError, match='The sum of offset'):
        vm.add('raw', 'disk', file={'driver': 'file', 'filename': str(path)}, **window)


@pytest.mark.parametrize('limits', [{'align': 513}, {'align': -512}, {'align': 2**40}, {'max-transfer': 100, 'align': 512},
                                    {'opt-write-zero': 4096, 'max-write-zero': 6144},
                                    {'align': 4096, 'opt-discard': 512}, {'max-discard': -1}])
def test_limits_that_contradict_each_other_are_refused(vm, path, limits):
    with pytest.raises(ferry.QMPError, match='Cannot meet constraints with'):
        vm.add('raw', 'disk', file=blkdebug(path, **limits))
