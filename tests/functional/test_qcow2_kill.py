# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of a binary that writes to qcow2: leaks at most, and what was flushed is there."""
import os
import random
import threading

import nbd
import pytest

import ferry

MIB = ferry.MIB
SIZE = 64 * MIB
SECTOR = 512
SHAPES = {'default': '', 'c4k': 'cluster_size=4k', 'extl2': 'extended_l2=on', 'v2': 'compat=0.10', 'c512': 'cluster_size=512'}


class Record:
    """What each sector may hold: the value of the last flushed write, or any written since. Values are never used twice."""

    def __init__(self):
        self.allowed = {}
        self.last = {}

    def starts(self, first, count, value):
        for sector in range(first, first + count):
            self.allowed.setdefault(sector, {0}).add(value)

    def done(self, first, count, value):
        for sector in range(first, first + count):
            self.last[sector] = value

    def flushed(self, snapshot):
        for sector, value in snapshot.items():
            if self.last[sector] == value:      # not written again since
                self.allowed[sector] = {value} | {v for v in self.allowed[sector] if v > value}


def writer(uri, rng, record, slot, written):
    """Writes to its own sectors until the connection ends."""
    client = ferry.nbd_connect(uri)
    value = slot + 1
    try:
        while True:
            value += 4
            count = rng.choice((1, 8, 50, 256, 1024))
            first = rng.randrange(slot, SIZE // SECTOR // 4096 * 4, 4) * 1024
            first += rng.randrange(0, 1024 - count + 1)
            record.starts(first, count, value)
            client.pwrite(value.to_bytes(4, 'big') * (SECTOR // 4) * count, first * SECTOR)
            record.done(first, count, value)
            if rng.random() < 0.1:
                before = dict(record.last)
                client.flush()
                record.flushed(before)
            written.release()
    except nbd.Error:
        return


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('seed', range(3))
def test_killed_at_a_random_moment(vmm, work, shape, seed):
    print(f'seed {seed}')
    rng = random.Random(seed * 100 + len(shape))
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', options=SHAPES[shape])
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk', discard='unmap')
    uri = vm.export('disk')
    records = [Record() for _ in range(4)]
    written = threading.Semaphore(0)
    threads = [threading.Thread(target=writer, args=(uri, random.Random(seed * 10 + i), records[i], i, written))
               for i in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(rng.randrange(1, 300)):
        written.acquire()
    vm.kill()
    for thread in threads:
        thread.join()
    ferry.check_qcow2(path, leaks=True)
    contents = ferry.read_raw(path, 'qcow2')
    for record in records:
        for sector, allowed in record.allowed.items():
            value = int.from_bytes(contents[sector * SECTOR:sector * SECTOR + 4], 'big')
            assert value in allowed, f'sector {sector} holds {value}, not one of {sorted(allowed)}'
    # The image is fit for use as it is.
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk')
    client = ferry.nbd_connect(vm.export('disk'))
    client.pwrite(os.urandom(MIB), 32 * MIB)
    client.shutdown()
    vm.quit()
    ferry.check_qcow2(path, leaks=True)
