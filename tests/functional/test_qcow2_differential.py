# SPDX-License-Identifier: GPL-2.0-or-later
"""The same random operations by Ferry and by stock qemu-io, on images of every shape, and each carries on with what the other wrote.

Both images must be clean for qemu-img check and hold the same bytes after every round.
"""
import json
import random

import nbd
import pytest

import ferry

MIB = ferry.MIB
SIZE = 6 * MIB
SEED = 20

SHAPES = {
    'default': '',
    'v2': 'compat=0.10',
    'c512': 'cluster_size=512',
    'c4k': 'cluster_size=4k,refcount_bits=8',
    'c2m': 'cluster_size=2M,refcount_bits=64',
    'r1': 'refcount_bits=1',
    'r2-c1k': 'refcount_bits=2,cluster_size=1k',
    'r32': 'refcount_bits=32,cluster_size=16k',
    'lazy': 'lazy_refcounts=on,cluster_size=4k',
    'extl2': 'extended_l2=on',
    'extl2-16k': 'extended_l2=on,cluster_size=16k,refcount_bits=4',
    'extl2-2m': 'extended_l2=on,cluster_size=2M',
    'zstd': 'compression_type=zstd',
    'prealloc': 'preallocation=metadata',
    'prealloc-extl2': 'preallocation=metadata,extended_l2=on',
}


def operations(rng, count):
    """(name, offset, bytes, pattern); all on sectors."""
    for _ in range(count):
        size = rng.choice((512, 4096, 65536, 300 * 512, MIB))
        size = rng.randrange(512, size + 512, 512)
        offset = rng.randrange(0, SIZE - size + 512, 512)
        yield rng.choice(('write', 'write', 'write', 'zero', 'unmap', 'flush')), offset, size, rng.randrange(1, 256)


def by_ferry(vmm, path, ops):
    vm = vmm()
    vm.add_file(path, 'qcow2', 'disk', discard='unmap')
    client = ferry.nbd_connect(vm.export('disk'))
    for name, offset, size, pattern in ops:
        if name == 'write':
            client.pwrite(bytes([pattern]) * size, offset)
        elif name == 'flush':
            client.flush()
        else:
            client.zero(size, offset, nbd.CMD_FLAG_NO_HOLE if name == 'zero' else 0)
    client.shutdown()
    vm.quit()


def by_qemu(path, ops):
    words = {'write': 'write -q -P {2} {0} {1}', 'zero': 'write -q -z {0} {1}', 'unmap': 'write -q -z -u {0} {1}',
             'flush': 'flush'}
    ferry.qemu_io(path, *(words[name].format(offset, size, pattern) for name, offset, size, pattern in ops),
                  fmt='qcow2', options=('-d', 'unmap'))


def same(a, b):
    ferry.check_qcow2(a)
    ferry.check_qcow2(b)
    ferry.compare(a, b, 'qcow2', 'qcow2')


@pytest.mark.parametrize('backing', (False, True), ids=('alone', 'backing'))
@pytest.mark.parametrize('shape', SHAPES)
def test_same_result_as_stock_tools(vmm, work, shape, backing):
    options = SHAPES[shape]
    if backing and 'preallocation' in options and 'extended_l2' not in options:
        pytest.skip('preallocation and a backing file exclude each other')
    base = ferry.make_image(work / 'base.raw', SIZE * 2 // 3, seed=3) if backing else None
    images = [ferry.make_image(work / name, SIZE, 'qcow2', options=options, backing=base) for name in ('a.qcow2', 'b.qcow2')]
    if backing:
        # Overlays of a shorter file: what lies behind its end reads as zeroes.
        assert ferry.map_image(images[0], 'qcow2')[-1]['zero']
    rng = random.Random(SEED)
    print(f'seed {SEED}')
    for number in range(2):
        ops = list(operations(rng, 40))
        by_ferry(vmm, images[number % 2], ops)
        by_qemu(images[1 - number % 2], ops)
        same(*images)


@pytest.mark.parametrize('shape', ('default', 'c512', 'extl2', 'zstd', 'v2'))
def test_compressed_images_and_snapshots_are_carried_on(vmm, work, shape):
    """Starts from a compressed image with an internal snapshot, which must survive unchanged."""
    seeded = ferry.make_image(work / 'seed.raw', SIZE, seed=5)
    images = [work / 'a.qcow2', work / 'b.qcow2']
    for image in images:
        options = ['-o', SHAPES[shape]] if SHAPES[shape] else []
        ferry.qemu_img('convert', '-q', '-c', '-O', 'qcow2', *options, seeded, image)
        ferry.qemu_img('snapshot', '-c', 'before', image)
    rng = random.Random(SEED + 1)
    print(f'seed {SEED + 1}')
    ops = list(operations(rng, 60))
    by_ferry(vmm, images[0], ops)
    by_qemu(images[1], ops)
    same(*images)
    for image in images:
        ferry.qemu_img('snapshot', '-a', 'before', image)
        ferry.compare(image, seeded, 'qcow2', 'raw')
        ferry.qemu_img('snapshot', '-d', 'before', image)
        ferry.check_qcow2(image)


@pytest.mark.parametrize('member', ({}, {'version': 'v2'}, {'cluster-size': 512}, {'cluster-size': 2 * MIB}, {'refcount-bits': 1},
                                    {'refcount-bits': 64, 'cluster-size': 1024}, {'extended-l2': True}, {'lazy-refcounts': True},
                                    {'compression-type': 'zstd'}, {'preallocation': 'metadata'}, {'preallocation': 'falloc'},
                                    {'preallocation': 'full'}), ids=str)
def test_created_images_are_what_was_asked_for(vm, work, member):
    path = work / 'new.qcow2'
    path.touch()
    vm.add('file', 'new', filename=str(path))
    vm.cmd('blockdev-create', job_id='c', options={'driver': 'qcow2', 'file': 'new', 'size': 32 * MIB, **member})
    assert vm.job_until('c', 'concluded') == 'concluded'
    assert vm.job('c').get('error') is None
    vm.cmd('job-dismiss', id='c')
    vm.cmd('blockdev-del', node_name='new')
    ferry.check_qcow2(path)
    info = json.loads(ferry.qemu_img('info', '--output=json', path))
    data = info['format-specific']['data']
    assert info['virtual-size'] == 32 * MIB
    assert info['cluster-size'] == member.get('cluster-size', 65536)
    assert data['compat'] == ('0.10' if member.get('version') == 'v2' else '1.1')
    assert data['refcount-bits'] == member.get('refcount-bits', 16)
    if data['compat'] == '1.1':
        assert data['extended-l2'] == member.get('extended-l2', False)
        assert data['lazy-refcounts'] == member.get('lazy-refcounts', False)
    assert data['compression-type'] == member.get('compression-type', 'zlib')
    if 'preallocation' in member:
        assert all(e['data'] or e['zero'] for e in ferry.map_image(path, 'qcow2'))
    if member.get('preallocation') in ('falloc', 'full'):
        assert ferry.allocated(path) >= 32 * MIB
