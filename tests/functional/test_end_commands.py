# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that arrive while the process ends: they neither end it otherwise than with status 0 nor hold it up."""
import contextlib
import signal
import socket

import nbd
import pytest

import ferry
from ferry import tls

MIB = ferry.MIB
MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults', '-m', '16M']


@pytest.fixture
def ending(vmm, work, qemu_nbd):
    """A process that was told to end and waits for a server to flush a disk."""
    vm = vmm(*MACHINE, defaults=False)
    server = qemu_nbd(ferry.make_image(work / 'far.raw', MIB), 'raw')
    vm.cmd('blockdev-add', server.node('far', reconnect_delay=600))
    vm.add_file(ferry.make_image(work / 'near.raw', MIB), node_name='near')
    vm.add_file(ferry.make_image(work / 'near2.raw', MIB), node_name='near2')
    vm.qemu_io('far', 'write 0 4k')
    server.signal(signal.SIGSTOP)
    vm.process.send_signal(signal.SIGTERM)
    vm.wait('SHUTDOWN')
    while vm.cmd('query-status')['running']:
        pass                                        # the event is sent first
    yield vm, server
    server.signal(signal.SIGCONT)


def monitors(*paths):
    words = []
    for index, path in enumerate(paths):
        words += ['-chardev', f'socket,id=mon{index},path={path},server=on,wait=off',
                  '-mon', f'chardev=mon{index},mode=control']
    return words


def refused(vm, command, **args):
    with pytest.raises(ferry.QMPError, match='[Pp]rocess is'):
        vm.cmd(command, **args)


def end(vm, server):
    server.signal(signal.SIGCONT)
    assert vm.wait_exit() == 0, vm.describe()
    assert vm.seen('RESUME') == []


def test_guest_of_a_process_that_ends_does_not_start_again(ending):
    vm, server = ending
    refused(vm, 'cont')
    refused(vm, 'system_reset')
    assert vm.cmd('query-status') == {'running': False, 'status': 'shutdown'}
    end(vm, server)


def test_guest_of_a_process_that_ends_does_not_leave(ending, work):
    vm, server = ending
    refused(vm, 'migrate', uri=f'unix:{work}/nowhere')
    assert vm.cmd('query-migrate') == {}
    end(vm, server)


# The request of a server that is given up is never freed: a leak to the sanitizer.
@pytest.mark.once
def test_work_that_comes_late_is_refused(ending, work):
    vm, server = ending
    refused(vm, 'block-export-add', type='nbd', id='e', node_name='near')
    refused(vm, 'nbd-server-start', addr={'type': 'unix', 'data': {'path': str(work / 'nbd')}})
    refused(vm, 'blockdev-mirror', job_id='j', device='near', target='near2', sync='full')
    refused(vm, 'object-add', qom_type='iothread', id='late')
    assert 'process is ending' in vm.hmp(f'drive_mirror near {work}/copy.raw')
    vm.cmd('quit')
    vm.cmd('stop')
    assert 'VM status' in vm.hmp('info status')
    end(vm, server)


@pytest.mark.once
def test_command_that_has_begun_leaves_nothing_behind(vmm, work, qemu_nbd):
    """A mirror that waits for a slow write while the process is told to end."""
    paths = [str(work / name) for name in ('second', 'third')]
    vm = vmm(*MACHINE, *monitors(*paths), defaults=False)
    server = qemu_nbd(ferry.make_image(work / 'far.raw', MIB), 'raw')
    vm.cmd('blockdev-add', server.node('far', reconnect_delay=600))
    vm.add_file(ferry.make_image(work / 'near.raw', MIB), node_name='near')
    second, third = map(ferry.QMPClient.connect, paths)
    server.signal(signal.SIGSTOP)
    vm.send('human-monitor-command', {'command-line': 'qemu-io far "write 0 4k"'})
    second.send('blockdev-mirror', {'job-id': 'j', 'device': 'far', 'target': 'near', 'sync': 'full', 'speed': 1})
    second.send('block-export-add', {'type': 'nbd', 'id': 'e', 'node-name': 'near'})
    for _ in range(2):          # with the first answer the mirror has been read, with the second it has begun
        third.cmd('query-jobs')
    vm.process.send_signal(signal.SIGTERM)
    vm.wait('SHUTDOWN')
    end(vm, server)
    states = [event['data']['status'] for event in vm.seen('JOB_STATUS_CHANGE')]
    assert states[0] == 'created' and states[-1] == 'null'


def test_limits_do_not_hold_up_the_end(vmm, work, qemu_nbd):
    """A command and a client of an export that would wait for minutes, at 1 KiB/s."""
    vm = vmm(*MACHINE, defaults=False)
    vm.cmd('object-add', qom_type='throttle-group', id='g', limits={'bps-total': 1024})
    for name in ('mine', 'client'):
        path = str(ferry.make_image(work / f'{name}.raw', MIB))
        vm.add('throttle', name, throttle_group='g', file={'driver': 'file', 'filename': path})
    client = ferry.nbd_connect(vm.export('client'))
    for offset in (0, 65536):
        client.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(65536)), offset)
    vm.send('human-monitor-command', {'command-line': 'qemu-io mine "write 0 64k"'})
    vm.send('human-monitor-command', {'command-line': 'qemu-io mine "write 64k 64k"'})
    vm.process.send_signal(signal.SIGTERM)
    assert vm.wait_exit() == 0, vm.describe()


@contextlib.contextmanager
def listener_without_a_place(path):
    """The one place of its queue is taken; a client tries until there is one."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        yield {'server': False, 'addr': {'type': 'unix', 'data': {'path': path}}}


@contextlib.contextmanager
def listener_that_says_nothing(path):
    """It takes the client, which then waits for the server's part of the TLS handshake."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        place = {'host': '127.0.0.1', 'port': str(listener.getsockname()[1])}
        yield {'server': False, 'tls-creds': 'creds', 'addr': {'type': 'inet', 'data': place}}


@contextlib.contextmanager
def no_client(path):
    """The chardev is the server itself, and its client has not come."""
    yield {'server': True, 'wait': True, 'addr': {'type': 'unix', 'data': {'path': path}}}


@pytest.mark.parametrize('peer', [listener_without_a_place, listener_that_says_nothing, no_client])
def test_chardev_that_waits_for_its_peer_does_not_hold_up_the_end(peer, vmm, work):
    keys = tls.psk_creds(work / 'psk', alice='00112233445566778899aabbccddeeff')
    vm = vmm(*MACHINE, *monitors(str(work / 'second'), str(work / 'third')), defaults=False)
    second, third = (ferry.QMPClient.connect(str(work / name)) for name in ('second', 'third'))
    vm.cmd('object-add', qom_type='tls-creds-psk', id='creds', dir=str(keys), endpoint='client', username='alice')
    with peer(str(work / 'peer')) as backend:
        sent = second.send('chardev-add', {'id': 'late', 'backend': {'type': 'socket', 'data': backend}})
        for _ in range(2):          # with the first answer the command has been read, with the second it has begun
            third.cmd('query-jobs')
        vm.process.send_signal(signal.SIGTERM)
        with pytest.raises(ferry.QMPError, match='process is ending'):
            second.reply(sent)
        assert vm.wait_exit() == 0, vm.describe()
    assert 'not waiting any longer' not in vm.stderr()


@pytest.mark.parametrize('attempt', range(4))      # the signal has to arrive between two steps
def test_chardev_whose_name_is_looked_up_does_not_begin_to_wait_for_its_peer(vmm, work, attempt):
    paths = [str(work / f'monitor{number}') for number in range(12)]
    vm = vmm(*MACHINE, *monitors(*paths), defaults=False)
    backend = {'server': True, 'wait': True, 'addr': {'type': 'inet', 'data': {'host': '127.0.0.1', 'port': '0'}}}
    clients = list(map(ferry.QMPClient.connect, paths))
    for number, client in enumerate(clients):
        client.send('chardev-add', {'id': f'late{number}', 'backend': {'type': 'socket', 'data': backend}})
    vm.process.send_signal(signal.SIGTERM)
    assert vm.wait_exit(40) == 0, vm.describe()
    assert 'not waiting any longer' not in vm.stderr()
