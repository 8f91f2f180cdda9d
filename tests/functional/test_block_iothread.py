# SPDX-License-Identifier: GPL-2.0-or-later
"""A node of any driver serves from an iothread, moves to the next one and is closed there."""
import nbd
import pytest

import ferry

SIZE = 4 * ferry.MIB


def node_raw(vm, work):
    vm.add_file(ferry.make_image(work / 'disk.raw', SIZE), 'raw', 'disk')


def node_qcow2(vm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', options='lazy_refcounts=on')
    vm.add_file(path, 'qcow2', 'disk', cache_clean_interval=1)


def node_throttle(vm, work):
    vm.cmd('object-add', qom_type='throttle-group', id='g', limits={'iops-total': 100000})
    vm.add('throttle', 'disk', throttle_group='g',
           file={'driver': 'file', 'filename': str(ferry.make_image(work / 'disk.raw', SIZE))})


def node_blkdebug(vm, work):
    vm.add('blkdebug', 'disk', image={'driver': 'file', 'filename': str(ferry.make_image(work / 'disk.raw', SIZE))})


def node_copy_on_read(vm, work):
    ferry.make_image(work / 'base.raw', SIZE)
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    vm.add('copy-on-read', 'disk', file={
        'driver': 'qcow2', 'file': {'driver': 'file', 'filename': str(path)},
        'backing': {'driver': 'raw', 'file': {'driver': 'file', 'filename': str(work / 'base.raw')}}})


NODES = [node_raw, node_qcow2, node_throttle, node_blkdebug, node_copy_on_read]


def export(vm, thread):
    vm.cmd('block-export-add', type='nbd', id=f'e-{thread}', node_name='disk', name='disk', writable=True,
           iothread=thread, fixed_iothread=True)
    return ferry.nbd_connect(f'nbd+unix:///disk?socket={vm.workdir}/nbd')


def unexport(vm, thread, mode='hard'):
    vm.cmd('block-export-del', id=f'e-{thread}', mode=mode)
    vm.wait('BLOCK_EXPORT_DELETED', id=f'e-{thread}')


@pytest.fixture
def threads(vmm):
    vm = vmm('-object', 'iothread,id=one', '-object', 'iothread,id=two')
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(vm.workdir / 'nbd')}})
    return vm


def work_in_turn(vm):
    for round_, thread in enumerate(('one', 'two', 'one')):
        client = export(vm, thread)
        client.pwrite(bytes([round_ + 1]) * 65536, 0)
        client.flush()
        assert bytes(client.pread(65536, 0)) == bytes([round_ + 1]) * 65536
        client.zero(65536, 65536)
        client.trim(65536, 131072)
        vm.cmd('query-blockstats')
        vm.cmd('query-named-block-nodes')
        client.shutdown()
        unexport(vm, thread)


@pytest.mark.parametrize('make', NODES, ids=lambda make: make.__name__.removeprefix('node_'))
def test_node_moves_from_thread_to_thread(threads, work, make):
    make(threads, work)
    work_in_turn(threads)
    threads.cmd('blockdev-del', node_name='disk')
    threads.quit()


def test_nbd_node_moves_also_while_its_server_is_gone(threads, nbdkit):
    server = nbdkit('memory', str(SIZE))
    threads.cmd('blockdev-add', server.node('disk', reconnect_delay=300))
    work_in_turn(threads)
    client = export(threads, 'one')
    server.kill()
    client.aio_pread(nbd.Buffer(512), 0)
    # The request waits for its server to come back, and with it what would remove the export.
    server.start()
    while client.aio_in_flight():
        client.poll(-1)
    server.kill()
    client.shutdown()
    unexport(threads, 'one')
    server.start()
    client = export(threads, 'two')
    client.pread(512, 0)
    client.shutdown()
    threads.quit()


def test_iothread_in_use_stays_and_names_its_users(threads, work):
    node_raw(threads, work)
    client = export(threads, 'one')
    with pytest.raises(ferry.QMPError, match="object 'one' is in use by export 'e-one', .*can not be deleted"):
        threads.cmd('object-del', id='one')
    client.pwrite(bytes(512), 0)
    client.shutdown()
    unexport(threads, 'one')
    threads.cmd('object-del', id='one')
    assert 'wrote' in threads.qemu_io('disk', 'write 0 512')


def test_second_user_cannot_take_the_node_away_from_a_fixed_one(threads, work):
    node_raw(threads, work)
    client = export(threads, 'one')
    with pytest.raises(ferry.QMPError, match="export 'e-two' in iothread 'two'.*NBD export 'disk' keeps it in iothread 'one'"):
        threads.cmd('block-export-add', type='nbd', id='e-two', node_name='disk', name='second', iothread='two',
                    fixed_iothread=True)
    threads.cmd('object-del', id='two')
    client.pwrite(bytes(512), 0)


@pytest.mark.parametrize('edge', ['file', 'backing'])
def test_edge_to_a_node_that_another_iothread_keeps_is_refused(threads, work, edge):
    for name, fmt in (('top', 'qcow2'), ('other', 'raw')):
        ferry.make_image(work / name, SIZE, fmt)
        threads.add('file', f'{name}-file', filename=str(work / name))
    threads.add('qcow2', 'disk', file='top-file', backing=None)
    threads.add('raw', 'other', file='other-file')
    threads.cmd('block-export-add', type='nbd', id='e', node_name='other', iothread='two', fixed_iothread=True)
    client = export(threads, 'one')
    options = {'driver': 'qcow2', 'node-name': 'disk', 'file': 'top-file', 'backing': None, edge: 'other'}
    with pytest.raises(ferry.QMPError, match="keeps it in iothread 'two'"):
        threads.cmd('blockdev-reopen', options=[options])
    client.pwrite(bytes(512), 0)
    assert bytes(client.pread(512, 0)) == bytes(512)


def test_new_backing_file_follows_into_the_iothread(threads, work):
    ferry.make_image(work / 'top', SIZE, 'qcow2')
    ferry.make_image(work / 'base', SIZE)
    ferry.qemu_io(work / 'base', 'write -P 3 0 64k')
    threads.add('file', 'top-file', filename=str(work / 'top'))
    threads.add('qcow2', 'disk', file='top-file', backing=None)
    threads.add_file(work / 'base', node_name='base')
    client = export(threads, 'one')
    for backing, byte in (('base', 3), (None, 0), ('base', 3)):
        threads.cmd('blockdev-reopen', options=[{'driver': 'qcow2', 'node-name': 'disk', 'file': 'top-file',
                                                 'backing': backing}])
        assert bytes(client.pread(512, 0)) == bytes([byte]) * 512
        assert 'failed' not in threads.qemu_io('base', 'read -P 3 0 64k')
    client.shutdown()
    unexport(threads, 'one')
    threads.cmd('object-del', id='one')


def test_old_disk_can_be_deleted_when_its_mirror_has_completed(threads, work):
    vm = threads
    vm.add_file(ferry.make_image(work / '0.raw', SIZE), node_name='disk')
    client = export(vm, 'one')
    for number in range(1, 16):
        vm.add_file(ferry.make_image(work / f'{number}.raw', SIZE), node_name=f'copy{number}')
        old = 'disk' if number == 1 else f'copy{number - 1}'
        vm.cmd('blockdev-mirror', job_id='j', device=old, target=f'copy{number}', sync='full')
        vm.wait('BLOCK_JOB_READY')
        client.pwrite(bytes([number]) * 4096, 0)
        vm.cmd('job-complete', id='j')
        vm.wait('BLOCK_JOB_COMPLETED')
        vm.cmd('blockdev-del', node_name=old)
    client.shutdown()
    unexport(vm, 'one')
