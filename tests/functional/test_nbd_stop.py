# SPDX-License-Identifier: GPL-2.0-or-later
"""The NBD server stops while clients connect and write: acknowledged writes are there, each client sees an end, and no
export is left."""
import threading

import nbd
import pytest

import ferry
from ferry import migration as m

SIZE = 8 * ferry.MIB
WRITERS, VISITORS, ROUNDS = 3, 2, 3


def delete(vm):
    vm.cmd('block-export-del', id='export-disk', mode='hard')


def stop(vm):
    vm.stop_exports()


ENDS = pytest.mark.parametrize('end', [delete, stop])


class Visitor(m.Worker):
    """Connects, reads and leaves, again and again, until it is turned away; `turned_away` says that it may be."""

    def __init__(self, uri, may_end):
        super().__init__()
        self.uri, self.may_end = uri, may_end
        self.count = 0
        self.visited = threading.Event()
        self.start()

    def work(self):
        while True:
            try:
                handle = ferry.nbd_connect(self.uri)
                handle.pread(512, 0)
                handle.shutdown()
            except nbd.Error:
                assert self.may_end.is_set()
                return self.count
            self.count += 1
            self.visited.set()


@ENDS
@pytest.mark.parametrize('iothread', [None, 'io0'], ids=['main', 'iothread'])
def test_each_client_sees_an_end_and_its_writes_are_there(vmm, work, end, iothread):
    vm = vmm('-object', 'iothread,id=io0')
    image = ferry.make_image(work / 'disk.raw', SIZE)
    vm.add_file(image, node_name='disk')
    model = ferry.Model(SIZE, image)
    for number in range(ROUNDS):
        uri = vm.export('disk', **({'iothread': iothread} if iothread else {}))
        writers = ferry.run_writers(uri, model, seed=number, count=WRITERS, fatal=False)
        may_end = threading.Event()
        visitors = [Visitor(uri, may_end) for _ in range(VISITORS)]
        for writer in writers:
            writer.wait_count(20)
        for visitor in visitors:
            assert visitor.visited.wait(m.LIMIT_S)
        may_end.set()
        end(vm)
        vm.wait('BLOCK_EXPORT_DELETED', id='export-disk')
        assert vm.cmd('query-block-exports') == []
        for writer in writers:
            writer.finish()
            assert isinstance(writer.error, nbd.Error), writer.error
        for visitor in visitors:
            visitor.result()
        model.check(image)
    vm.cmd('blockdev-del', node_name='disk')
    vm.cmd('object-del', id='io0')


@pytest.fixture
def drained(vmm, work):
    """A command waits in a drained section of the disk, for a request that hangs; a second monitor ends that."""
    paths = [f'{work}/{name}.qmp' for name in ('waits', 'resumes')]
    vm = vmm('-object', 'iothread,id=io0', *(word for path in paths for word in ('-qmp', f'unix:{path},server=on,wait=off')))
    waits, resumes = [ferry.QMPClient.connect(path) for path in paths]
    vm.add('blkdebug', 'hangs', image={'driver': 'file', 'filename': str(ferry.make_image(work / 'disk.raw', SIZE))})
    vm.add('raw', 'disk', file='hangs')

    def begin(**options):
        uri = vm.export('disk', **options)
        vm.qemu_io('hangs', 'break write_aio A')
        vm.qemu_io('disk', 'aio_write -P 1 1M 64k')
        vm.qemu_io('hangs', 'wait_break A')
        vm.cmd('trace-event-set-state', name='bdrv_drained_begin', enable=True)
        waits.send('blockdev-snapshot-sync', node_name='disk', snapshot_file=f'{work}/top.qcow2', snapshot_node_name='top')
        guard = ferry.Guard(m.LIMIT_S)
        while 'bdrv_drained_begin' not in vm.stderr():
            guard.left()
        return uri

    def resume():
        resumes.cmd('human-monitor-command', command_line='qemu-io hangs "resume A"')
    yield vm, begin, resume
    waits.close()
    resumes.close()


@ENDS
@pytest.mark.parametrize('iothread', [None, 'io0'], ids=['main', 'iothread'])
def test_client_that_waits_to_join_when_its_export_ends_sees_an_end(drained, end, iothread):
    """It has been let in, and joins after the drained section: the export that it joins has no end without it."""
    vm, begin, resume = drained
    uri = begin(**({'iothread': iothread} if iothread else {}))
    client = ferry.nbd_connect(uri)
    ended = m.Worker()
    ended.work = lambda: end(vm)
    ended.start()
    guard = ferry.Guard(m.LIMIT_S)
    while uri_is_served(uri):
        guard.left()
    resume()
    ended.result()
    vm.wait('BLOCK_EXPORT_DELETED', id='export-disk')
    ferry.nbd_failure(client.pread, 512, 0)
    assert vm.cmd('query-block-exports') == []


def uri_is_served(uri):
    """A newcomer finds the export; it does not wait to be let in."""
    try:
        handle = ferry.nbd_connect(uri)
    except nbd.Error:
        return False
    del handle          # without a word
    return True
