# SPDX-License-Identifier: GPL-2.0-or-later
"""yank cuts connections that hang, out of band, while the session waits for them."""
import json
import os
import signal
import socket

import pytest

import ferry


class Frozen:
    """A server that is stopped while the block runs."""

    def __init__(self, server):
        self.pid = server.process.pid

    def __enter__(self):
        os.kill(self.pid, signal.SIGSTOP)
        return self

    def thaw(self):
        os.kill(self.pid, signal.SIGCONT)

    def __exit__(self, *_):
        self.thaw()


@pytest.fixture
def server(qemu_nbd, work):
    return qemu_nbd(ferry.make_image(work / 'disk.raw', ferry.MIB, seed=1))


@pytest.fixture
def vm(vmm):
    return vmm(capabilities=['oob'])


NODE = {'type': 'block-node', 'node-name': 'disk'}


def node(server):
    return {'driver': 'nbd', 'node-name': 'disk', 'server': {'type': 'unix', 'path': server.path}}


def read(vm):
    """Starts a read in band, whose answer comes when the read is over."""
    return vm.qmp.send('human-monitor-command', command_line='qemu-io disk "read 0 64k"')


def answered(vm, sent):
    return json.dumps(sent[1]) in vm.qmp._replies


def test_hung_server_is_cut_out_of_band(vm, server):
    vm.cmd('blockdev-add', node(server))
    assert NODE in vm.cmd('query-yank', oob=True)
    with Frozen(server):
        busy, behind = read(vm), vm.qmp.send('query-status')
        assert NODE in vm.cmd('query-yank', oob=True)
        assert not answered(vm, busy) and not answered(vm, behind)
        vm.cmd('yank', instances=[NODE], oob=True)
        vm.qmp.reply(busy)              # the read has failed, without the server's doing anything
        vm.qmp.reply(behind)


def test_requests_go_on_over_a_new_connection(vm, server):
    vm.cmd('blockdev-add', {**node(server), 'reconnect-delay': 60})
    with Frozen(server) as frozen:
        busy = read(vm)
        vm.cmd('yank', instances=[NODE], oob=True)
        assert not answered(vm, busy)   # it waits for the server
        frozen.thaw()
        vm.qmp.reply(busy)
    assert vm.qemu_io('disk', 'read 0 64k')


def test_opening_a_node_is_cut(vm, server):
    with Frozen(server):
        opening = vm.qmp.send('blockdev-add', node(server))
        while NODE not in vm.cmd('query-yank', oob=True):
            pass
        vm.cmd('yank', instances=[NODE], oob=True)
        with pytest.raises(ferry.QMPError):
            vm.qmp.reply(opening)
    assert NODE not in vm.cmd('query-yank')
    vm.cmd('blockdev-add', node(server))


def test_nodes_come_and_go(vm, server):
    assert NODE not in vm.cmd('query-yank')
    vm.cmd('blockdev-add', node(server))
    assert NODE in vm.cmd('query-yank')
    vm.cmd('blockdev-del', node_name='disk')
    assert NODE not in vm.cmd('query-yank')


def test_unknown_instance_keeps_all_as_they_are(vm, server):
    vm.cmd('blockdev-add', node(server))
    with pytest.raises(ferry.QMPError) as error:
        vm.cmd('yank', instances=[NODE, {'type': 'chardev', 'id': 'nobody'}])
    assert error.value.cls == 'DeviceNotFound' and error.value.desc == 'Instance not found'
    with pytest.raises(ferry.QMPError):
        vm.cmd('yank', instances=[{'type': 'migration'}])
    assert vm.qemu_io('disk', 'read 0 64k')


def test_socket_chardev_is_cut_and_listens_again(vmm, work):
    path = str(work / 'second')
    vm = vmm('-chardev', f'socket,id=c1,path={path},server=on,wait=off', '-mon', 'chardev=c1,mode=control')
    assert {'type': 'chardev', 'id': 'c1'} in vm.cmd('query-yank')
    vm.cmd('yank', instances=[{'type': 'chardev', 'id': 'c1'}])     # no peer is connected: nothing to cut
    second = ferry.QMPClient.connect(path)
    vm.cmd('yank', instances=[{'type': 'chardev', 'id': 'c1'}])
    second.wait_closed()
    second.close()
    third = ferry.QMPClient.connect(path)
    assert third.cmd('query-status')
    third.close()


def test_client_chardev_connects_again(vmm, work):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(work / 'peer'))
    listener.listen()
    listener.settimeout(60 * ferry.time_scale())
    vm = vmm('-chardev', f'socket,id=c1,path={work}/peer,reconnect-ms=1', '-mon', 'chardev=c1,mode=readline')
    first = ferry.accept(listener, vm)
    vm.cmd('yank', instances=[{'type': 'chardev', 'id': 'c1'}])
    while first.recv(4096):
        pass
    second = ferry.accept(listener, vm)
    for sock in (first, second, listener):
        sock.close()


def test_out_of_band_has_to_be_agreed_upon(vmm):
    vm = vmm()
    vm.qmp.send_raw(b'{"exec-oob":"query-yank","id":"x"}')
    with pytest.raises(ferry.QMPError, match='unexpected'):
        vm.qmp.reply(('query-yank', 'x'))


@pytest.mark.parametrize('command', ['query-status', 'quit'])
def test_other_commands_do_not_run_out_of_band(vm, command):
    with pytest.raises(ferry.QMPError, match='does not support OOB'):
        vm.cmd(command, oob=True)
