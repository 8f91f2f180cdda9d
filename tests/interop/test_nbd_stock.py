# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD between Ferry and the servers and clients inside each version of stock QEMU, and each version's qemu-nbd."""
import json
import re
import socket

import pytest

import ferry
from ferry import stock, tls

SIZE = 16 * ferry.MIB
SERVERS = {re.sub(r'.*qemu-nbd-?', '', path) or 'distribution': path for path in stock.programs('qemu-nbd')}
both_ways = pytest.mark.parametrize('way', stock.WAYS)     # client-server


@pytest.fixture
def sides(vmm, peer):
    def make(way, *args):
        """(client, server)"""
        return [vmm(*more, name=who, command=[peer.command] if who == 'stock' else None)
                for who, more in zip(way.split('-'), args or ((), ()))]
    return make


def attach(vm, server, name='disk', **more):
    """The disk of a server that exports it by export()."""
    vm.add('nbd', 'remote', server={'type': 'unix', 'path': str(server.workdir / f'{server.name}.nbd')}, export=name, **more)


def do(vm, node, *commands):
    for command in commands:
        out = vm.qemu_io(node, command).lower()
        assert ('wrote' in out or 'read' in out or 'discard' in command or 'flush' in command) and 'fail' not in out, out


@both_ways
def test_requests_of_each_kind(sides, work, way):
    client, server = sides(way)
    path = ferry.make_image(work / 'disk.raw', SIZE, seed=1)
    server.add_file(path, node_name='disk', discard='unmap', detect_zeroes='unmap')
    server.export('disk')
    attach(client, server)
    do(client, 'remote', 'write -P 1 0 3M', 'write -P 2 12345 777', 'write -z 4M 1M', 'write -z -u 6M 1M', 'discard 8M 1M',
       'write -f -P 3 10M 64k', 'flush', 'read -P 3 10M 64k', 'read -P 0 4M 1M', 'read -P 0 6M 1M', 'read -P 2 12345 777')
    client.cmd('blockdev-del', node_name='remote')
    server.quit()
    for command in ('read -P 1 0 12k', 'read -P 2 12345 777', 'read -P 0 4M 1M', 'read -P 3 10M 64k'):
        assert 'failed' not in ferry.qemu_io(path, command)


def mirror_once(vm):
    """Node 'remote' to node 'copy', which is a point in time of it afterwards."""
    vm.cmd('blockdev-mirror', job_id='j', device='remote', target='copy', sync='full')
    vm.wait('BLOCK_JOB_READY', device='j')
    vm.cmd('block-job-cancel', device='j')
    vm.wait('BLOCK_JOB_COMPLETED', device='j', where=lambda data: 'error' not in data)


@both_ways
def test_mirror_out_of_and_into_an_export(sides, work, way):
    """What is a hole there is a hole here."""
    client, server = sides(way)
    path = ferry.make_image(work / 'disk.raw', SIZE, seed=2, data=SIZE // 4)
    copy = ferry.make_image(work / 'copy.raw', SIZE)
    server.add_file(path, node_name='disk')
    server.export('disk')
    attach(client, server)
    client.add_file(copy, node_name='copy', discard='unmap')
    mirror_once(client)
    client.quit()
    server.quit()
    ferry.compare(path, copy)
    assert ferry.allocated(copy) <= ferry.allocated(path) + ferry.MIB


@both_ways
def test_dirty_bitmap_of_an_export_is_read(sides, work, way):
    """As a backup does it: the client asks for the bitmap instead of for what is allocated."""
    client, server = sides(way)
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    server.add_file(path, 'qcow2', 'disk')
    server.cmd('block-dirty-bitmap-add', node='disk', name='b', granularity=65536)
    do(server, 'disk', 'write -P 1 1M 1M', 'write -P 2 5M 64k')
    server.cmd('block-dirty-bitmap-disable', node='disk', name='b')
    server.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(work / 'nbd')}})
    server.cmd('block-export-add', {'type': 'nbd', 'id': 'e', 'node-name': 'disk', 'name': 'disk', 'bitmaps': ['b']})
    client.add('nbd', 'remote', server={'type': 'unix', 'path': str(work / 'nbd')}, export='disk',
               x_dirty_bitmap='qemu:dirty-bitmap:b', read_only=True)
    # what is dirty reads as holes there, and so it does through one more export
    client.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(work / 'again')}})
    client.cmd('block-export-add', {'type': 'nbd', 'id': 'e', 'node-name': 'remote', 'name': 'again'})
    extents = json.loads(ferry.qemu_img('map', '--output=json', f'nbd+unix:///again?socket={work}/again'))
    dirty = [(e['start'], e['length']) for e in extents if not e['data']]
    assert dirty == [(ferry.MIB, ferry.MIB), (5 * ferry.MIB, 65536)]


@both_ways
@pytest.mark.parametrize('kind', ['x509', 'psk'])
def test_tls(sides, work, way, kind, need):
    need.tool('certtool')
    if kind == 'x509':
        authority = tls.Authority(work / 'ca')
        more = {'client': f',dir={authority.creds(client=authority.client())}',
                'server': f',dir={authority.creds(server=authority.server())},verify-peer=on'}
    else:
        folder = tls.psk_creds(work / 'psk', alice='0123456789abcdef' * 4)
        more = {'client': f',dir={folder},username=alice', 'server': f',dir={folder}'}
    client, server = sides(way, *(['-object', f'tls-creds-{kind},id=tls0,endpoint={end}{more[end]}']
                                  for end in ('client', 'server')))
    path = ferry.make_image(work / 'disk.raw', SIZE, seed=4)
    server.add_file(path, node_name='disk')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    address = {'host': '127.0.0.1', 'port': port}
    server.cmd('nbd-server-start', {'addr': {'type': 'inet', 'data': address}, 'tls-creds': 'tls0'})
    server.cmd('block-export-add', type='nbd', id='e', node_name='disk', name='disk', writable=True)
    client.add('nbd', 'remote', server={'type': 'inet', **address}, export='disk', tls_creds='tls0')
    do(client, 'remote', 'write -P 7 1M 3M', 'read -P 7 1M 3M')


@pytest.mark.parametrize('name', SERVERS)
@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_qemu_nbd(vm, lab, work, name, fmt):
    path = ferry.make_image(work / 'disk', SIZE, fmt, seed=5, data=SIZE // 4)
    server = lab.qemu_nbd(path, fmt, program=SERVERS[name])
    vm.cmd('blockdev-add', server.node('remote'))
    do(vm, 'remote', 'write -P 9 2M 2M', 'write -z -u 5M 1M', 'flush', 'read -P 9 2M 2M')
    copy = ferry.make_image(work / 'copy.raw', SIZE)
    vm.add_file(copy, node_name='copy')
    mirror_once(vm)
    vm.quit()
    server.close()
    ferry.compare(path, copy, fmt, 'raw')
