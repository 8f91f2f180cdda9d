# SPDX-License-Identifier: GPL-2.0-or-later
"""yank cuts the connection of a migration whose peer does not answer."""
import socket

import ferry
import pytest
from ferry import migration as m


def deaf_peer(work):
    """Listens, and never reads a byte."""
    path = str(work / 'deaf.sock')
    peer = socket.socket(socket.AF_UNIX)
    peer.bind(path)
    peer.listen(1)
    return peer, f'unix:{path}'


def migration_is_listed(vm):
    return {'type': 'migration'} in vm.cmd('query-yank')


def test_source_is_freed_of_a_deaf_destination(vmm, work):
    peer, uri = deaf_peer(work)
    vm = vmm('-m', '64M')
    vm.cmd('cont')
    vm.cmd('migrate-set-capabilities', capabilities=[{'capability': 'events', 'state': True},
                                                     {'capability': 'return-path', 'state': True}])
    assert not migration_is_listed(vm)
    vm.cmd('migrate', uri=uri)
    vm.wait('MIGRATION', status='active')
    vm.wait('MIGRATION_PASS')               # everything fits into the socket; an answer never comes
    assert migration_is_listed(vm)
    vm.cmd('yank', instances=[{'type': 'migration'}])
    vm.wait('MIGRATION', status='failed')
    assert 'yank' in vm.cmd('query-migrate')['error-desc']
    assert not migration_is_listed(vm)
    assert not vm.seen('STOP') and vm.cmd('query-status')['status'] == 'running'
    peer.close()


def test_source_is_freed_while_its_guest_runs(vmm, work):
    peer, uri = deaf_peer(work)
    vm = vmm('-m', '64M', '-accel', 'qtest')
    vm.cmd('cont')
    vm.cmd('migrate-set-capabilities', capabilities=[{'capability': 'events', 'state': True}])
    vm.cmd('migrate-set-parameters', {'zero-page-detection': 'none', 'max-bandwidth': 0})
    vm.cmd('migrate', uri=uri)
    vm.wait('MIGRATION', status='active')   # 64 MiB do not fit
    vm.cmd('yank', instances=[{'type': 'migration'}])
    vm.wait('MIGRATION', status='failed')
    assert vm.cmd('query-status')['status'] == 'running'
    peer.close()


def test_destination_that_waits_for_channels_ends(vmm, work):
    path = str(work / 'in.sock')
    vm = vmm('-m', '64M', '-incoming', 'defer')
    vm.cmd('migrate-set-capabilities', capabilities=[{'capability': 'multifd', 'state': True}])
    vm.cmd('migrate-incoming', {'uri': f'unix:{path}', 'exit-on-error': False})
    source = socket.socket(socket.AF_UNIX)
    source.connect(path)
    source.sendall(b'QEVM')
    assert migration_is_listed(vm)
    while vm.cmd('query-migrate')['status'] != 'failed':
        vm.cmd('yank', instances=[{'type': 'migration'}])   # no effect until the connection is there
    assert 'yank' in vm.cmd('query-migrate')['error-desc']
    source.close()


def test_source_is_freed_of_channels_that_take_nothing(vmm, work):
    path = str(work / 'deaf.sock')
    peer = socket.socket(socket.AF_UNIX)
    peer.bind(path)
    peer.listen(8)
    vm = vmm('-m', '64M', '-accel', 'qtest')
    vm.cmd('cont')
    vm.cmd('migrate-set-capabilities', capabilities=[{'capability': 'events', 'state': True},
                                                     {'capability': 'multifd', 'state': True}])
    vm.cmd('migrate-set-parameters', {'zero-page-detection': 'none', 'max-bandwidth': 0, 'multifd-channels': 3})
    vm.cmd('migrate', uri=f'unix:{path}')
    m.wait_status(vm, 'active')
    vm.cmd('yank', instances=[{'type': 'migration'}])
    assert 'yank' in m.wait_status(vm, 'failed')['error-desc']
    assert vm.cmd('query-status')['status'] == 'running'
    peer.close()


def test_source_is_freed_of_a_destination_that_gives_no_verdict(vmm, work):
    """The guest stays stopped, for it may run there."""
    vm = vmm('-m', '64M')
    vm.cmd('cont')
    m.set_caps(vm, 'events', 'return-path')
    sink = m.Sink(work / 'sink', verdict=None, close=False)
    vm.cmd('migrate', uri=sink.uri)
    assert sink.read_all.wait(m.LIMIT_S)
    vm.cmd('yank', instances=[{'type': 'migration'}])
    assert 'yank' in m.wait_status(vm, 'failed')['error-desc']
    assert vm.cmd('query-status')['status'] == 'postmigrate'
    sink.drop()


@pytest.mark.parametrize('said', [m.header(), m.header() + m.configuration() + m.ram_start()],
                         ids=['header', 'memory'])
def test_destination_is_freed_of_a_silent_source(vmm, work, said):
    vm = vmm('-machine', 'none', '-display', 'none', '-nodefaults', '-incoming', 'defer', defaults=False)
    vm.cmd('migrate-incoming', {'uri': f'unix:{work}/in', 'exit-on-error': False})
    source = socket.socket(socket.AF_UNIX)
    source.connect(f'{work}/in')
    source.sendall(said)
    m.wait_status(vm, 'active')
    vm.cmd('yank', instances=[{'type': 'migration'}])
    assert 'yank' in m.wait_status(vm, 'failed')['error-desc']
    assert vm.cmd('query-status')['status'] == 'inmigrate'
    source.close()


def test_nothing_to_yank(vmm):
    with pytest.raises(ferry.QMPError):
        vmm('-m', '64M').cmd('yank', instances=[{'type': 'migration'}])
