# SPDX-License-Identifier: GPL-2.0-or-later
"""What a mirror's requests look like: as large as the device is quick, contiguous runs as one, memory within its bound."""
import re

import pytest

import ferry

MIB = ferry.MIB


def start(vm, **args):
    vm.cmd('blockdev-mirror', {'job-id': 'm', 'device': 'disk', 'target': 'copy', 'sync': 'full',
                               **{k.replace('_', '-'): v for k, v in args.items()}})


def cancel(vm):
    vm.cmd('block-job-cancel', device='m', force=True)
    vm.wait('BLOCK_JOB_CANCELLED', device='m')


def traced(vm, point, field):
    """The values of one field of a trace point, in order."""
    return [int(value) for value in re.findall(rf'\b{point}\b.*?\b{field} (\d+)', vm.stderr())]


# --- size ---

# How they grow and shrink with what was measured is in tests/unit/test-copy-pace.c; here the machine's speed must not matter.

def test_requests_are_between_1_and_16_mib_where_nothing_is_slow(vmm, work):
    vm = vmm('-trace', 'blk_co_pwritev')
    vm.add_file(ferry.make_image(work / 'source.raw', 256 * MIB, seed=1), node_name='disk')
    vm.add('null-co', 'copy', size=256 * MIB)
    start(vm, buf_size=64 * MIB)
    vm.wait('BLOCK_JOB_READY', device='m')
    cancel(vm)
    sizes = traced(vm, 'blk_co_pwritev', 'bytes')
    assert sum(sizes) == 256 * MIB
    assert MIB <= max(sizes) <= 16 * MIB


def test_a_contiguous_dirty_run_leaves_in_whole_requests(vmm, work):
    """READY, then 8 MiB of writes of 64 KiB each while the job is paused."""
    vm = vmm('-trace', 'blk_co_pwritev')
    vm.add_file(ferry.make_image(work / 'source.raw', 256 * MIB, seed=1), node_name='disk')
    vm.add('null-co', 'copy', size=256 * MIB)
    start(vm, buf_size=64 * MIB)
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.cmd('block-job-pause', device='m')
    io = ferry.nbd_connect(vm.export('disk'))
    for i in range(128):
        io.pwrite(b'\1' * 65536, 16 * MIB + i * 65536)
    io.shutdown()
    before = len(traced(vm, 'blk_co_pwritev', 'bytes'))
    vm.cmd('block-job-resume', device='m')
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m')
    sizes = traced(vm, 'blk_co_pwritev', 'bytes')[before:]
    assert sum(sizes) == 8 * MIB and len(sizes) <= 8


def test_a_slow_device_is_copied_in_small_requests(vmm, work, nbdkit):
    vm = vmm('-trace', 'nbd_client_request')
    server = nbdkit('--filter=delay', 'memory', '16M', 'wdelay=150ms')
    vm.add_file(ferry.make_image(work / 'source.raw', 16 * MIB, seed=1), node_name='disk')
    vm.cmd('blockdev-add', server.node('copy'))
    start(vm)
    vm.wait('BLOCK_JOB_READY', device='m')
    cancel(vm)
    sizes = traced(vm, r'nbd_client_request .*command 1\b', 'length')
    assert sum(sizes) == 16 * MIB
    assert sizes[0] == MIB and sizes[-1] <= MIB // 4


# --- copies that the nodes do by themselves ---

def mixed_image(work, compressed, plain):
    """A qcow2 image with so many bytes of compressed clusters, then of plain ones."""
    raw = work / 'text.raw'
    raw.write_bytes(bytes(range(256)) * ((compressed + plain) // 256))
    image = work / 'source.qcow2'
    ferry.qemu_img('convert', '-c', '-O', 'qcow2', raw, image)
    raw.unlink()
    ferry.qemu_io(image, *[f'write -P {i + 1} {compressed + i * MIB} 1M' for i in range(plain // MIB)], fmt='qcow2')
    return image


def test_offloading_is_tried_rarely_where_it_is_refused_and_used_again_where_it_works(vmm, work):
    vm = vmm('-trace', 'copy_offload')
    image = mixed_image(work, 16 * MIB, 96 * MIB)
    vm.add_file(image, 'qcow2', node_name='disk')
    vm.add_file(ferry.make_image(work / 'copy.raw', 112 * MIB), node_name='copy')
    start(vm, buf_size=MIB)
    vm.wait('BLOCK_JOB_READY', device='m')
    cancel(vm)
    tries = re.findall(r'copy_offload .*bytes (\d+) ret (-?\d+)', vm.stderr())
    done = [int(n) for n, ret in tries if ret == '0']
    refused = [int(n) for n, ret in tries if ret == '-95']
    assert 2 <= len(refused) <= 10          # of 32 pieces
    assert sum(done) >= 48 * MIB
    assert len(done) + len(refused) == len(tries)
    ferry.compare(image, work / 'copy.raw', 'qcow2', 'raw')


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_holes_of_a_file_in_memory_are_filled_with_large_pages_where_that_fits_in(vmm, work, fmt):
    """Data begins and ends anywhere, and the target holds something here and there; a small buf-size has no room for it."""
    source = ferry.make_image(work / 'source', 96 * MIB + 4096)
    for i, (offset, size) in enumerate([(0, 9 * MIB), (10 * MIB + 512, 7 * MIB), (20 * MIB - 4096, 8192), (32 * MIB, 64 * MIB + 4096)]):
        ferry.qemu_io(source, f'write -P {i + 1} {offset} {size}')
    for buf_size in (64 * MIB, 8 * MIB):
        copy = ferry.make_image(work / f'copy{buf_size}', 96 * MIB + 4096, fmt)
        ferry.qemu_io(copy, 'write -P 77 4M 64k', 'write -P 78 18M 3M', 'write -P 79 40M 1k', fmt=fmt)
        vm = vmm('-trace', 'file_copied')
        vm.add_file(source, node_name='disk', read_only=False)
        vm.add_file(copy, fmt, node_name='copy', discard='unmap')
        start(vm, buf_size=buf_size)
        vm.wait('BLOCK_JOB_READY', device='m')
        cancel(vm)
        assert sum(traced(vm, 'file_copied', 'bytes')) >= 32 * MIB
        large = sum(traced(vm, 'file_copied', 'in large pages'))
        assert large == 0 if buf_size < 9 * MIB else large <= 80 * MIB
        vm.quit()
        ferry.compare(source, copy, 'raw', fmt)
        assert ferry.allocated(copy) <= ferry.allocated(source) + MIB + (4 * MIB if fmt == 'qcow2' else 0)


# --- memory ---

def held(vm):
    return traced(vm, 'copy_memory', 'held')


@pytest.mark.parametrize('buf_size', [64 * 1024, 600 * 1024, 3 * MIB, 16 * MIB])
@pytest.mark.parametrize('source', ['raw', 'null-co', 'compressed'])
def test_what_is_held_stays_within_buf_size(vmm, work, source, buf_size):
    """A compressed image is copied partly by the nodes themselves, partly through buffers."""
    vm = vmm('-trace', 'copy_memory')
    if source == 'null-co':
        vm.add('null-co', 'disk', size=64 * MIB, read_zeroes=False)
    else:
        if source == 'compressed':
            image = mixed_image(work, 32 * MIB, 32 * MIB)
        else:
            image = ferry.make_image(work / 'source.raw', 64 * MIB, seed=3, data=32 * MIB)
        vm.add_file(image, 'qcow2' if source == 'compressed' else 'raw', node_name='disk')
    vm.add_file(ferry.make_image(work / 'copy.raw', 64 * MIB), node_name='copy')
    start(vm, buf_size=buf_size)
    vm.wait('BLOCK_JOB_READY', device='m')
    cancel(vm)
    one = MIB // 2      # what a single request needs may be more than a small buf-size
    assert held(vm)
    assert max(held(vm)) <= max(buf_size, one)
    if source == 'compressed':
        ferry.compare(image, work / 'copy.raw', 'qcow2', 'raw')
