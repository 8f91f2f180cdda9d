# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 in the middle of anything leaves qcow2 images that are whole: leaks at most, and nothing lost that was flushed.

A schedule kills the process several times while clients write, zero, trim and flush one image, at a moment counted in
acknowledged requests. After each kill stock qemu-img judges the image, an independent record judges its contents, and the
next process goes on with it. With lazy refcounts the refcounts on disk may be behind as long as the image says so.
Then Ferry must make it whole when it opens it, and qemu-img when it repairs it.
"""
import json
import random
import shutil
from dataclasses import dataclass

import pytest

import ferry

SIZE = 24 * ferry.MIB
MIX = {'write': 12, 'zero': 3, 'trim': 2, 'flush': 2}


@dataclass
class Shape:
    options: str
    node: dict          # options of the qcow2 node
    mirror: str = ''    # copy-mode; '': no mirror
    target: str = 'qcow2'
    verb: str = ''      # sent just before the kill, to a job that is ready


SMALL = {'l2-cache-size': 8192, 'l2-cache-entry-size': 4096}
SHAPES = {
    'plain': Shape('', {'discard': 'unmap'}),
    '512': Shape('cluster_size=512', {}),
    '4k-small-cache': Shape('cluster_size=4k', {**SMALL, 'discard': 'unmap'}, 'background'),
    '64k': Shape('cluster_size=64k', {'discard': 'unmap'}, 'write-blocking'),
    '2M': Shape('cluster_size=2M', {}, 'background', 'raw', 'complete'),
    'v2': Shape('compat=0.10,cluster_size=64k', {'discard': 'unmap'}, 'background', verb='cancel'),
    'lazy-4k': Shape('cluster_size=4k,lazy_refcounts=on', {'discard': 'unmap'}, 'background'),
    'lazy-64k': Shape('cluster_size=64k,lazy_refcounts=on', {'discard': 'unmap'}, 'write-blocking', verb='complete'),
    'subclusters-16k': Shape('cluster_size=16k,extended_l2=on', {'discard': 'unmap'}, 'background'),
    'subclusters-128k-lazy': Shape('cluster_size=128k,extended_l2=on,lazy_refcounts=on', {'discard': 'unmap'}),
    'refcount-1': Shape('cluster_size=4k,refcount_bits=1', {'discard': 'unmap', 'discard-no-unref': True}),
    'refcount-64': Shape('cluster_size=1k,refcount_bits=64', {'discard': 'unmap'}, 'write-blocking', 'raw'),
}


def is_dirty(image):
    info = json.loads(ferry.qemu_img('info', '-U', '--output=json', '-f', 'qcow2', image))
    return info.get('dirty-flag', False)


def check_whole(work, vmm, image, name):
    """The image is consistent, or says that it is not and can be repaired without a loss by Ferry and by stock."""
    if not is_dirty(image):
        ferry.check_qcow2(image, leaks=True)
        return
    print('refcounts are behind, and the image says so')
    copy = work / 'repaired.qcow2'
    shutil.copyfile(image, copy)
    ferry.qemu_img('check', '-q', '-r', 'all', '-f', 'qcow2', copy)
    ferry.check_qcow2(copy)
    shutil.copyfile(image, copy)
    vm = vmm(name=name)
    vm.add_file(copy, 'qcow2', 'copy')
    vm.quit()
    assert not is_dirty(copy)
    ferry.check_qcow2(copy, leaks=True)
    ferry.compare(image, copy, 'qcow2', 'qcow2')


def check_contents(model, image, copy, copy_fmt):
    """With a copy: a job that may have moved the disk over to it was asked to. One of the two is the disk."""
    try:
        model.check_crash(image, 'qcow2')
    except AssertionError:
        if not copy:
            raise
        model.check_crash(copy, copy_fmt)


def start_mirror(vm, work, shape, number):
    target = work / f'target{number}'
    ferry.make_image(target, SIZE, shape.target, options='cluster_size=64k' if shape.target == 'qcow2' else None)
    vm.add_file(target, shape.target, 'target', discard='unmap')
    vm.cmd('blockdev-mirror', job_id='j', device='disk', target='target', sync='full', copy_mode=shape.mirror)
    return target


def run_until_kill(vm, work, shape, model, rng, number):
    """One process's life; returns the mirror's target."""
    vm.add_file(work / 'disk.qcow2', 'qcow2', 'disk', **shape.node)
    target = None
    writers = ferry.run_writers(vm.export('disk'), model, seed=rng.randrange(1 << 30), count=3, mix=MIX, crash=True,
                                fatal=False)
    if shape.mirror:
        writers[0].wait_count(rng.randrange(1, 20))
        target = start_mirror(vm, work, shape, number)
    if shape.verb and rng.random() < 0.7:
        vm.wait('BLOCK_JOB_READY', device='j')
        vm.send(f'block-job-{shape.verb}', device='j')
    writers[0].wait_count(rng.randrange(1, 150))
    vm.kill()
    for writer in writers:
        writer.stop()
    print(f'killed after {[w.count for w in writers]} requests')
    return target


def schedule(vmm, work, name, seed, kills):
    shape = SHAPES[name]
    rng = random.Random(seed)
    image = work / 'disk.qcow2'
    print(f'schedule {name}: seed {seed}')
    ferry.make_image(image, SIZE, 'qcow2', options=shape.options or None)
    for number in range(kills):
        model = ferry.Model(SIZE)
        model.load(image, 'qcow2')
        target = run_until_kill(vmm(name=f'life{number}'), work, shape, model, rng, number)
        check_whole(work, vmm, image, f'repair{number}')
        check_contents(model, image, target if shape.verb == 'complete' else None, shape.target)
        if target:
            if shape.target == 'qcow2':
                ferry.check_qcow2(target, leaks=True)
            target.unlink()


CASES = [(name, seed) for seed, name in enumerate(SHAPES, 1)]


@pytest.mark.parametrize('name,seed', CASES, ids=[c[0] for c in CASES])
def test_image_is_whole_after_kill(vmm, work, name, seed):
    schedule(vmm, work, name, seed, 2)


@pytest.mark.slow
@pytest.mark.limit(1800)
@pytest.mark.parametrize('name,seed', CASES, ids=[c[0] for c in CASES])
def test_image_is_whole_after_many_kills(vmm, work, name, seed):
    for number in range(5):
        schedule(vmm, work, name, 1000 * seed + number, 8)
        (work / 'disk.qcow2').unlink()
