# SPDX-License-Identifier: GPL-2.0-or-later
"""A mirror becomes ready and completes however fast clients write, and says when it sends their writes to both sides."""
import random
import threading

import pytest

import ferry

MIB = ferry.MIB
SIZE = 8 * MIB
BLOCK = 4096


class Storm(threading.Thread):
    """Writes 4 KiB at random places as fast as replies come, until it is stopped."""

    def __init__(self, uri):
        super().__init__(daemon=True)
        self.io = ferry.nbd_connect(uri)
        self.ended = threading.Event()
        self.count = 0

    def run(self):
        rng = random.Random(5)
        while not self.ended.is_set():
            self.io.pwrite(bytes([rng.randrange(1, 256)]) * BLOCK, rng.randrange(SIZE // BLOCK) * BLOCK)
            self.count += 1

    def wait_count(self, more):
        guard, until = ferry.Guard(60), self.count + more
        while self.count < until:
            assert self.is_alive()
            guard.left()

    def stop(self):
        self.ended.set()
        self.join(60)
        assert not self.is_alive()
        self.io.shutdown()


@pytest.fixture
def storm(vm, work):
    """A disk under writes, and node `copy` behind a limit that copying alone cannot keep up with."""
    vm.cmd('object-add', qom_type='throttle-group', id='slow', limits={'bps-write': 4 * MIB})
    vm.add_file(ferry.make_image(work / 'source.raw', SIZE, seed=1), node_name='disk')
    vm.add('throttle', 'copy', throttle_group='slow', file={
        'driver': 'raw', 'file': {'driver': 'file', 'filename': str(ferry.make_image(work / 'copy.raw', SIZE))}})
    one = Storm(vm.export('disk'))
    one.start()
    yield one
    if one.is_alive():
        one.stop()


def start(vm, **args):
    vm.cmd('blockdev-mirror', {'job-id': 'm', 'device': 'disk', 'target': 'copy', 'sync': 'full', **args})


def converging(vm):
    return vm.cmd('query-block-jobs')[0]['x-converging']


def test_it_gets_ready_under_a_storm_of_writes_and_says_how(vm, work, storm):
    start(vm)
    assert not converging(vm)
    begun = vm.wait('BLOCK_JOB_CONVERGING', device='m', active=True)['data']
    assert 0 < begun['left'] <= 2 * SIZE
    assert converging(vm) or vm.seen('BLOCK_JOB_READY', device='m')
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.wait('BLOCK_JOB_CONVERGING', device='m', active=False)
    storm.wait_count(100)
    vm.cmd('block-job-complete', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)
    storm.stop()
    vm.quit()


def test_a_cancel_of_a_ready_job_ends_under_a_storm_too(vm, work, storm):
    start(vm)
    vm.wait('BLOCK_JOB_READY', device='m')
    storm.wait_count(100)
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)


def test_it_can_be_switched_off(vm, work, storm):
    """Then only the end of the storm brings both sides together."""
    start(vm, **{'x-converge': False})
    storm.wait_count(2000)
    assert not converging(vm)
    storm.stop()
    vm.wait('BLOCK_JOB_READY', device='m')
    assert not vm.seen('BLOCK_JOB_CONVERGING', device='m')
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)
    vm.quit()
    ferry.compare(work / 'source.raw', work / 'copy.raw')


def test_a_copy_that_shrinks_leaves_writes_alone(vm, work):
    vm.add_file(ferry.make_image(work / 'source.raw', SIZE, seed=1), node_name='disk')
    vm.add_file(ferry.make_image(work / 'copy.raw', SIZE), node_name='copy')
    start(vm, speed=4 * MIB)
    vm.wait('BLOCK_JOB_READY', device='m')
    assert not vm.seen('BLOCK_JOB_CONVERGING', device='m')
