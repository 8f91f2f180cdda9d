# SPDX-License-Identifier: GPL-2.0-or-later
"""An NBD node that does not come up, or whose connections die, leaves no descriptor behind."""
import os
import socket
import struct
import time

import pytest

import ferry
from ferry.nbd_script import (HAS_FLAGS, MULTI_CONN, OPT_EXPORT_NAME, OPT_GO, OPT_STARTTLS, OPT_STRUCTURED, READ, REP, REP_ACK, UNKNOWN,
                              UNSUP, simple)

TRIES = 12
SILENCE_S = 1

# What a server does instead of serving its export.
FAILURES = {
    'another greeting': {'greeting': b'SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n'},
    'hang-up in the greeting': {'greeting': b'NBDMAGIC', 'leave': True},
    'refusal': {OPT_GO: [(UNKNOWN, b'')]},
    'hang-up for an answer': {OPT_STRUCTURED: b''},
    'hang-up in an answer': {OPT_GO: struct.pack('>QI', REP, OPT_GO)},
    'hang-up after the export name': {OPT_GO: [(UNSUP, b'')], OPT_EXPORT_NAME: b'\0'},
}
TLS_FAILURES = {
    'no TLS': {OPT_STARTTLS: [(UNSUP, b'')]},
    'hang-up after STARTTLS': {OPT_STARTTLS: struct.pack('>QIII', REP, OPT_STARTTLS, REP_ACK, 0)},
    'garbage after STARTTLS': {OPT_STARTTLS: struct.pack('>QIII', REP, OPT_STARTTLS, REP_ACK, 0) + b'\xff' * 64},
}


def count(vm):
    return len(os.listdir(f'/proc/{vm.pid}/fd'))


def settles(vm, number):
    """Waits until the process has no more than `number` descriptors; what it leaves to its loop takes some turns."""
    guard = ferry.Guard(60)
    while count(vm) > number:
        assert guard.left(), [os.readlink(f'/proc/{vm.pid}/fd/{fd}') for fd in os.listdir(f'/proc/{vm.pid}/fd')]
        vm.cmd('query-version')
        time.sleep(0)


def repeat(vm, once):
    """The first calls make what stays: workers, eventfds."""
    for _ in range(3):
        once()
    before = count(vm)
    for _ in range(TRIES):
        once()
    settles(vm, before)


@pytest.fixture
def full_address():
    """An address where a connection is neither accepted nor refused: the queue of the listener is full."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()):
            yield {'type': 'inet', 'host': '127.0.0.1', 'port': str(listener.getsockname()[1])}


def add(vm, address, **options):
    vm.add('nbd', 'disk', server=address, **options)


def refused(vm, address, **options):
    with pytest.raises(ferry.QMPError):
        add(vm, address, **options)


@pytest.mark.parametrize('kind', ['unix', 'inet', 'fd'])
@pytest.mark.parametrize('failure', FAILURES)
def test_open_that_fails(vm, odd_server, failure, kind):
    peer = odd_server(FAILURES[failure])

    def once():
        if kind == 'fd':
            ours, theirs = socket.socketpair()
            peer.talk(ours)
            vm.cmd('getfd', fdname='conn', fds=[theirs.fileno()])
            theirs.close()
            refused(vm, {'type': 'fd', 'str': 'conn'})
        else:
            refused(vm, peer.address if kind == 'unix' else peer.inet())
    repeat(vm, once)


@pytest.mark.parametrize('failure', TLS_FAILURES)
def test_open_that_fails_at_tls(vm, odd_server, failure):
    peer = odd_server(TLS_FAILURES[failure])
    vm.cmd('object-add', {'qom-type': 'tls-creds-anon', 'id': 'creds', 'endpoint': 'client'})
    repeat(vm, lambda: refused(vm, peer.address, tls_creds='creds'))


def test_open_that_nothing_listens_for(vm, work):
    with socket.create_server(('127.0.0.1', 0)) as probe:
        port = str(probe.getsockname()[1])
    repeat(vm, lambda: refused(vm, {'type': 'unix', 'path': str(work / 'nothing')}))
    repeat(vm, lambda: refused(vm, {'type': 'inet', 'host': '127.0.0.1', 'port': port}))
    repeat(vm, lambda: refused(vm, {'type': 'inet', 'host': 'localhost', 'port': port}))


def test_open_of_something_that_is_no_socket(vm):
    def once():
        read_end, write_end = os.pipe()
        vm.cmd('getfd', fdname='conn', fds=[write_end])
        os.close(write_end)
        refused(vm, {'type': 'fd', 'str': 'conn'})
        os.close(read_end)
    repeat(vm, once)


def test_read_only_export_that_is_to_be_written(vm, odd_server):
    peer = odd_server({'flags': HAS_FLAGS | 2})
    repeat(vm, lambda: refused(vm, peer.address, read_only=False, auto_read_only=False))


def test_tries_until_open_timeout(vm, odd_server):
    peer = odd_server(FAILURES['refusal'])
    refused(vm, peer.address, open_timeout=SILENCE_S)
    before = count(vm)
    refused(vm, peer.address, open_timeout=SILENCE_S)
    settles(vm, before)


@pytest.mark.parametrize('silence', ['connecting', 'greeting', 'option', 'STARTTLS'])
def test_yank_while_a_node_is_opened(vmm, odd_server, full_address, silence):
    vm = vmm(capabilities=['oob'])
    instance = {'type': 'block-node', 'node-name': 'disk'}
    options = {}
    if silence == 'STARTTLS':
        vm.cmd('object-add', {'qom-type': 'tls-creds-anon', 'id': 'creds', 'endpoint': 'client'})
        options = {'tls-creds': 'creds'}
    peer = odd_server({'connecting': {}, 'greeting': {'greeting': b''}, 'option': {OPT_GO: None},
                       'STARTTLS': {OPT_STARTTLS: [(REP_ACK, b'')]}}[silence])
    address = full_address if silence == 'connecting' else peer.address

    def once():
        opening = vm.send('blockdev-add', {'driver': 'nbd', 'node-name': 'disk', 'server': address, **options})
        while instance not in vm.cmd('query-yank', oob=True):
            pass
        vm.cmd('yank', instances=[instance], oob=True)
        with pytest.raises(ferry.QMPError):
            vm.reply(opening)
    repeat(vm, once)


@pytest.mark.parametrize('later', ['silence', 'refusal', 'hang-up', 'another size'])
def test_further_connections_that_do_not_come_up(vm, odd_server, later):
    """Each node asks for several connections and is deleted while the server keeps it waiting."""
    flags = HAS_FLAGS | MULTI_CONN
    script = {'flags': flags, 'later': {
        'silence': {'greeting': b''}, 'refusal': FAILURES['refusal'], 'hang-up': FAILURES['hang-up for an answer'],
        'another size': {'flags': HAS_FLAGS}}[later]}

    def once():
        peer = odd_server(script)       # its own each time: a late connection of the node before is not its first
        add(vm, peer.address, connections=4)
        vm.cmd('human-monitor-command', command_line='qemu-io disk "aio_read 0 64k"')
        vm.qemu_io('disk', 'read 0 64k')
        vm.cmd('blockdev-del', node_name='disk')
    repeat(vm, once)


@pytest.mark.parametrize('reconnect_delay', [0, 1])
def test_server_that_dies_of_each_request(vm, odd_server, reconnect_delay):
    peer = odd_server({('command', READ): lambda cookie, offset, length: [simple(cookie + 1)]})

    def once():
        add(vm, peer.address, reconnect_delay=reconnect_delay)
        assert 'failed' in vm.qemu_io('disk', 'read 0 64k')
        vm.cmd('blockdev-del', node_name='disk')
    repeat(vm, once)
