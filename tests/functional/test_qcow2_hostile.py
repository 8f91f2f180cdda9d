# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow2 images that are well-formed and ask for too much; what is malformed is the fuzzer's business."""
import struct

import pytest

import ferry

CLUSTER = 65536
ENTRIES = 1 << 20       # of the L1 table that all snapshots share
SNAPSHOTS = 5


@pytest.fixture
def greedy(work):
    """Snapshots whose L2 tables are many times more than the image has clusters, in a sparse file."""
    path = ferry.make_image(work / 'greedy', ferry.MIB, 'qcow2')
    l1, table = 16 * CLUSTER, 16 * CLUSTER + ENTRIES * 8
    with open(path, 'r+b') as file:
        file.seek(l1)
        file.write(struct.pack('>Q', 1 << 63 | 5 * CLUSTER) * ENTRIES)
        for number in range(SNAPSHOTS):
            name = f'{number}'.encode()
            file.write(struct.pack('>QIHHIIQII', l1, ENTRIES, len(name), len(name), 0, 0, 0, 0, 16) +
                       struct.pack('>QQ', 0, ferry.MIB) + (name + name).ljust(8, b'\0'))
        file.seek(60)
        file.write(struct.pack('>IQ', SNAPSHOTS, table))
    return path


def test_image_does_not_choose_how_much_memory_overlap_checks_take(vm, greedy):
    with pytest.raises(ferry.QMPError, match='overlap-check'):
        vm.add_file(greedy, 'qcow2', 'disk', overlap_check='all')
    vm.add_file(greedy, 'qcow2', 'disk')
