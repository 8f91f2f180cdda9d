# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest and its disk move together between Ferry and stock QEMU, while a client writes to the disk.

The way of libvirt: the destination exports its empty disk by NBD, the source mirrors into it, and in the pause before
the switchover the mirror ends.
"""
import pytest

import ferry
from ferry import migration as m
from ferry.stock import WAYS

SIZE = 24 * ferry.MIB
MEMORY = '32M'


def start_side(vmm, work, who, peer, name, fmt, *args):
    return vmm('-m', MEMORY, *args, '-blockdev',
               f'driver=file,node-name=file,filename={work}/{name}.{fmt},auto-read-only=on,discard=unmap',
               '-blockdev', f'driver={fmt},node-name=disk,file=file', name=who,
               command=[peer.command] if who == 'stock' else None)


def serve(vm, path, name):
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(path)}})
    vm.cmd('block-export-add', {'type': 'nbd', 'id': name, 'node-name': 'disk', 'writable': True, 'name': name})
    return f'nbd+unix:///{name}?socket={path}'


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
@pytest.mark.parametrize('mode', ['background', 'write-blocking'])
def test_disk_moves_with_the_guest_under_load(vmm, work, peer, way, fmt, mode):
    ferry.make_image(work / f'source.{fmt}', SIZE, fmt, seed=3, data=SIZE // 2)
    ferry.make_image(work / f'target.{fmt}', SIZE, fmt)
    model = ferry.Model(SIZE, None)
    model.load(work / f'source.{fmt}', fmt)
    first, second = way.split('-')
    source = start_side(vmm, work, first, peer, 'source', fmt)
    target = start_side(vmm, work, second, peer, 'target', fmt, '-incoming', 'defer')
    source.cmd('cont')
    near = serve(source, work / 'near.sock', 'near')
    far = serve(target, work / 'far.sock', 'far')
    m.set_caps(target, 'events', 'return-path', 'late-block-activate')
    target.cmd('migrate-incoming', uri=f'unix:{work}/guest.sock')

    writer = ferry.Writer(near, model, seed=5, rate=16 * ferry.MIB)
    writer.start()
    source.cmd('blockdev-add', {'driver': 'nbd', 'node-name': 'far', 'export': 'far',
                                'server': {'type': 'unix', 'path': f'{work}/far.sock'}})
    source.cmd('blockdev-mirror', {'job-id': 'copy', 'device': 'disk', 'target': 'far', 'sync': 'full', 'copy-mode': mode,
                                   'auto-dismiss': False})
    source.wait('BLOCK_JOB_READY')
    writer.wait_count(50)
    m.set_caps(source, 'events', 'return-path', 'pause-before-switchover')
    source.cmd('migrate', uri=f'unix:{work}/guest.sock')
    source.wait('MIGRATION', status='pre-switchover')
    writer.wait_count(10)       # the client is not the guest: it goes on until its export ends
    writer.stop()
    # The export goes last: without it stock 7.2 reopens its file while the mirror reads it.
    source.cmd('block-job-cancel', device='copy')
    source.wait('BLOCK_JOB_COMPLETED', where=lambda data: 'error' not in data)
    source.cmd('job-dismiss', id='copy')
    source.cmd('blockdev-del', {'node-name': 'far'})
    source.cmd('block-export-del', {'id': 'near'})
    source.wait('BLOCK_EXPORT_DELETED')
    source.cmd('migrate-continue', state='pre-switchover')
    assert m.wait_over(source)['status'] == m.wait_over(target)['status'] == 'completed'
    target.cmd('cont')

    writer = ferry.Writer(far, model, seed=6)
    writer.start()
    writer.wait_count(50)
    writer.stop()
    target.quit()
    source.quit()
    model.check(work / f'target.{fmt}', fmt)
    if fmt == 'qcow2':
        ferry.check_qcow2(work / 'target.qcow2')
        ferry.check_qcow2(work / 'source.qcow2')
