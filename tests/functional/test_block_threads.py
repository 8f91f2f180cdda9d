# SPDX-License-Identifier: GPL-2.0-or-later
"""Every command on nodes does the same whether their graph is in the main loop or in an iothread, over files and over NBD."""
import json

import pytest

import ferry

SIZE = 4 * ferry.MIB
ROOM = 8 * ferry.MIB        # of a file below qcow2, as a server's exports do not grow


class World:
    """A binary with qcow2 nodes over files or NBD servers, and a log of what commands returned."""

    def __init__(self, vm, lab, folder, kind, thread):
        self.vm, self.lab, self.folder, self.kind, self.thread = vm, lab, folder, kind, thread
        self.log = []
        folder.mkdir()
        vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(folder / 'out')}})

    def protocol(self, name):
        """Options of a protocol node over an image that exists."""
        if self.kind == 'file':
            return {'driver': 'file', 'filename': str(self.folder / name)}
        server = self.lab.qemu_nbd(self.folder / name)
        return {'driver': 'nbd', 'server': server.address}

    def image(self, name, fmt='qcow2', size=SIZE):
        path = ferry.make_image(self.folder / name, size, fmt)
        if fmt == 'qcow2' and self.kind == 'nbd':
            with open(path, 'r+b') as file:
                file.truncate(ROOM)
        return path

    def node(self, name, fmt='qcow2', **options):
        """A node `name` over a node `name-file`, over a new image."""
        self.image(name, fmt)
        self.vm.cmd('blockdev-add', {**self.protocol(name), 'node-name': f'{name}-file'})
        self.vm.add(fmt, name, file=f'{name}-file', **options)

    def bind(self, node='disk', **options):
        """Gives the node a user, whose thread the graph follows."""
        where = {'iothread': self.thread, 'fixed_iothread': True} if self.thread else {}
        self.vm.cmd('block-export-add', type='nbd', id=f'e-{node}', node_name=node, name=node, **where, **options)

    def unbind(self, node='disk'):
        self.vm.cmd('block-export-del', id=f'e-{node}', mode='hard')
        self.vm.wait('BLOCK_EXPORT_DELETED', id=f'e-{node}')

    def io(self, node, *commands):
        for command in commands:
            text = self.vm.qemu_io(node, command)
            assert 'failed' not in text and 'error' not in text.lower(), text

    def cmd(self, command, args=None, /, **kwargs):
        """Logs what it returns, or how it fails; names of folders and sockets left out."""
        try:
            result = self.vm.cmd(command, args, **kwargs)
        except ferry.QMPError as error:
            result = {'error': error.desc}
        text = json.dumps(result, sort_keys=True).replace(str(self.folder), 'FOLDER')
        for number, server in enumerate(self.lab.servers):
            text = text.replace(str(server.path), 'SERVER')
        self.log.append(f'{command}: {text}')
        return result

    def job(self, job_id):
        self.log.append(self.vm.job_until(job_id, 'concluded'))


def snapshot(w):
    w.node('over', backing=None)
    w.io('disk', 'write -P 1 0 64k')
    w.cmd('blockdev-snapshot', node='disk', overlay='over')
    w.io('over', 'read -P 1 0 64k', 'write -P 2 0 64k', 'read -P 2 0 64k')


def snapshot_sync(w):
    w.io('disk', 'write -P 1 0 64k')
    w.cmd('blockdev-snapshot-sync', node_name='disk', snapshot_node_name='over', snapshot_file=str(w.folder / 'over'),
          format='qcow2')
    w.io('disk', 'read -P 1 0 64k')
    if w.kind == 'file':
        w.io('over', 'read -P 1 0 64k', 'write -P 2 0 64k')


def change_backing_file(w):
    w.io('disk', 'write -P 1 0 64k')
    w.cmd('change-backing-file', device='disk', image_node_name='disk', backing_file=str(w.folder / 'elsewhere'))
    w.cmd('query-named-block-nodes', flat=True)


def reopen_options(w):
    for options in ({'detect-zeroes': 'on'}, {'l2-cache-size': 1 << 20}, {'read-only': True}, {'lazy-refcounts': True}, {}):
        w.io('disk', 'write -P 1 0 64k')
        w.cmd('blockdev-reopen', options=[{'driver': 'qcow2', 'node-name': 'disk', 'file': 'disk-file', 'backing': 'base',
                                           **options}])
    w.io('disk', 'read -P 1 0 64k', 'write -P 2 0 128k')


def reopen_protocol(w):
    w.io('disk', 'write -P 1 0 64k')
    if w.kind == 'file':
        file = {'driver': 'file', 'node-name': 'disk-file', 'filename': str(w.folder / 'disk')}
        w.cmd('blockdev-reopen', options=[{**file, 'cache': {'no-flush': True}, 'discard': 'unmap'}])
    else:
        server = w.lab.servers[-1]
        w.cmd('blockdev-reopen', options=[{'driver': 'nbd', 'node-name': 'disk-file', 'server': server.address}])
    w.io('disk', 'read -P 1 0 64k', 'write -P 2 0 128k')


def reopen_backing(w):
    w.node('other', 'raw')
    w.io('other', 'write -P 7 0 64k')
    for backing in ('other', None, 'base'):
        w.io('disk', 'write -P 1 1M 64k')
        w.cmd('blockdev-reopen', options=[{'driver': 'qcow2', 'node-name': 'disk', 'file': 'disk-file', 'backing': backing}])
        w.io('disk', f'read -P {7 if backing == "other" else 0} 0 64k')


def resize(w):
    for size in (2 * SIZE, 2 * SIZE + 512):
        w.io('disk', 'write -P 1 0 64k')
        w.cmd('block_resize', node_name='disk', size=size)
        w.cmd('query-named-block-nodes', flat=True)


def bitmaps(w):
    for persistent in (False, True):
        name = f'b{int(persistent)}'
        w.cmd('block-dirty-bitmap-add', node='disk', name=name, persistent=persistent)
        w.cmd('block-dirty-bitmap-add', node='disk', name=name, persistent=persistent)
        w.io('disk', 'write -P 1 64k 64k')
        w.cmd('query-named-block-nodes', flat=True)
        w.cmd('block-dirty-bitmap-disable', node='disk', name=name)
        w.cmd('block-dirty-bitmap-enable', node='disk', name=name)
        w.cmd('transaction', actions=[
            {'type': 'block-dirty-bitmap-add', 'data': {'node': 'disk', 'name': 'sum'}},
            {'type': 'block-dirty-bitmap-merge', 'data': {'node': 'disk', 'target': 'sum', 'bitmaps': [name]}},
            {'type': 'block-dirty-bitmap-clear', 'data': {'node': 'disk', 'name': name}}])
        w.cmd('query-named-block-nodes', flat=True)
        w.cmd('block-dirty-bitmap-remove', node='disk', name='sum')
        w.cmd('block-dirty-bitmap-remove', node='disk', name=name)


def mirror(w):
    w.node('copy', backing=None)
    w.io('disk', 'write -P 5 0 64k')
    w.cmd('blockdev-mirror', job_id='j', device='disk', target='copy', sync='full', auto_dismiss=False)
    w.vm.wait('BLOCK_JOB_READY', device='j')
    w.io('disk', 'write -P 6 64k 64k')
    w.cmd('job-complete', id='j')
    w.job('j')
    w.cmd('job-dismiss', id='j')
    w.io('copy', 'read -P 5 0 64k', 'read -P 6 64k 64k', 'write -P 7 0 64k')


def mirror_cancelled(w):
    w.node('copy', backing=None)
    w.cmd('blockdev-mirror', job_id='j', device='disk', target='copy', sync='top', auto_dismiss=False)
    w.vm.wait('BLOCK_JOB_READY', device='j')
    for command in ('job-pause', 'job-resume'):
        w.cmd(command, id='j')
    w.cmd('job-cancel', id='j')
    w.job('j')
    w.cmd('job-dismiss', id='j')
    w.cmd('blockdev-del', node_name='copy')
    w.io('disk', 'write -P 7 0 64k')


def queries(w):
    w.io('disk', 'write -P 1 0 64k', 'flush')
    w.cmd('query-named-block-nodes')
    w.cmd('query-blockstats', query_nodes=True)
    w.cmd('x-debug-query-block-graph')
    w.cmd('query-block-exports')
    w.cmd('query-block')
    w.cmd('query-blockstats')


def active(w):
    w.io('disk', 'write -P 1 0 64k')
    w.cmd('blockdev-set-active', node_name='disk', active=False)
    w.cmd('query-named-block-nodes', flat=True)
    w.cmd('blockdev-set-active', node_name='disk', active=True)
    w.io('disk', 'read -P 1 0 64k', 'write -P 2 0 64k')


def threshold(w):
    w.cmd('block-set-write-threshold', node_name='disk-file', write_threshold=1)
    w.io('disk', 'write -P 1 0 64k')
    w.vm.wait('BLOCK_WRITE_THRESHOLD')


def add_and_delete(w):
    w.cmd('blockdev-del', node_name='disk')
    w.cmd('blockdev-del', node_name='disk-file')
    w.cmd('blockdev-add', {'driver': 'copy-on-read', 'node-name': 'filter', 'file': 'disk', 'bottom': 'base'})
    w.cmd('blockdev-add', {'driver': 'raw', 'node-name': 'window', 'file': 'base', 'size': 65536, 'read-only': True})
    w.io('window', 'read -P 0 0 64k')
    w.image('upper')
    w.cmd('blockdev-add', {'driver': 'qcow2', 'node-name': 'upper', 'file': w.protocol('upper'), 'backing': 'base'})
    w.io('upper', 'write -P 1 0 64k', 'read -P 1 0 64k', 'read -P 0 64k 64k')
    for name in ('upper', 'window', 'filter'):
        w.cmd('blockdev-del', node_name=name)
    w.cmd('nbd-server-add', device='disk', name='second')
    w.cmd('nbd-server-remove', name='second')


def create(w):
    w.image('new', 'raw', ROOM)
    w.vm.cmd('blockdev-add', {**w.protocol('new'), 'node-name': 'new-file'})
    w.cmd('blockdev-create', job_id='c', options={'driver': 'qcow2', 'file': 'new-file', 'size': SIZE})
    w.job('c')
    w.cmd('query-jobs')
    w.cmd('job-dismiss', id='c')


def unbound(w):
    w.io('disk', 'write -P 1 0 64k')
    w.unbind()
    w.io('disk', 'read -P 1 0 64k', 'write -P 1 64k 64k')
    if w.thread:
        w.vm.cmd('object-del', id=w.thread)
    w.cmd('blockdev-del', node_name='disk')
    w.cmd('blockdev-del', node_name='disk-file')


SCENARIOS = [snapshot, snapshot_sync, change_backing_file, reopen_options, reopen_protocol, reopen_backing, resize, bitmaps,
             mirror, mirror_cancelled, queries, active, threshold, add_and_delete, create, unbound]


@pytest.mark.parametrize('kind', ['file', 'nbd'])
@pytest.mark.parametrize('scenario', SCENARIOS, ids=lambda s: s.__name__)
def test_result_does_not_depend_on_the_thread(vmm, lab, work, scenario, kind):
    logs = []
    for thread in (None, 'io'):
        vm = vmm('-object', 'iothread,id=io', name=thread or 'main')
        w = World(vm, lab, work / (thread or 'main'), kind, thread)
        w.node('base', 'raw')
        w.node('disk', backing='base')
        w.bind()
        scenario(w)
        vm.quit()
        logs.append(w.log)
    assert logs[1] == logs[0]
