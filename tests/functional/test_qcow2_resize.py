# SPDX-License-Identifier: GPL-2.0-or-later
"""A qcow2 image that is made smaller gives its space back, as stock tools do it."""
import shutil

import pytest

import ferry
from disk_io import Disk

KIB, MIB = 1 << 10, ferry.MIB
SIZE = 64 * MIB


def stock_size(path, size):
    """How long the file is after stock has shrunk a copy of it."""
    copy = path.with_suffix('.stock')
    shutil.copy(path, copy)
    ferry.qemu_img('resize', '--shrink', '-f', 'qcow2', copy, size)
    return copy.stat().st_size


@pytest.mark.parametrize('options', [
    '', 'compat=0.10', 'cluster_size=4k', 'cluster_size=4k,refcount_bits=64', 'lazy_refcounts=on,cluster_size=4k',
    'extended_l2=on,cluster_size=128k', 'cluster_size=512'])
@pytest.mark.parametrize('size', [512, 8 * MIB, 40 * MIB])
def test_shrunk_image_is_cut_as_short_as_stock_makes_it(vmm, work, options, size):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', seed=1, data=SIZE * 3 // 4, options=options)
    raw = work / 'before.raw'
    ferry.qemu_img('convert', '-O', 'raw', path, raw)
    stock = stock_size(path, size)
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk')
    vm.cmd('block_resize', node_name='disk', size=size)
    # Metadata may lie elsewhere, in a few clusters more or less.
    assert path.stat().st_size <= stock + 4 * 128 * KIB
    if 'lazy' not in options:
        ferry.check_qcow2(path)
    vm.cmd('block_resize', node_name='disk', size=SIZE)
    disk = Disk(vm)
    assert disk.write(0x5a, SIZE - 4 * MIB, 4 * MIB)
    vm.quit()
    ferry.check_qcow2(path)
    with open(raw, 'r+b') as file:
        file.truncate(size)
        file.truncate(SIZE)
        file.seek(SIZE - 4 * MIB)
        file.write(b'\x5a' * 4 * MIB)
    ferry.compare(path, raw, 'qcow2')


def test_shrinking_again_and_again_keeps_what_is_left(vm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', seed=2, data=SIZE // 2, options='cluster_size=4k')
    vm.add_file(path, 'qcow2', 'disk')
    disk = Disk(vm)
    for i in range(8):
        assert disk.write(i + 1, i * MIB, MIB)
    for size in (56, 40, 24, 10, 64, 12):
        disk.resize(size * MIB)
        for i in range(8):
            assert disk.holds(i + 1, i * MIB, MIB)
    vm.quit()
    ferry.check_qcow2(path)


def test_image_with_bitmaps_shrinks_with_them(vm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', seed=3, data=SIZE // 2)
    vm.add_file(path, 'qcow2', 'disk')
    vm.cmd('block-dirty-bitmap-add', node='disk', name='b', persistent=True)
    disk = Disk(vm)
    assert disk.write(1, 0, 64 * KIB) and disk.write(1, 32 * MIB, 64 * KIB)
    disk.resize(8 * MIB)
    info = next(n for n in vm.cmd('query-named-block-nodes') if n['node-name'] == 'disk')
    assert info['dirty-bitmaps'][0]['count'] == 64 * KIB
    vm.quit()
    ferry.check_qcow2(path)


def test_snapshots_forbid_shrinking(vm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    ferry.qemu_img('snapshot', '-c', 'one', path)
    vm.add_file(path, 'qcow2', 'disk')
    with pytest.raises(ferry.QMPError, match='snapshots'):
        vm.cmd('block_resize', node_name='disk', size=MIB)
