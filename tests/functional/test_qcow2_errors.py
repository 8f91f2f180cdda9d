# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow2 when the file below fails: no request that succeeded is lost, and the image stays free of corruption."""
import random

import nbd
import pytest

import ferry

MIB = ferry.MIB
SIZE = 16 * MIB
EVENTS = ('l1_update', 'l2_load', 'l2_update', 'l2_alloc_write', 'read_aio', 'write_aio', 'cow_read', 'cow_write', 'refblock_load',
          'refblock_update', 'refblock_alloc', 'reftable_update', 'reftable_grow', 'refblock_alloc_write_table',
          'refblock_alloc_switch_table', 'cluster_alloc', 'cluster_free', 'flush_to_disk', 'write_compressed')


def add_failing(vm, path, rules, **options):
    vm.add('qcow2', 'disk', discard='unmap', **options, backing=None,
           file={'driver': 'blkdebug', 'inject-error': rules, 'image': {'driver': 'file', 'filename': str(path), 'discard': 'unmap'}})


def random_load(client, rng, count, model):
    """Random requests; the model keeps, for each 512 bytes, what may be there. Returns how many failed."""
    failed = 0
    for number in range(count):
        size = rng.choice((512, 4096, 65536, 200 * 512))
        offset = rng.randrange(0, SIZE - size + 512, 512)
        what, value = rng.choice(('write', 'write', 'write', 'zero', 'trim', 'flush')), number % 255 + 1
        sectors = range(offset // 512, (offset + size) // 512)
        try:
            if what == 'write':
                client.pwrite(bytes([value]) * size, offset)
            elif what == 'zero':
                value = 0
                client.zero(size, offset)
            elif what == 'trim':
                value = 0
                client.trim(size, offset)
            else:
                client.flush()
                continue
            for sector in sectors:
                model[sector] = {value} if what != 'trim' else model[sector] | {value}
        except nbd.Error:
            failed += 1
            for sector in sectors if what != 'flush' else ():
                model[sector] = model[sector] | {value}
    return failed


def check_contents(contents, model):
    for sector, allowed in enumerate(model):
        assert contents[sector * 512] in allowed, f'sector {sector} holds {contents[sector * 512]}, not one of {allowed}'


@pytest.mark.parametrize('shape', ('', 'cluster_size=4k,refcount_bits=64', 'extended_l2=on', 'cluster_size=512,refcount_bits=64',
                                   'lazy_refcounts=on,cluster_size=4k'), ids=lambda s: s or 'default')
@pytest.mark.parametrize('event', EVENTS)
def test_one_error_at_every_event(vmm, work, event, shape):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', options=shape)
    vm = vmm()
    add_failing(vm, path, [{'event': event, 'once': True, 'errno': 5}], l2_cache_size=65536)
    rng = random.Random(len(shape) * 31 + len(event))
    model = [{0}] * (SIZE // 512)
    client = ferry.nbd_connect(vm.export('disk'))
    random_load(client, rng, 150, model)
    client.flush()
    client.shutdown()
    vm.quit()
    if 'lazy' in shape and 'Could not write the metadata' in vm.stderr():
        # The error came when it was closed: it is dirty still, and repaired when it is opened again.
        vm = vmm()
        vm.add_file(path, 'qcow2', 'disk')
        vm.quit()
    ferry.check_qcow2(path, leaks=True)
    check_contents(ferry.read_raw(path, 'qcow2'), model)


def test_full_file_system(vmm, work):
    """Writes fail with ENOSPC where there is no room; the rest goes on, and what was acknowledged can be read."""
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    vm = vmm()
    # Every write beyond 4 MiB of the file fails.
    add_failing(vm, path, [{'event': 'none', 'iotype': 'write', 'sector': s, 'errno': 28} for s in range(8192, 8192 + 2048, 128)])
    model = [{0}] * (SIZE // 512)
    client = ferry.nbd_connect(vm.export('disk'))
    failed = random_load(client, random.Random(9), 300, model)
    assert failed
    client.shutdown()
    vm.quit()
    ferry.check_qcow2(path, leaks=True)
    check_contents(ferry.read_raw(path, 'qcow2'), model)


@pytest.mark.parametrize('shape', ('', 'cluster_size=512', 'extended_l2=on', 'compat=0.10', 'cluster_size=512,refcount_bits=64'),
                         ids=lambda s: s or 'default')
def test_resize(vm, work, shape):
    path = ferry.make_image(work / 'disk.qcow2', MIB, 'qcow2', options=shape)
    vm.add_file(path, 'qcow2', 'disk', discard='unmap')
    client = ferry.nbd_connect(vm.export('disk', name='a'))
    client.pwrite(b'\x11' * MIB, 0)
    client.shutdown()
    vm.cmd('block-export-del', id='export-a')
    vm.wait('BLOCK_EXPORT_DELETED', id='export-a')
    for size in (700 * 1024 + 512, 40 * MIB, 300 * MIB, 3 * MIB):
        vm.cmd('block_resize', node_name='disk', size=size)
    with pytest.raises(ferry.QMPError, match='multiple of 512'):
        vm.cmd('block_resize', node_name='disk', size=1000)
    client = ferry.nbd_connect(vm.export('disk', name='b'))
    kept = 700 * 1024 + 512
    assert client.get_size() == 3 * MIB
    assert client.pread(kept, 0) == b'\x11' * kept
    assert client.pread(MIB, kept) == bytes(MIB)
    client.pwrite(b'\x22' * MIB, 2 * MIB)
    client.shutdown()
    vm.quit()
    ferry.check_qcow2(path)


@pytest.mark.parametrize('shape', ('', 'compat=0.10', 'extended_l2=on'), ids=lambda s: s or 'default')
def test_grown_overlay_does_not_show_more_of_its_backing_file(vm, work, shape):
    base = ferry.make_image(work / 'base.raw', 4 * MIB, seed=1)
    path = ferry.make_image(work / 'disk.qcow2', MIB + 512, 'qcow2', backing=base, options=shape)
    vm.add_file(path, 'qcow2', 'disk')
    vm.cmd('block_resize', node_name='disk', size=6 * MIB)
    vm.quit()
    contents = ferry.read_raw(path, 'qcow2')
    assert contents[:MIB + 512] == ferry.read_raw(base)[:MIB + 512]
    assert contents[MIB + 512:] == bytes(5 * MIB - 512)
    ferry.check_qcow2(path)


REFUSED = [({'l2-cache-entry-size': 1000}, 'power of two'), ({'l2-cache-entry-size': 131072}, 'power of two'),
           ({'cache-size': 1 << 20, 'l2-cache-size': 1 << 19, 'refcount-cache-size': 1 << 19}, 'same time'),
           ({'cache-size': 1 << 20, 'l2-cache-size': 1 << 21}, 'l2-cache-size may not exceed'),
           ({'cache-size': 1 << 20, 'refcount-cache-size': 1 << 21}, 'refcount-cache-size may not exceed'),
           ({'l2-cache-size': -1}, 'l2-cache-size'), ({'cache-clean-interval': -1}, 'interval'),
           ({'data-file': {'driver': 'null-co'}}, 'data-file')]


@pytest.mark.parametrize('options,message', REFUSED, ids=str)
def test_refused_options(vm, work, options, message):
    path = ferry.make_image(work / 'disk.qcow2', MIB, 'qcow2')
    with pytest.raises(ferry.QMPError, match=message):
        vm.add_file(path, 'qcow2', 'disk', **options)


def test_v3_options_need_v3(vm, work):
    path = ferry.make_image(work / 'disk.qcow2', MIB, 'qcow2', options='compat=0.10')
    for options in ({'lazy-refcounts': True}, {'discard-no-unref': True}):
        with pytest.raises(ferry.QMPError):
            vm.add_file(path, 'qcow2', 'disk', **options)


@pytest.mark.parametrize('options', ({}, {'pass-discard-request': False}, {'discard-no-unref': True}), ids=str)
def test_discard_reaches_the_file(vm, work, options):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    vm.add_file(path, 'qcow2', 'disk', discard='unmap', **options)
    client = ferry.nbd_connect(vm.export('disk'))
    client.pwrite(b'\x11' * 8 * MIB, 0)
    client.flush()
    before = ferry.allocated(path)
    assert before >= 8 * MIB
    client.trim(8 * MIB, 0)
    client.flush()
    assert client.pread(MIB, 0) == bytes(MIB)
    passed = options.get('pass-discard-request', True)
    assert (ferry.allocated(path) < MIB) == passed
    client.pwrite(b'\x12' * 8 * MIB, 0)
    client.shutdown()
    vm.quit()
    # Whatever was freed is used again.
    assert path.stat().st_size < 9 * MIB
    ferry.check_qcow2(path)
