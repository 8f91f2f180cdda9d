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
    disk = ferry.nbd_connect(vm.export(node), ['base:allocation'])
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
