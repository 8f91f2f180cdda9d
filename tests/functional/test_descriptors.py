# SPDX-License-Identifier: GPL-2.0-or-later
"""A number reaches descriptors that the process inherited, each once, and none that the process opened itself."""
import os
import socket
import subprocess

import pytest

import ferry

USERS = {
    'migrate': lambda fd: ('migrate', {'uri': f'fd:{fd}'}),
    'migrate-incoming': lambda fd: ('migrate-incoming', {'uri': f'fd:{fd}'}),
    'nbd-server-start': lambda fd: ('nbd-server-start', {'addr': {'type': 'fd', 'data': {'str': str(fd)}}}),
    'blockdev-add': lambda fd: ('blockdev-add', {'driver': 'nbd', 'node-name': 'n', 'server': {'type': 'fd', 'str': str(fd)}}),
    'chardev-add': lambda fd: ('chardev-add', {'id': 'c', 'backend': {'type': 'socket', 'data': {
        'server': False, 'addr': {'type': 'fd', 'data': {'str': str(fd)}}}}}),
}


def numbers(vm):
    return sorted(int(name) for name in os.listdir(f'/proc/{vm.pid}/fd'))


@pytest.mark.parametrize('user', USERS)
def test_no_number_of_the_processs_own_is_taken(vmm, work, user):
    image = ferry.fill(work / 'disk.raw', ferry.MIB, seed=1)
    before = image.read_bytes()
    vm = vmm('-incoming', 'defer') if user == 'migrate-incoming' else vmm()
    vm.add_file(image, node_name='disk')
    if user != 'nbd-server-start':
        vm.export('disk')
    for number in numbers(vm):
        command, args = USERS[user](number)
        with pytest.raises(ferry.QMPError, match=f"'{number}' was not inherited"):
            vm.cmd(command, args)
    assert vm.cmd('query-name') == {}
    assert image.read_bytes() == before
    vm.quit()


def test_an_inherited_number_is_taken_once(vmm):
    ours, theirs = socket.socketpair()
    ours.settimeout(60 * ferry.time_scale())
    fd = theirs.fileno()
    vm = vmm(pass_fds=[fd])
    theirs.close()
    command, args = USERS['chardev-add'](fd)
    vm.cmd(command, args)
    args['id'] = 'again'
    with pytest.raises(ferry.QMPError, match='is in use'):
        vm.cmd(command, args)
    vm.cmd('chardev-remove', id='c')
    assert ours.recv(1) == b''
    ours.close()


def test_add_fd_takes_inherited_numbers_only(work):
    for number in range(3, 24):
        done = subprocess.run([*ferry.binary(), '-machine', 'none', '-display', 'none', '-nodefaults', '-pidfile', work / 'pid',
                               '-add-fd', f'fd={number},set=1'], capture_output=True, text=True, timeout=60, check=False,
                              stdin=subprocess.DEVNULL)
        assert done.returncode == 1 and 'fd is not valid or already in use' in done.stderr


@pytest.mark.parametrize('port', ['65536', '99999', '18446744073709551617'])
def test_ports_that_do_not_exist_are_refused(vm, port):
    where = {'host': '127.0.0.1', 'port': port}
    for command, args in {
            'nbd-server-start': {'addr': {'type': 'inet', 'data': where}},
            'blockdev-add': {'driver': 'nbd', 'node-name': 'n', 'server': {'type': 'inet', **where}},
            'chardev-add': {'id': 'c', 'backend': {'type': 'socket', 'data': {'addr': {'type': 'inet', 'data': where}}}},
            'migrate': {'uri': f'tcp:127.0.0.1:{port}'}}.items():
        with pytest.raises(ferry.QMPError, match=f'Port {port} does not exist'):
            vm.cmd(command, args)


@pytest.mark.parametrize('option', [('-qmp', 'tcp:127.0.0.1:99999,server=on,wait=off'), ('-incoming', 'tcp:127.0.0.1:99999'),
                                    ('-chardev', 'socket,id=c,host=127.0.0.1,port=99999,server=on,wait=off')])
def test_options_with_ports_that_do_not_exist_end_the_start(option):
    done = subprocess.run([*ferry.binary(), '-machine', 'none', '-display', 'none', '-nodefaults', *option], capture_output=True,
                          text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and 'Port 99999 does not exist' in done.stderr
