# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest moves together with its disk, the way libvirt does it: the disk is mirrored to an NBD export of the destination,
and both switch over in one pause. A client writes to the disk before, during and after."""
import pytest

import ferry
from ferry import migration as m

SIZE = 64 * ferry.MIB
MEMORY = '64M'


def serve(vm, path, name):
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(path)}})
    return export(vm, path, name)


def export(vm, path, name):
    vm.cmd('block-export-add', {'type': 'nbd', 'id': name, 'node-name': 'disk', 'writable': True, 'name': name})
    return f'nbd+unix:///{name}?socket={path}'


def capabilities(vm, *names):
    vm.cmd('migrate-set-capabilities', capabilities=[{'capability': name, 'state': True} for name in names])


def start_side(vmm, work, name, fmt, *args):
    image = work / f'{name}.{fmt}'
    vm = vmm('-m', MEMORY, *args, '-blockdev', f'driver=file,node-name=file,filename={image},auto-read-only=on,discard=unmap',
             '-blockdev', f'driver={fmt},node-name=disk,file=file', name=name)
    return vm, image


def mirror_to(source, uri_path, name):
    source.cmd('blockdev-add', {'driver': 'nbd', 'node-name': 'far-file', 'export': name,
                                'server': {'type': 'unix', 'path': str(uri_path)}})
    source.cmd('blockdev-add', {'driver': 'raw', 'node-name': 'far', 'file': 'far-file'})
    source.cmd('blockdev-mirror', {'job-id': 'copy', 'device': 'disk', 'target': 'far', 'sync': 'full', 'auto-dismiss': False})
    source.wait('BLOCK_JOB_READY')


def switch_the_disk(source):
    """In the pause: the copy becomes the same as the disk, and the source holds neither of them any more."""
    source.cmd('block-job-cancel', device='copy')
    source.wait('BLOCK_JOB_COMPLETED')
    source.cmd('job-dismiss', id='copy')
    source.cmd('blockdev-del', {'node-name': 'far'})
    source.cmd('blockdev-del', {'node-name': 'far-file'})


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_disk_moves_with_the_guest_under_load(vmm, work, fmt):
    for name in ('source', 'target'):
        ferry.make_image(work / f'{name}.{fmt}', SIZE, fmt, **({'seed': 3, 'data': SIZE // 2} if name == 'source' else {}))
    model = ferry.Model(SIZE, None)
    model.load(work / f'source.{fmt}', fmt)
    source, _ = start_side(vmm, work, 'source', fmt)
    target, image = start_side(vmm, work, 'target', fmt, '-incoming', 'defer')
    source.cmd('cont')

    near = serve(source, work / 'near.sock', 'near')
    serve(target, work / 'far.sock', 'far')
    capabilities(target, 'events', 'return-path', 'late-block-activate')
    target.cmd('migrate-incoming', uri=f'unix:{work}/guest.sock')
    writer = ferry.Writer(near, model, seed=5, rate=16 * ferry.MIB)
    writer.start()
    mirror_to(source, work / 'far.sock', 'far')
    writer.wait_count(50)

    capabilities(source, 'events', 'return-path', 'pause-before-switchover')
    source.cmd('migrate', uri=f'unix:{work}/guest.sock')
    source.wait('MIGRATION', status='pre-switchover')
    writer.wait_count(10)       # the client is not the guest: it goes on until its export ends
    writer.stop()
    source.cmd('block-export-del', {'id': 'near'})
    source.wait('BLOCK_EXPORT_DELETED')
    switch_the_disk(source)
    source.cmd('migrate-continue', state='pre-switchover')
    source.wait('MIGRATION', status='completed')
    target.wait('MIGRATION', status='completed')
    assert source.cmd('query-status')['status'] == 'postmigrate'
    assert target.cmd('query-status')['status'] == 'paused'     # started with -S
    target.cmd('cont')

    writer = ferry.Writer(f'nbd+unix:///far?socket={work}/far.sock', model, seed=6)
    writer.start()
    writer.wait_count(50)
    writer.stop()
    assert not any(node['active'] for node in source.cmd('query-named-block-nodes'))
    assert all(node['active'] for node in target.cmd('query-named-block-nodes'))
    target.quit()
    source.quit()
    model.check(image, fmt)
    if fmt == 'qcow2':
        ferry.check_qcow2(image)
        ferry.check_qcow2(work / 'source.qcow2')


def active(vm):
    return [node['active'] for node in vm.cmd('query-named-block-nodes')]


@pytest.mark.parametrize('late', [True, False])
@pytest.mark.parametrize('waits', [True, False])
def test_when_the_destination_takes_the_disk(vmm, work, late, waits):
    """With late-block-activate a guest that waits leaves its disk to others until it runs."""
    ferry.make_image(work / 'disk.raw', SIZE)
    disk = ['-blockdev', f'driver=file,node-name=disk,filename={work}/disk.raw']
    machine = ['-machine', 'none', '-display', 'none', '-nodefaults', '-m', MEMORY]
    source = vmm(*machine, *disk, defaults=False, name='source')
    target = vmm(*machine, *disk, '-incoming', 'defer', *(['-S'] if waits else []), defaults=False, name='target')
    capabilities(source, 'events', 'return-path')
    capabilities(target, 'events', *(['late-block-activate'] if late else []))
    target.cmd('migrate-incoming', uri=f'unix:{work}/guest.sock')
    assert active(source) == [True] and active(target) == [False]
    source.cmd('migrate', uri=f'unix:{work}/guest.sock')
    source.wait('MIGRATION', status='completed')
    target.wait('MIGRATION', status='completed')
    assert active(source) == [False]
    assert target.cmd('query-status')['status'] == ('paused' if waits else 'running')
    assert active(target) == [not (late and waits)]
    if waits:
        target.cmd('cont')
        assert active(target) == [True]


def test_job_that_still_needs_the_disk_keeps_the_guest(vmm, work):
    """Without the pause no client ends the mirror: the source cannot let go, and keeps everything."""
    for name in ('source', 'target'):
        ferry.make_image(work / f'{name}.raw', SIZE)
    source, _ = start_side(vmm, work, 'source', 'raw')
    target, _ = start_side(vmm, work, 'target', 'raw', '-incoming', 'defer')
    source.cmd('cont')
    serve(target, work / 'far.sock', 'far')
    target.cmd('migrate-incoming', {'uri': f'unix:{work}/guest.sock', 'exit-on-error': False})
    mirror_to(source, work / 'far.sock', 'far')
    capabilities(source, 'events')
    source.cmd('migrate', uri=f'unix:{work}/guest.sock')
    source.wait('MIGRATION', status='failed')
    assert 'copy' in source.cmd('query-migrate')['error-desc'] or 'disk' in source.cmd('query-migrate')['error-desc']
    assert source.cmd('query-status')['status'] == 'running'
    assert source.cmd('human-monitor-command', {'command-line': 'qemu-io disk "write 0 64k"'}).find('denied') < 0
    switch_the_disk(source)


def test_failed_write_back_names_the_node(vmm, work):
    """The disk's caches cannot be written back: the migration fails, says of which node, and the guest runs on here."""
    ferry.make_image(work / 'disk.raw', ferry.MIB, 'raw')
    source = vmm('-m', MEMORY, '-blockdev', f'driver=file,node-name=file,filename={work}/disk.raw',
                 '-blockdev', 'driver=blkdebug,node-name=disk,image=file,inject-error.0.event=none,'
                 'inject-error.0.iotype=flush,inject-error.0.errno=5')
    source.cmd('cont')
    assert 'wrote' in source.qemu_io('disk', 'write 0 64k')
    source.cmd('migrate', uri=f'file:{work}/guest')
    info = m.wait_status(source, 'failed')
    assert info['error-desc'] == "Could not write back the caches of node 'disk': Input/output error"
    assert source.cmd('query-status')['status'] == 'running'
