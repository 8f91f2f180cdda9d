# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of source and target follow their policy; the source goes on, and the copy is either right or never called so."""
import pytest

import ferry

MIB = ferry.MIB
SIZE = 16 * MIB


def debug_node(vm, name, path, *errors, **options):
    """A raw node whose requests fail as the inject-error rules say."""
    return vm.add('raw', name, file={'driver': 'blkdebug', 'node-name': f'{name}-debug',
                                     'image': {'driver': 'file', 'filename': str(path)},
                                     'inject-error': list(errors), **options})


def once(event, errno=5, sector=None):
    """The first such request fails, whatever the engine that copies."""
    rule = {'event': event, 'errno': errno, 'once': True, 'immediately': True}
    return rule if sector is None else {**rule, 'sector': sector}


@pytest.fixture
def images(work):
    source = ferry.make_image(work / 'source.raw', SIZE, seed=1, data=SIZE // 2)
    target = ferry.make_image(work / 'target.raw', SIZE)
    return source, target


def faulty(vm, images, side, error):
    """Nodes `disk` and `copy`, one of which fails once; the name of the operation that does."""
    source, target = images
    if side == 'source':
        debug_node(vm, 'disk', source, once('read_aio', error))
        vm.add_file(target, node_name='copy')
        return 'read'
    vm.add_file(source, node_name='disk')
    debug_node(vm, 'copy', target, once('write_aio', error))
    return 'write'


def write(vm, pattern, offset, node='disk'):
    """A client's write of 64 KiB."""
    if node not in vm.clients:
        vm.clients[node] = ferry.nbd_connect(vm.export(node, name=node))
    vm.clients[node].pwrite(bytes([pattern]) * 65536, offset)


@pytest.fixture(autouse=True)
def clients(vm):
    vm.clients = {}
    yield
    vm.clients.clear()


def mirror(vm, side, policy, **more):
    vm.cmd('blockdev-mirror', {'job-id': 'm', 'device': 'disk', 'target': 'copy', 'sync': 'full',
                               f'on-{side}-error': policy, **more})


def complete(vm):
    vm.cmd('block-job-complete', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)
    vm.quit()


@pytest.mark.parametrize('side', ['source', 'target'])
def test_report_ends_the_job_with_the_error(vm, images, side):
    operation = faulty(vm, images, side, 5)
    mirror(vm, side, 'report')
    event = vm.wait('BLOCK_JOB_ERROR', device='m')['data']
    assert event == {'device': 'm', 'operation': operation, 'action': 'report'}
    assert 'Input/output error' in vm.wait('BLOCK_JOB_COMPLETED', device='m')['data']['error']
    assert vm.cmd('query-jobs') == []
    write(vm, 1, 0)


@pytest.mark.parametrize('side', ['source', 'target'])
def test_ignore_tries_again_and_the_copy_is_whole(vm, images, side):
    operation = faulty(vm, images, side, 5)
    mirror(vm, side, 'ignore')
    event = vm.wait('BLOCK_JOB_ERROR', device='m')['data']
    assert event == {'device': 'm', 'operation': operation, 'action': 'ignore'}
    vm.wait('BLOCK_JOB_READY', device='m')
    assert vm.block_job('m')['io-status'] == 'ok'
    complete(vm)
    ferry.compare(*images)


@pytest.mark.parametrize('side', ['source', 'target'])
@pytest.mark.parametrize('policy,error', [('stop', 5), ('stop', 28), ('enospc', 28)])
def test_stop_pauses_and_resume_goes_on(vm, images, side, policy, error):
    faulty(vm, images, side, error)
    mirror(vm, side, policy)
    assert vm.wait('BLOCK_JOB_ERROR', device='m')['data']['action'] == 'stop'
    vm.job_until('m', 'paused')
    job = vm.block_job('m')
    assert job['paused'] and job['io-status'] == ('nospace' if error == 28 else 'failed')
    write(vm, 1, MIB)                                # the disk itself goes on
    vm.cmd('block-job-resume', device='m')
    assert vm.block_job('m')['io-status'] == 'ok'
    vm.wait('BLOCK_JOB_READY', device='m')
    complete(vm)
    ferry.compare(*images)


@pytest.mark.parametrize('side', ['source', 'target'])
def test_enospc_policy_reports_other_errors(vm, images, side):
    faulty(vm, images, side, 5)
    mirror(vm, side, 'enospc')
    assert vm.wait('BLOCK_JOB_ERROR', device='m')['data']['action'] == 'report'
    assert 'error' in vm.wait('BLOCK_JOB_COMPLETED', device='m')['data']


@pytest.mark.parametrize('verb,event', [('block-job-cancel', 'BLOCK_JOB_CANCELLED')])
def test_a_stopped_job_can_be_cancelled_by_force(vm, images, verb, event):
    faulty(vm, images, 'target', 5)
    mirror(vm, 'target', 'stop')
    vm.wait('BLOCK_JOB_ERROR', device='m')
    vm.job_until('m', 'paused')
    with pytest.raises(ferry.QMPError, match='paused'):
        vm.cmd(verb, device='m')
    vm.cmd(verb, device='m', force=True)
    vm.wait(event, device='m')


@pytest.mark.parametrize('when', ['ready', 'complete', 'cancel'])
def test_a_failed_flush_is_never_a_good_copy(vm, images, when):
    source, target = images
    vm.add_file(source, node_name='disk')
    states = {'ready': 1, 'complete': 2, 'cancel': 2}
    debug_node(vm, 'copy', target, {'event': 'flush_to_disk', 'errno': 5, 'state': states[when]},
               **{'set-state': [{'event': 'flush_to_disk', 'state': 1, 'new_state': 2}]})
    write(vm, 6, 0)
    mirror(vm, 'target', 'report')
    if when != 'ready':
        vm.wait('BLOCK_JOB_READY', device='m')
        write(vm, 7, 0)                             # so that there is something to flush
        vm.cmd(f'block-job-{when}', device='m')
    assert 'error' in vm.wait('BLOCK_JOB_COMPLETED', device='m')['data']
    nodes = vm.cmd('query-named-block-nodes', flat=True)
    assert 'disk' in {n['node-name'] for n in nodes}


def test_write_blocking_acknowledges_writes_that_only_the_target_refuses(vm, images):
    source, target = images
    vm.add_file(source, node_name='disk')
    debug_node(vm, 'copy', target, {'event': 'write_aio', 'errno': 5, 'once': True, 'state': 2},
               **{'set-state': [{'event': 'flush_to_disk', 'state': 1, 'new_state': 2}]})
    write(vm, 0x59, 0)
    mirror(vm, 'target', 'stop', **{'copy-mode': 'write-blocking'})
    vm.wait('BLOCK_JOB_READY', device='m')
    write(vm, 0x5a, 0)                               # succeeds
    vm.wait('BLOCK_JOB_ERROR', device='m')
    write(vm, 0x5b, MIB)
    vm.cmd('block-job-resume', device='m')
    vm.job_until('m', 'ready')
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)
    vm.quit()
    ferry.compare(*images)


def test_enospc_on_a_small_file_system_is_survived(vm, work, need):
    need.root()
    small = work / 'small'
    small.mkdir()
    ferry.images.run_tool('mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', small)
    try:
        source = ferry.make_image(work / 'source.raw', SIZE, seed=1, data=SIZE // 2)
        vm.add_file(source, node_name='disk')
        vm.cmd('drive-mirror', job_id='m', device='disk', target=str(small / 'copy.raw'), format='raw', sync='full',
               on_target_error='enospc')
        vm.wait('BLOCK_JOB_ERROR', device='m')
        vm.job_until('m', 'paused')
        assert vm.block_job('m')['io-status'] == 'nospace'
        ferry.images.run_tool('mount', '-o', 'remount,size=64m', small)
        vm.cmd('block-job-resume', device='m')
        vm.wait('BLOCK_JOB_READY', device='m')
        complete(vm)
        ferry.compare(source, small / 'copy.raw')
    finally:
        vm.close()
        ferry.images.run_tool('umount', '-l', small)


# --- a target that dies ---

@pytest.fixture
def remote(vm, work, qemu_nbd):
    """A disk under writers and an NBD target; (server, model, writers, source)."""
    source = ferry.make_image(work / 'source.raw', 4 * SIZE, seed=1, data=4 * SIZE)
    target = ferry.make_image(work / 'target.raw', 4 * SIZE)
    model = ferry.Model(4 * SIZE, source)
    server = qemu_nbd(target, 'raw')
    vm.add_file(source, node_name='disk')
    vm.cmd('blockdev-add', server.node('copy'))
    writers = ferry.run_writers(vm.export('disk'), model, seed=3, count=2, rate=4 * MIB)
    yield server, model, writers, target
    for writer in writers:
        writer.stop()


def resume_until_ready(vm):
    """The client looks for its server by itself, but until it has found it every resume ends in another error."""
    while not vm.seen('BLOCK_JOB_READY'):
        job = vm.block_job('m')
        assert job, 'the job is gone'
        if job['status'] == 'paused' and job['io-status'] != 'ok':
            vm.cmd('block-job-resume', device='m')


@pytest.mark.parametrize('mode', ['background', 'write-blocking'])
def test_a_dead_target_stops_the_job_not_the_disk_and_resume_goes_on(vm, remote, mode):
    server, model, writers, target = remote
    mirror(vm, 'target', 'stop', speed=16 * MIB, **{'copy-mode': mode})
    writers[0].wait_count(20)
    server.kill()
    vm.wait('BLOCK_JOB_ERROR', device='m')
    vm.job_until('m', 'paused')
    offset = vm.block_job('m')['offset']
    writers[0].wait_count(20)                        # the disk goes on
    server.start()
    vm.cmd('block-job-set-speed', device='m', speed=0)
    assert vm.block_job('m')['offset'] >= offset     # it goes on where it was
    resume_until_ready(vm)
    for writer in writers:
        writer.stop()
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)
    vm.quit()
    model.check(target)


@pytest.mark.parametrize('paused', [False, True])
def test_a_hanging_target_does_not_delay_a_forced_cancel(vm, remote, paused):
    server, model, writers, target = remote
    mirror(vm, 'target', 'stop')
    server.signal(19)                                # SIGSTOP: it answers nothing any more
    writers[0].wait_count(20)
    if paused:
        vm.cmd('block-job-pause', device='m')
    vm.cmd('block-job-cancel', device='m', force=True)
    vm.wait('BLOCK_JOB_CANCELLED', device='m')
    writers[0].wait_count(20)
    server.signal(18)


def test_a_target_that_hangs_at_the_pivot_can_be_given_up(vm, remote):
    server, model, writers, target = remote
    mirror(vm, 'target', 'report', **{'auto-finalize': False})
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.cmd('block-job-complete', device='m')
    vm.wait('BLOCK_JOB_PENDING', id='m')
    writers[0].wait_count(10)                        # in step with the disk: something to flush
    server.signal(19)
    vm.cmd('job-finalize', id='m')
    vm.cmd('block-job-cancel', device='m', force=True)
    vm.wait('BLOCK_JOB_CANCELLED', device='m')
    writers[0].wait_count(20)                        # on the source, as before
    server.signal(18)
