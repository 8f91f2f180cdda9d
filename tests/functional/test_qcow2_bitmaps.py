# SPDX-License-Identifier: GPL-2.0-or-later
"""Persistent bitmaps and the dirty bit: what stock tools made survives Ferry, and the other way round."""
import json
import struct

import ferry
from disk_io import Disk

KIB, MIB = 1 << 10, ferry.MIB
SIZE = 8 * MIB


def bitmaps(path):
    data = json.loads(ferry.qemu_img('info', '-U', '--output=json', path))['format-specific']['data']
    return {b['name']: sorted(b['flags']) for b in data.get('bitmaps', [])}


def dirty_extents(vmm, path, name):
    """What stock QEMU finds in a bitmap, as dirty (offset, length)."""
    vm = vmm(command=['qemu-system-x86_64'])
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
