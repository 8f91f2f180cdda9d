# SPDX-License-Identifier: GPL-2.0-or-later
"""Every argument of drive-mirror and blockdev-mirror does what it says, and what cannot work is refused before anything changes."""
import json

import pytest

import ferry

MIB = ferry.MIB
SIZE = 16 * MIB


@pytest.fixture
def disk(vm, work):
    """A disk of 16 MiB, half of it data, and an empty target of the same size."""
    source = ferry.make_image(work / 'source.raw', SIZE, seed=1, data=SIZE // 2)
    ferry.make_image(work / 'target.raw', SIZE)
    vm.add_file(source, node_name='disk')
    vm.add_file(work / 'target.raw', node_name='copy', discard='unmap')
    return source


def finish(vm, verb='block-job-complete', job='m'):
    vm.wait('BLOCK_JOB_READY', device=job)
    vm.cmd(verb, device=job)
    return vm.wait('BLOCK_JOB_COMPLETED', device=job, where=lambda data: 'error' not in data)


def statuses(vm, job='m'):
    return [e['data']['status'] for e in vm.events if e['event'] == 'JOB_STATUS_CHANGE' and e['data']['id'] == job]


# --- what is refused ---

REFUSED = [
    ({'device': 'nope'}, 'nope'),
    ({'target': 'nope'}, 'nope'),
    ({'target': 'disk'}, 'itself'),
    ({'target': 'small'}, 'different sizes'),
    ({'target': 'large'}, 'different sizes'),
    ({'target': 'fixed'}, 'read-only'),
    ({'granularity': 1000}, 'power of 2'),
    ({'granularity': 256}, r'\[512B, 64MB\]'),
    ({'granularity': 128 * MIB}, r'\[512B, 64MB\]'),
    ({'buf-size': -1}, 'buf-size'),
    ({'speed': -1}, 'non-negative'),
    ({'sync': 'sideways'}, 'sync'),
    ({'job-id': '1bad'}, 'Invalid job ID'),
    ({'job-id': None}, 'Invalid job ID'),
    ({'replaces': 'nope'}, 'nope'),
    ({'replaces': 'copy'}, 'cannot give way'),
    ({'filter-node-name': 'disk'}, 'disk'),
    ({'filter-node-name': 'not a name'}, 'Invalid node-name'),
    ({'on-target-error': 'weep'}, 'on-target-error'),
    ({'copy-mode': 'sometimes'}, 'copy-mode'),
]


@pytest.mark.parametrize('change,message', REFUSED, ids=[json.dumps(c) for c, _ in REFUSED])
def test_refused_before_it_starts(vm, disk, change, message):
    vm.add('null-co', 'small', size=MIB)
    vm.add('null-co', 'large', size=2 * SIZE)
    vm.add('null-co', 'fixed', size=SIZE, read_only=True)
    args = {'job-id': 'm', 'device': 'disk', 'target': 'copy', 'sync': 'full', **change}
    before = vm.cmd('query-named-block-nodes', flat=True)
    with pytest.raises(ferry.QMPError, match=message) as error:
        vm.cmd('blockdev-mirror', {k: v for k, v in args.items() if v is not None})
    assert '\n' not in error.value.desc and not error.value.desc.endswith('.')
    assert vm.cmd('query-jobs') == []
    assert vm.cmd('query-named-block-nodes', flat=True) == before
    # Nothing is left behind that would refuse the right command.
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full')
    finish(vm)


def test_source_below_target_is_refused(vm, work):
    ferry.make_image(work / 'a.raw', SIZE)
    vm.add('file', 'proto', filename=str(work / 'a.raw'))
    vm.add('raw', 'disk', file='proto')
    for device, target in (('disk', 'proto'), ('proto', 'disk')):
        with pytest.raises(ferry.QMPError):
            vm.cmd('blockdev-mirror', job_id='m', device=device, target=target, sync='full')
    assert vm.cmd('query-jobs') == []


def test_drive_mirror_onto_its_own_file_is_refused(vm, disk):
    for mode in ('existing', 'absolute-paths'):
        with pytest.raises(ferry.QMPError):
            vm.cmd('drive-mirror', job_id='m', device='disk', target=str(disk), sync='full', mode=mode, format='raw')
    assert vm.cmd('query-jobs') == []
    assert disk.stat().st_size == SIZE


def test_second_job_on_the_same_nodes_is_refused(vm, disk, work):
    ferry.make_image(work / 'other.raw', SIZE)
    vm.add_file(work / 'other.raw', node_name='other')
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full', speed=MIB)
    with pytest.raises(ferry.QMPError, match="'m'"):
        vm.cmd('blockdev-mirror', job_id='m', device='disk', target='other', sync='full')
    for device, target in (('disk', 'other'), ('other', 'copy')):
        with pytest.raises(ferry.QMPError, match='in use|busy|onflict'):
            vm.cmd('blockdev-mirror', job_id='n', device=device, target=target, sync='full')
    with pytest.raises(ferry.QMPError):
        vm.cmd('blockdev-del', node_name='disk')
    vm.cmd('block-job-cancel', device='m', force=True)
    vm.wait('BLOCK_JOB_CANCELLED', device='m')


def test_unknown_format_and_missing_node_name_are_refused(vm, disk, work):
    target = str(work / 'new.img')
    with pytest.raises(ferry.QMPError, match='nonsense'):
        vm.cmd('drive-mirror', job_id='m', device='disk', target=target, sync='full', format='nonsense')
    with pytest.raises(ferry.QMPError, match='node-name'):
        vm.cmd('drive-mirror', job_id='m', device='disk', target=target, sync='full', format='raw', replaces='disk')
    with pytest.raises(ferry.QMPError, match='copy'):
        vm.cmd('drive-mirror', job_id='m', device='disk', target=target, sync='full', format='raw', node_name='copy')
    assert not (work / 'new.img').exists()


# --- what works ---

@pytest.mark.parametrize('granularity', [512, 4096, 65536, 64 * MIB])
@pytest.mark.parametrize('buf_size', [0, 1, 1 * MIB])
def test_any_granularity_and_buffer_size_copies_everything(vm, disk, work, granularity, buf_size):
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full', granularity=granularity, buf_size=buf_size)
    finish(vm)
    vm.quit()
    ferry.compare(disk, work / 'target.raw')


def test_events_come_in_order_and_carry_their_members(vm, disk):
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full')
    ready = vm.wait('BLOCK_JOB_READY')['data']
    assert ready == {'device': 'm', 'type': 'mirror', 'len': SIZE, 'offset': SIZE, 'speed': 0}
    vm.cmd('job-complete', id='m')
    done = vm.wait('BLOCK_JOB_COMPLETED')['data']
    assert done == ready
    vm.wait('JOB_STATUS_CHANGE', status='null')


def test_manual_finalize_and_dismiss(vm, disk):
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full', auto_finalize=False, auto_dismiss=False)
    vm.wait('BLOCK_JOB_READY')
    vm.cmd('job-complete', id='m')
    assert vm.wait('BLOCK_JOB_PENDING')['data'] == {'type': 'mirror', 'id': 'm'}
    assert vm.job('m')['status'] == 'pending'
    assert not vm.seen('BLOCK_JOB_COMPLETED')
    vm.cmd('job-finalize', id='m')
    vm.wait('BLOCK_JOB_COMPLETED')
    assert vm.job('m')['status'] == 'concluded'
    assert vm.block_job('m')['auto-finalize'] is False and vm.block_job('m')['auto-dismiss'] is False
    vm.cmd('blockdev-del', node_name='disk')     # the source is free already
    vm.cmd('job-dismiss', id='m')
    assert vm.cmd('query-jobs') == []


def test_filter_node_has_the_name_asked_for(vm, disk):
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full', filter_node_name='top')
    nodes = {n['node-name']: n for n in vm.cmd('query-named-block-nodes', flat=True)}
    assert nodes['top']['drv'] == 'mirror_top'
    finish(vm)
    assert 'top' not in {n['node-name'] for n in vm.cmd('query-named-block-nodes', flat=True)}


def test_nodes_can_be_deleted_as_soon_as_the_job_has_ended(vm, disk):
    for verb in ('block-job-complete', 'block-job-cancel'):
        vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full')
        finish(vm, verb)
        vm.cmd('blockdev-del', node_name='copy')
        vm.add_file(disk.parent / 'target.raw', node_name='copy')
    vm.cmd('blockdev-del', node_name='disk')


def test_replaces_puts_the_copy_in_place_of_a_node_below_the_source(vm, disk, work):
    vm.add('copy-on-read', 'above', file='disk')
    vm.cmd('blockdev-mirror', job_id='m', device='above', target='copy', sync='full', replaces='disk')
    finish(vm)
    io = ferry.nbd_connect(vm.export('above'))
    io.pwrite(b'\x42' * 65536, 0)
    io.shutdown()
    vm.quit()
    assert ferry.read_raw(work / 'target.raw')[:65536] == b'\x42' * 65536
    assert ferry.read_raw(work / 'target.raw')[65536:] == ferry.read_raw(disk)[65536:]
    assert ferry.read_raw(disk)[:65536] != b'\x42' * 65536


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_drive_mirror_creates_its_target(vm, disk, work, fmt):
    vm.cmd('drive-mirror', job_id='m', device='disk', target=str(work / 'new.img'), sync='full', format=fmt, node_name='new')
    assert 'new' in {n['node-name'] for n in vm.cmd('query-named-block-nodes', flat=True)}
    finish(vm)
    vm.quit()
    ferry.compare(disk, work / 'new.img', b_fmt=fmt)


def test_drive_mirror_takes_the_format_of_its_source(vm, work):
    source = ferry.make_image(work / 'source.qcow2', SIZE, 'qcow2', seed=3, data=MIB)
    vm.add_file(source, 'qcow2', node_name='disk')
    vm.cmd('drive-mirror', job_id='m', device='disk', target=str(work / 'new.img'), sync='full')
    finish(vm)
    vm.quit()
    assert json.loads(ferry.qemu_img('info', '--output=json', str(work / 'new.img')))['format'] == 'qcow2'


def test_drive_mirror_into_an_existing_image_overwrites_what_was_there(vm, disk, work):
    target = ferry.make_image(work / 'existing.raw', SIZE, seed=9, data=SIZE)
    vm.cmd('drive-mirror', job_id='m', device='disk', target=str(target), sync='full', format='raw', mode='existing')
    finish(vm)
    vm.quit()
    ferry.compare(disk, target)


def overlay(work, vm, name='disk'):
    base = ferry.make_image(work / 'base.qcow2', SIZE, 'qcow2', seed=4, data=SIZE // 2)
    top = ferry.make_image(work / 'top.qcow2', SIZE, 'qcow2', backing=base, backing_fmt='qcow2')
    ferry.qemu_io(top, 'write -P 0xaa 1M 1M', 'write -P 0xbb 12M 4k',
                  'write -z 2M 1M', fmt='qcow2')      # the zeroes hide data of the backing file
    vm.add_file(top, 'qcow2', node_name=name)
    return base, top


def test_sync_top_copies_the_top_layer_and_keeps_the_backing_file(vm, work):
    base, top = overlay(work, vm)
    target = work / 'new.qcow2'
    vm.cmd('drive-mirror', job_id='m', device='disk', target=str(target), sync='top', format='qcow2')
    data = vm.wait('BLOCK_JOB_READY')['data']
    assert data['len'] < 3 * MIB
    vm.cmd('block-job-complete', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', where=lambda d: 'error' not in d)
    vm.quit()
    assert json.loads(ferry.qemu_img('info', '--output=json', str(target)))['full-backing-filename'] == str(base)
    ferry.compare(top, target, 'qcow2', 'qcow2')
    assert ferry.allocated(target) < ferry.allocated(base)


@pytest.mark.parametrize('sync', ['top', 'full'])
def test_existing_overlay_gets_its_backing_file_at_the_pivot(vm, work, sync):
    base, top = overlay(work, vm)
    target = ferry.make_image(work / 'new.qcow2', SIZE, 'qcow2', backing=base, backing_fmt='qcow2')
    io = ferry.nbd_connect(vm.export('disk'))
    vm.cmd('drive-mirror', job_id='m', device='disk', target=str(target), sync=sync, format='qcow2', mode='existing',
           node_name='new')
    finish(vm)
    seen = bytes(io.pread(SIZE, 0))
    io.shutdown()
    assert seen == bytes(ferry.read_raw(top, 'qcow2'))
    vm.quit()
    ferry.compare(top, target, 'qcow2', 'qcow2')


def test_sync_none_copies_only_new_writes_over_the_source_as_backing_file(vm, disk, work):
    target = work / 'new.qcow2'
    vm.cmd('drive-mirror', job_id='m', device='disk', target=str(target), sync='none', format='qcow2')
    vm.wait('BLOCK_JOB_READY')
    io = ferry.nbd_connect(vm.export('disk'))
    io.pwrite(b'\x11' * 65536, 3 * MIB)
    io.shutdown()
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', where=lambda d: 'error' not in d)
    vm.quit()
    ferry.compare(disk, target, b_fmt='qcow2')
    assert ferry.allocated(target) < MIB


def test_target_is_zero_saves_asking(vm, disk, work):
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full', target_is_zero=True)
    finish(vm)
    vm.quit()
    ferry.compare(disk, work / 'target.raw')


def test_the_device_name_names_the_job(vmm, work):
    source = ferry.make_image(work / 'source.raw', SIZE, seed=1, data=MIB)
    vm = vmm('-drive', f'if=none,id=drive0,file={source},format=raw')
    vm.cmd('drive-mirror', device='drive0', target=str(work / 'new.raw'), sync='full', format='raw')
    finish(vm, job='drive0')
    assert vm.cmd('query-block')[0]['inserted']['file'] == str(work / 'new.raw')
    vm.quit()
    ferry.compare(source, work / 'new.raw')


# --- thin ---

@pytest.mark.parametrize('dirty', [False, True])
@pytest.mark.parametrize('mode', ['background', 'write-blocking'])
def test_holes_stay_holes(vm, work, dirty, mode):
    source = ferry.make_image(work / 'source.raw', 64 * MIB, seed=5, data=4 * MIB)
    ferry.qemu_io(source, *[f'write -P 0x77 {32 * MIB + i * 256 * 1024} 4k' for i in range(16)])
    target = ferry.make_image(work / 'copy.raw', 64 * MIB, **({'seed': 6, 'data': 64 * MIB} if dirty else {}))
    vm.add_file(source, node_name='disk', discard='unmap')
    vm.add_file(target, node_name='copy', discard='unmap')
    io = ferry.nbd_connect(vm.export('disk'))
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full', copy_mode=mode)
    vm.wait('BLOCK_JOB_READY')
    for i in range(16):
        io.pwrite(bytes([i + 1]) * 4096, 48 * MIB + i * 256 * 1024)
    io.zero(MIB, 0)
    io.trim(MIB, MIB)
    io.shutdown()
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', where=lambda d: 'error' not in d)
    vm.quit()
    ferry.compare(source, target)
    assert ferry.allocated(target) <= ferry.allocated(source) + 64 * 1024


def test_huge_empty_disk_is_ready_at_once(vm, work):
    source = ferry.make_image(work / 'source.raw', 1 << 40)
    ferry.qemu_io(source, f'write -P 1 {500 << 30} 1M', f'write -P 2 {(1 << 40) - 65536} 64k')
    ferry.make_image(work / 'copy.raw', 1 << 40)
    vm.add_file(source, node_name='disk')
    vm.add_file(work / 'copy.raw', node_name='copy')
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full')
    finish(vm)
    vm.quit()
    assert ferry.allocated(work / 'copy.raw') <= ferry.allocated(source) + 64 * 1024
    ferry.compare(source, work / 'copy.raw')
