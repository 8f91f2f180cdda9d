# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes on top of nodes: as many as are allowed work, one more is refused in words."""
import pytest

import ferry

LIMIT = 256


def pile(vm, count, add):
    for number in range(1, count):
        add(f'n{number}', f'n{number - 1}')
    with pytest.raises(ferry.QMPError, match=f'more than {LIMIT} nodes'):
        add('beyond', f'n{count - 1}')
    return f'n{count - 1}'


def use(vm, node):
    pytest.importorskip('nbd')
    disk = ferry.nbd_connect(vm.export(node), 'base:allocation')
    disk.pwrite(b'x' * 700, 1000)
    disk.zero(100000, 5000)
    disk.trim(65536, 131072)
    disk.flush()
    assert disk.pread(900, 900) == bytes(100) + b'x' * 700 + bytes(100)
    disk.block_status(ferry.MIB, 0, lambda *extents: 0)
    disk.shutdown()


def test_filters_and_formats_up_to_the_limit(vm, work):
    path = ferry.make_image(work / 'disk', ferry.MIB)
    vm.add('file', 'n0', filename=str(path))
    use(vm, pile(vm, LIMIT, lambda name, below: vm.add('raw', name, file=below)))


def test_backing_chain_up_to_the_limit(vm, work):
    empty = ferry.make_image(work / 'empty', ferry.MIB, 'qcow2').read_bytes()

    def add(name, below):
        (work / name).write_bytes(empty)
        vm.add('qcow2', name, file={'driver': 'file', 'filename': str(work / name)}, backing=below)
    vm.add_file(ferry.make_image(work / 'base', ferry.MIB, 'qcow2'), 'qcow2', 'n0', backing=None)
    use(vm, pile(vm, LIMIT - 1, add))


def test_diamonds_cost_no_more_than_their_nodes(vm, work):
    """Each node uses the one below twice, so there are 2^40 ways down through 40 of them."""
    ferry.make_image(work / 'data', ferry.MIB)
    image = work / 'image.qcow2'
    ferry.qemu_img('create', '-q', '-f', 'qcow2', '-o', f'data_file={work}/data', image, '1M')
    base = ferry.make_image(work / 'base', ferry.MIB)
    ferry.fill(base, ferry.MIB, seed=4)
    vm.add_file(base, 'raw', 'n0', read_only=True)
    for level in range(1, 41):
        vm.add('qcow2', f'n{level}', read_only=True, data_file=f'n{level - 1}', backing=f'n{level - 1}',
               file={'driver': 'file', 'filename': str(image)})
    client = ferry.nbd_connect(vm.export('n40', writable=False))
    assert bytes(client.pread(ferry.MIB, 0)) == base.read_bytes()
    client.shutdown()
    with pytest.raises(ferry.QMPError, match='cycle'):
        vm.cmd('blockdev-reopen', options=[{'driver': 'raw', 'node-name': 'n0', 'read-only': True, 'file': 'n40'}])
    vm.cmd('block-export-del', id='export-disk')
    vm.wait('BLOCK_EXPORT_DELETED')
    for level in range(40, -1, -1):
        vm.cmd('blockdev-del', node_name=f'n{level}')
