# SPDX-License-Identifier: GPL-2.0-or-later
"""An image goes from stock QEMU to Ferry and back as in a migration, each opening it while the other one runs."""
import json

import pytest

import ferry

SIZE = 16 * ferry.MIB


def node(vm, name='disk'):
    return next(n for n in vm.cmd('query-named-block-nodes', flat=True) if n['node-name'] == name)


def write(vm, pattern, offset, size='64k'):
    assert 'wrote' in vm.qemu_io('disk', f'write -P {pattern} {offset} {size}')


def holds(vm, pattern, offset, size='64k'):
    answer = vm.qemu_io('disk', f'read -P {pattern} {offset} {size}')
    assert 'read' in answer and 'fail' not in answer.lower(), answer


def inactivate_stock(vm):
    """A migration that ends in nothing gives the images up."""
    vm.cmd('migrate', uri='exec:cat > /dev/null')
    while True:
        status = vm.cmd('query-migrate')['status']
        assert status != 'failed'
        if status == 'completed':
            return


def check(path):
    ferry.images.run_tool('qemu-img', 'check', '-q', '-U', '-f', 'qcow2', path)


@pytest.mark.parametrize('options', [{}, {'lazy_refcounts': 'on'}, {'extended_l2': 'on'}, {'cluster_size': 512}],
                         ids=lambda o: next(iter(o), 'plain'))
def test_image_goes_from_stock_to_ferry_and_back(vmm, work, peer, options):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', options=','.join(f'{k}={v}' for k, v in options.items()) or None)
    stock = vmm(name='stock', command=[peer.command])
    stock.add_file(path, 'qcow2', 'disk')
    us = vmm('-incoming', 'defer', '-blockdev', f'driver=qcow2,node-name=disk,file.driver=file,file.filename={path}', name='ferry')
    for turn in range(3):
        write(stock, 10 + turn, 2 * turn << 20, '1M')
        with pytest.raises(ferry.QMPError, match='lock'):
            us.cmd('blockdev-set-active', active=True)
        inactivate_stock(stock)
        us.cmd('blockdev-set-active', active=True)
        for past in range(turn + 1):
            holds(us, 10 + past, 2 * past << 20, '1M')
        write(us, 20 + turn, (2 * turn + 1) << 20, '1M')
        with pytest.raises(ferry.QMPError, match='lock'):
            stock.cmd('cont')
        us.cmd('blockdev-set-active', active=False)
        check(path)
        stock.cmd('cont')
        assert stock.cmd('query-status')['running']
        for past in range(turn + 1):
            holds(stock, 20 + past, (2 * past + 1) << 20, '1M')
    stock.quit()
    us.quit()
    ferry.check_qcow2(path)


def test_bitmaps_of_stock_are_found_and_returned(vmm, work, peer):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    stock, us = vmm(name='stock', command=[peer.command]), vmm(name='ferry')
    stock.add_file(path, 'qcow2', 'disk')
    us.add_file(path, 'qcow2', 'disk', active=False)
    stock.cmd('block-dirty-bitmap-add', node='disk', name='b', persistent=True, granularity=65536)
    write(stock, 1, 0)
    inactivate_stock(stock)
    us.cmd('blockdev-set-active', active=True)
    assert [(b['name'], b['count'], b['recording']) for b in node(us)['dirty-bitmaps']] == [('b', 65536, True)]
    write(us, 2, 1 << 20)
    us.cmd('blockdev-set-active', active=False)
    stock.cmd('cont')
    assert [(b['name'], b['count']) for b in node(stock)['dirty-bitmaps']] == [('b', 131072)]
    write(stock, 3, 2 << 20)
    assert node(stock)['dirty-bitmaps'][0]['count'] == 3 * 65536
    stock.quit()
    us.quit()
    ferry.check_qcow2(path)
    info = json.loads(ferry.qemu_img('info', '--output=json', path))['format-specific']['data']
    assert info['bitmaps'][0]['flags'] == ['auto']


def test_stock_mirrors_its_disk_into_a_waiting_ferry(vmm, work, peer):
    """Storage of a migration: export at the destination, mirror at the source, both disks the same when the job was cancelled."""
    source = ferry.make_image(work / 'source.qcow2', SIZE, 'qcow2', seed=3, data=SIZE // 2)
    target = ferry.make_image(work / 'target.qcow2', SIZE, 'qcow2')
    stock = vmm(name='stock', command=[peer.command])
    stock.add_file(source, 'qcow2', 'disk')
    us = vmm('-incoming', 'defer', '-blockdev', f'driver=file,node-name=file,filename={target}',
             '-blockdev', 'driver=qcow2,node-name=disk,file=file', name='ferry')
    assert not node(us)['active']
    path = str(work / 'nbd')
    us.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': path}})
    us.cmd('block-export-add', type='nbd', id='libvirt-nbd-disk', node_name='disk', writable=True, name='drive')
    assert node(us)['active'] and node(us, 'file')['active']
    uri = stock.export('disk')      # its clients write through the mirror, which looks only at those from 9.0 on
    stock.add('nbd', 'remote', server={'type': 'unix', 'path': path}, export='drive')
    stock.cmd('blockdev-mirror', job_id='copy', device='disk', target='remote', sync='full')
    stock.wait('BLOCK_JOB_READY', device='copy')
    ferry.qemu_io(uri, 'write -P 77 1M 3M')
    stock.cmd('stop')
    stock.cmd('block-job-cancel', device='copy')
    stock.wait('BLOCK_JOB_COMPLETED', device='copy')
    stock.cmd('blockdev-del', node_name='remote')
    us.cmd('nbd-server-stop')
    us.cmd('blockdev-set-active', active=True)
    holds(us, 77, 1 << 20, '3M')
    us.quit()
    stock.quit()
    ferry.check_qcow2(target)
    ferry.compare(source, target, 'qcow2', 'qcow2')
