# SPDX-License-Identifier: GPL-2.0-or-later
"""Persistent bitmaps and the dirty bit: what stock tools made survives Ferry, and the other way round."""
import json
import struct

import pytest

import ferry
from disk_io import Disk
from ferry import stock as stock_qemu

KIB, MIB = 1 << 10, ferry.MIB
SIZE = 8 * MIB


def bitmaps(path):
    data = json.loads(ferry.qemu_img('info', '-U', '--output=json', path))['format-specific']['data']
    return {b['name']: sorted(b['flags']) for b in data.get('bitmaps', [])}


def dirty_extents(vmm, path, name):
    """What stock QEMU finds in a bitmap, as dirty (offset, length)."""
    vm = vmm(command=stock_qemu.distribution())
    vm.add_file(path, 'qcow2', 'disk', read_only=True)
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(vm.workdir / 'stock.nbd')}})
    vm.cmd('block-export-add', type='nbd', id='e', node_name='disk', name='disk', bitmaps=[name])
    out = ferry.images.run_tool('nbdinfo', '--json', f'--map=qemu:dirty-bitmap:{name}', f'nbd+unix:///disk?socket={vm.workdir}/stock.nbd')
    vm.quit()
    return [(e['offset'], e['length']) for e in json.loads(out) if e['type'] & 1]


def test_bitmaps_follow_writes(vmm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    ferry.qemu_img('bitmap', '--add', '-g', '64k', path, 'on')
    ferry.qemu_img('bitmap', '--add', '--disable', '-g', '512', path, 'off')
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk')
    assert Disk(vm).write(1, MIB, 128 * KIB)
    # While in use, a crash must not leave them to be trusted.
    assert bitmaps(path) == {'on': ['auto', 'in-use'], 'off': ['in-use']}
    vm.quit()
    assert bitmaps(path) == {'on': ['auto'], 'off': []}
    ferry.check_qcow2(path)
    assert dirty_extents(vmm, path, 'on') == [(MIB, 128 << 10)]
    assert dirty_extents(vmm, path, 'off') == []


def test_bitmaps_of_a_killed_process_are_inconsistent(vmm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    ferry.qemu_img('bitmap', '--add', path, 'b')
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk')
    assert Disk(vm).write(1, 0, 64 * KIB)
    vm.kill()
    assert bitmaps(path) == {'b': ['auto', 'in-use']}
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk')
    node = next(n for n in vm.cmd('query-named-block-nodes') if n['node-name'] == 'disk')
    assert node['dirty-bitmaps'][0]['inconsistent']
    vm.quit()
    # It stays in the image for the user to remove.
    assert bitmaps(path) == {'b': ['auto', 'in-use']}
    ferry.check_qcow2(path, leaks=True)


def test_read_only_use_leaves_bitmaps_alone(vmm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    ferry.qemu_img('bitmap', '--add', path, 'b')
    before = path.read_bytes()
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk', read_only=True)
    assert Disk(vm, writable=False).holds(0, 0, MIB)
    vm.quit()
    assert path.read_bytes() == before


def test_dirty_image_is_repaired(vmm, work):
    """A lazy-refcounts image of a killed process: opening it for writing rebuilds the refcounts."""
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', options='lazy_refcounts=on,cluster_size=4k')
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk')
    disk = Disk(vm)
    for i in range(20):
        assert disk.write(i + 1, i * 300 * KIB, 100 * KIB)
    assert disk.flush()
    vm.kill()
    with open(path, 'rb') as file:
        file.seek(72)
        assert struct.unpack('>Q', file.read(8))[0] & 1
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk')
    with open(path, 'rb') as file:
        file.seek(72)
        assert struct.unpack('>Q', file.read(8))[0] & 1 == 0
    ferry.check_qcow2(path)
    disk = Disk(vm)
    for i in range(20):
        assert disk.holds(i + 1, i * 300 * KIB, 100 * KIB)
    vm.quit()
    ferry.check_qcow2(path)


def is_dirty(path):
    with open(path, 'rb') as file:
        file.seek(72)
        return bool(struct.unpack('>Q', file.read(8))[0] & 1)


@pytest.mark.parametrize('order', [1, -1])
@pytest.mark.parametrize('auto', [False, True])
def test_dirty_image_is_repaired_when_it_becomes_writable(vmm, work, order, auto):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', options='lazy_refcounts=on,cluster_size=4k')
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk')
    disk = Disk(vm)
    assert disk.write(1, 0, 2 * MIB) and disk.flush()
    vm.kill()
    vm = vmm()
    file = {'driver': 'file', 'node-name': 'file', 'filename': str(path)}
    node = {'driver': 'qcow2', 'node-name': 'disk', 'file': 'file'}
    vm.cmd('blockdev-add', {**file, 'auto-read-only': True} if auto else {**file, 'read-only': True})
    vm.cmd('blockdev-add', {**node, 'read-only': True})
    reader = Disk(vm, writable=False)
    assert reader.holds(1, 0, 2 * MIB)
    assert is_dirty(path)
    vm.cmd('blockdev-reopen', options=[node] if auto else [node, file][::order])
    assert not is_dirty(path)
    ferry.check_qcow2(path)
    assert 'wrote' in vm.qemu_io('disk', 'write -P 2 2M 2M')
    assert reader.holds(1, 0, 2 * MIB) and reader.holds(2, 2 * MIB, 2 * MIB)
    vm.quit()
    ferry.check_qcow2(path)


def test_image_that_cannot_be_repaired_takes_no_writes(vmm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', options='lazy_refcounts=on')
    ferry.qemu_io(path, 'write -P 1 0 64k', fmt='qcow2')
    with open(path, 'r+b') as image:
        header = image.read(4096)
        image.seek(72)
        image.write(struct.pack('>Q', 1))
        l1 = struct.unpack_from('>Q', header, 40)[0]
        image.seek(l1 + 8 * 0)
        entry = struct.unpack('>Q', image.read(8))[0]
        image.seek((entry & ((1 << 56) - 512)) + 8)
        image.write(struct.pack('>Q', (1 << 63) | 0x7fffffff0000))
    vm = vmm()
    file = {'driver': 'file', 'node-name': 'file', 'filename': str(path)}
    node = {'driver': 'qcow2', 'node-name': 'disk', 'file': 'file'}
    vm.cmd('blockdev-add', {**file, 'auto-read-only': True})
    vm.cmd('blockdev-add', {**node, 'read-only': True})
    vm.cmd('blockdev-reopen', options=[node])
    assert 'Could not repair dirty image' in vm.stderr()
    before = path.read_bytes()
    assert 'failed' in vm.qemu_io('disk', 'write -P 2 1M 64k')
    assert 'read 65536' in vm.qemu_io('disk', 'read -P 1 0 64k')
    vm.quit()
    assert path.read_bytes() == before


def make_dirty(path):
    with open(path, 'r+b') as image:
        image.seek(72)
        image.write(struct.pack('>QQ', 1, 1))


def test_repair_counts_what_snapshots_share(vmm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', options='cluster_size=4k')
    for i in range(20):
        ferry.qemu_io(path, f'write -P {i + 1} {i * 128}k 256k', fmt='qcow2')
        ferry.qemu_img('snapshot', '-c', f's{i}', path)
    make_dirty(path)
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk')
    assert not is_dirty(path)
    vm.quit()
    ferry.check_qcow2(path)


def test_repair_reads_a_table_once_however_often_it_is_named(vmm, work):
    """65535 snapshots that all name one L1 table, whose entries all name one L2 table."""
    count, size = 65535, 64 << 30
    path = ferry.make_image(work / 'disk.qcow2', size, 'qcow2')
    ferry.qemu_io(path, 'write -P 1 0 64k', fmt='qcow2')
    with open(path, 'r+b') as image:
        header = image.read(4096)
        l1_size, l1 = struct.unpack_from('>IQ', header, 36)
        image.seek(l1)
        entry = image.read(8)
        image.seek(l1)
        image.write(entry * l1_size)
        image.seek(1 << 20)
        image.write(struct.pack('>QIHHIIQII', l1, l1_size, 0, 0, 0, 0, 0, 0, 0) * count)
        image.seek(60)
        image.write(struct.pack('>IQ', count, 1 << 20))
    make_dirty(path)
    vm = vmm()
    with pytest.raises(ferry.QMPError, match='a cluster has more references than refcounts of 16 bits can tell'):
        vm.add_file(path, 'qcow2', 'disk')
    vm.quit()


def add(vm, name, **options):
    vm.cmd('block-dirty-bitmap-add', node='disk', name=name, persistent=True, **options)


def node_bitmaps(vm, node='disk'):
    info = next(n for n in vm.cmd('query-named-block-nodes') if n['node-name'] == node)
    return {b['name']: b for b in info.get('dirty-bitmaps', [])}


@pytest.fixture
def disk(vm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    vm.add('file', 'disk-file', filename=str(path))
    vm.add('qcow2', 'disk', file='disk-file')
    vm.image = path
    return vm


def store(vm):
    """A reopen writes the bitmaps, as closing does."""
    vm.cmd('blockdev-reopen', options=[{'driver': 'qcow2', 'node-name': 'disk', 'file': 'disk-file'}])


def test_new_persistent_bitmap_is_read_by_stock(disk, vmm):
    add(disk, 'on')
    add(disk, 'off', disabled=True, granularity=512)
    add(disk, 'gone')
    disk.cmd('block-dirty-bitmap-add', node='disk', name='memory')
    assert {n: (b['persistent'], b['recording']) for n, b in node_bitmaps(disk).items()} == {
        'on': (True, True), 'off': (True, False), 'gone': (True, True), 'memory': (False, True)}
    assert Disk(disk).write(1, MIB, 128 * KIB)
    disk.cmd('block-dirty-bitmap-merge', node='disk', target='off', bitmaps=['on'])
    disk.cmd('block-dirty-bitmap-remove', node='disk', name='gone')
    disk.quit()
    assert bitmaps(disk.image) == {'on': ['auto'], 'off': []}
    ferry.check_qcow2(disk.image)
    assert dirty_extents(vmm, disk.image, 'on') == [(MIB, 128 << 10)]
    assert dirty_extents(vmm, disk.image, 'off') == [(MIB, 128 << 10)]


def test_bitmap_is_taken_up_again_and_goes_on_recording(disk, vmm):
    add(disk, 'b')
    assert Disk(disk).write(1, 0, 64 * KIB)
    disk.quit()
    vm = vmm()
    vm.add_file(disk.image, 'qcow2', 'disk')
    assert node_bitmaps(vm)['b'] == {'name': 'b', 'count': 64 * KIB, 'granularity': 64 * KIB, 'recording': True,
                                     'busy': False, 'persistent': True}
    assert Disk(vm).write(2, MIB, 64 * KIB)
    vm.quit()
    assert dirty_extents(vmm, disk.image, 'b') == [(0, 64 * KIB), (MIB, 64 * KIB)]
    ferry.qemu_img('bitmap', '--remove', disk.image, 'b')
    ferry.check_qcow2(disk.image)


@pytest.mark.parametrize('inconsistent', [False, True])
def test_removing_a_bitmap_takes_it_out_of_the_image_at_once(vmm, work, inconsistent):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    for name in ('a', 'b', 'c'):
        ferry.qemu_img('bitmap', '--add', path, name)
    if inconsistent:
        vm = vmm()
        vm.add_file(path, 'qcow2', 'disk')
        vm.kill()
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk')
    vm.cmd('block-dirty-bitmap-remove', node='disk', name='b')
    assert bitmaps(path) == {'a': ['auto', 'in-use'], 'c': ['auto', 'in-use']}
    add(vm, 'b', disabled=True)
    vm.quit()
    mark = ['auto', 'in-use'] if inconsistent else ['auto']
    assert bitmaps(path) == {'a': mark, 'b': [], 'c': mark}
    for name in ('a', 'b', 'c'):
        ferry.qemu_img('bitmap', '--remove', path, name)
    ferry.check_qcow2(path)


def test_last_bitmap_removed_leaves_none(disk):
    add(disk, 'b')
    store(disk)
    assert bitmaps(disk.image) == {'b': ['auto']}
    disk.cmd('block-dirty-bitmap-remove', node='disk', name='b')
    assert bitmaps(disk.image) == {}
    disk.quit()
    ferry.check_qcow2(disk.image)


def test_aborted_removal_keeps_the_bitmap(disk, vmm):
    add(disk, 'b')
    store(disk)
    assert Disk(disk).write(1, 0, 64 * KIB)
    with pytest.raises(ferry.QMPError, match='abort'):
        disk.cmd('transaction', actions=[
            {'type': 'block-dirty-bitmap-remove', 'data': {'node': 'disk', 'name': 'b'}},
            {'type': 'block-dirty-bitmap-add', 'data': {'node': 'disk', 'name': 'new', 'persistent': True}},
            {'type': 'abort', 'data': {}}])
    assert list(node_bitmaps(disk)) == ['b']
    disk.quit()
    assert bitmaps(disk.image) == {'b': ['auto']}
    assert dirty_extents(vmm, disk.image, 'b') == [(0, 64 * KIB)]
    ferry.check_qcow2(disk.image)


def test_transaction_hands_recording_over_to_a_new_persistent_bitmap(disk, vmm):
    """A checkpoint as backup tools make it: the old bitmap freezes where the new one begins."""
    add(disk, 'old')
    io = Disk(disk)
    assert io.write(1, 0, 64 * KIB)
    disk.cmd('transaction', actions=[
        {'type': 'block-dirty-bitmap-add', 'data': {'node': 'disk', 'name': 'new', 'persistent': True}},
        {'type': 'block-dirty-bitmap-disable', 'data': {'node': 'disk', 'name': 'old'}}])
    assert io.write(2, MIB, 64 * KIB)
    disk.quit()
    assert bitmaps(disk.image) == {'old': [], 'new': ['auto']}
    assert dirty_extents(vmm, disk.image, 'old') == [(0, 64 * KIB)]
    assert dirty_extents(vmm, disk.image, 'new') == [(MIB, 64 * KIB)]


def test_killed_process_leaves_no_bitmap_to_be_trusted(disk):
    add(disk, 'stored')
    store(disk)
    add(disk, 'new')
    assert Disk(disk).write(1, 0, 64 * KIB)
    assert bitmaps(disk.image) == {'stored': ['auto', 'in-use']}
    disk.kill()
    assert bitmaps(disk.image) == {'stored': ['auto', 'in-use']}
    ferry.check_qcow2(disk.image, leaks=True)


def test_persistent_bitmaps_an_image_cannot_hold_are_refused(vmm, work):
    vm = vmm()
    old = ferry.make_image(work / 'v2.qcow2', SIZE, 'qcow2', options='compat=0.10')
    new = ferry.make_image(work / 'v3.qcow2', SIZE, 'qcow2')
    big = ferry.make_image(work / 'big.qcow2', 4 << 40, 'qcow2')
    vm.add_file(old, 'qcow2', 'v2')
    vm.add_file(new, 'qcow2', 'ro', read_only=True)
    vm.add_file(big, 'qcow2', 'big')
    for node, options, message in (
            ('v2', {}, "Can't make bitmap 'b' persistent in 'v2': Cannot store dirty bitmaps in qcow2 v2 files"),
            ('ro', {}, 'read-only'),
            ('big', {'granularity': 512}, "Can't make bitmap 'b' persistent in 'big': Too much space")):
        with pytest.raises(ferry.QMPError, match=message):
            vm.cmd('block-dirty-bitmap-add', node=node, name='b', persistent=True, **options)
        assert node_bitmaps(vm, node) == {}


def test_persistent_bitmap_in_an_iothread(vmm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    vm = vmm('-object', 'iothread,id=t')
    vm.add_file(path, 'qcow2', 'disk')
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(vm.workdir / 'nbd')}})
    vm.cmd('block-export-add', type='nbd', id='e', node_name='disk', writable=True, iothread='t')
    uri = f'nbd+unix:///disk?socket={vm.workdir}/nbd'
    for name in ('a', 'b'):
        add(vm, name)
    client = ferry.nbd_connect(uri)
    client.pwrite(b'x' * 4096, 0)
    client.shutdown()
    vm.cmd('block-dirty-bitmap-remove', node='disk', name='b')
    vm.quit()
    assert bitmaps(path) == {'a': ['auto']}
    assert dirty_extents(vmm, path, 'a') == [(0, 64 * KIB)]
    ferry.check_qcow2(path)


def test_very_many_bitmaps_cost_no_more_than_their_number(vmm, work):
    """As many bitmaps as a directory may hold: opened within the time any test has."""
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    ferry.qemu_img('bitmap', '--add', path, 'b0')
    count = 65535
    with open(path, 'r+b') as file:
        header = bytearray(file.read(65536))
        at = header.index(struct.pack('>II', 0x23852875, 24))
        offset = struct.unpack_from('>Q', header, at + 24)[0]
        file.seek(offset)
        table, size, flags, kind, bits = struct.unpack('>QIIBB', file.read(18))
        entries = bytearray()
        for i in range(count):
            name = b'b%06d' % i
            entry = struct.pack('>QIIBBHI', table, size, flags | 1, kind, bits, len(name), 0) + name
            entries += entry + bytes(-len(entry) % 8)
        start = 1 << 30
        file.seek(start)
        file.write(entries)
        struct.pack_into('>IIQQ', header, at + 8, count, 0, len(entries), start)
        file.seek(0)
        file.write(header)
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk', read_only=True)
    for name in ('b000000', f'b{count - 1:06}'):
        with pytest.raises(ferry.QMPError, match='inconsistent'):
            vm.cmd('block-dirty-bitmap-enable', node='disk', name=name)
    vm.quit()
