# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a guest can be sent: every transport carries the stream from its first byte, to a peer that only looks."""
import os
import socket
import threading

import pytest

import ferry

MAGIC = bytes.fromhex('5145564d00000003')


@pytest.fixture
def source(vmm, need):
    vm = vmm('-m', '16M')
    names = {entry['name'] for entry in vm.cmd('query-commands')}
    need.that({'migrate', 'query-migrate'} <= names, 'this binary does not send guests')
    return vm


class Reader:
    """Reads all that comes from a descriptor, which it closes."""

    def __init__(self, fd):
        self.fd = fd
        self.data = b''
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while chunk := os.read(self.fd, 1 << 16):
            self.data += chunk
        os.close(self.fd)

    def result(self):
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.data


class Peer(Reader):
    """The same from the first connection that comes."""

    def __init__(self, listener):
        self.listener = listener
        super().__init__(-1)

    def run(self):
        with self.listener:
            self.fd = self.listener.accept()[0].detach()
        super().run()


def wait_over(vm):
    """The last query-migrate."""
    guard = ferry.Guard(60)
    while (info := vm.cmd('query-migrate')).get('status') not in ('completed', 'failed', 'cancelled'):
        guard.left()
    return info


def unix_listener(work):
    path = work / 'peer.sock'
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener, path


def test_unix(source, work):
    listener, path = unix_listener(work)
    peer = Peer(listener)
    source.cmd('migrate', uri=f'unix:{path}')
    assert wait_over(source)['status'] == 'completed'
    assert peer.result().startswith(MAGIC)


@pytest.mark.parametrize('family, host, uri', [(socket.AF_INET, '127.0.0.1', 'tcp:127.0.0.1:{}'),
                                               (socket.AF_INET6, '::1', 'tcp:[::1]:{}')])
def test_tcp(source, need, family, host, uri):
    listener = socket.socket(family)
    try:
        listener.bind((host, 0))
    except OSError:
        need.that(False, f'no address {host} here')
    listener.listen(1)
    peer = Peer(listener)
    source.cmd('migrate', uri=uri.format(listener.getsockname()[1]))
    assert wait_over(source)['status'] == 'completed'
    assert peer.result().startswith(MAGIC)


def test_socket_by_name(source):
    """As libvirt does it: the connection is its own."""
    ours, theirs = socket.socketpair()
    reader = Reader(ours.detach())
    source.cmd('getfd', fdname='migrate', fds=[theirs.fileno()])
    theirs.close()
    source.cmd('migrate', {'uri': 'fd:migrate', 'resume': False, 'detach': True})
    assert wait_over(source)['status'] == 'completed'
    assert reader.result().startswith(MAGIC)


def test_pipe_by_name(source):
    read_end, write_end = os.pipe()
    reader = Reader(read_end)
    source.cmd('getfd', fdname='pipe', fds=[write_end])
    os.close(write_end)
    source.cmd('migrate', uri='fd:pipe')
    assert wait_over(source)['status'] == 'completed'
    assert reader.result().startswith(MAGIC)


def test_exec(source, work):
    source.cmd('migrate', uri=f'exec:cat > {work}/out')
    assert wait_over(source)['status'] == 'completed'
    assert (work / 'out').read_bytes().startswith(MAGIC)


@pytest.mark.parametrize('offset', [0, 65536])
def test_file(source, work, need, offset):
    schema = {e['name'] for e in source.cmd('query-qmp-schema') if e['meta-type'] == 'command'}
    need.that('migrate' in schema and any(
        c['capability'] == 'mapped-ram' for c in source.cmd('query-migrate-capabilities')), 'no file: here')
    path = work / 'out'
    path.write_bytes(b'H' * 100000)
    source.cmd('migrate', uri=f'file:{path},offset={offset}')
    assert wait_over(source)['status'] == 'completed'
    data = path.read_bytes()
    assert data[:offset] == b'H' * offset
    assert data[offset:].startswith(MAGIC)
    assert b'H' * 1000 not in data[offset:]      # what was there has gone


def test_channel_list(source, work, need):
    listener, path = unix_listener(work)
    need.that(any(c['capability'] == 'mapped-ram' for c in source.cmd('query-migrate-capabilities')), 'no lists here')
    peer = Peer(listener)
    source.cmd('migrate', channels=[{'channel-type': 'main', 'addr': {
        'transport': 'socket', 'type': 'unix', 'path': str(path)}}])
    assert wait_over(source)['status'] == 'completed'
    assert peer.result().startswith(MAGIC)


@pytest.mark.parametrize('uri, cause', [('unix:/nonexistent/peer', 'No such file or directory'),
                                        ('tcp:127.0.0.1:1', 'Connection refused')])
def test_no_server_listens(source, uri, cause):
    source.cmd('migrate', uri=uri)
    info = wait_over(source)
    assert info['status'] == 'failed'
    assert 'Failed to connect to' in info['error-desc'] and cause in info['error-desc']
    assert source.cmd('query-status')['status'] == 'prelaunch'


@pytest.mark.parametrize('uri', ['', 'foo:bar', 'tcp', 'fd:nothing'])
def test_wrong_address_is_refused_at_once(source, uri):
    with pytest.raises(ferry.QMPError):
        source.cmd('migrate', uri=uri)
    assert source.cmd('query-migrate').get('status', 'none') in ('none', 'failed')


def test_a_failed_attempt_is_followed_by_a_good_one(source, work):
    source.cmd('migrate', uri='unix:/nonexistent/peer')
    assert wait_over(source)['status'] == 'failed'
    listener, path = unix_listener(work)
    peer = Peer(listener)
    source.cmd('migrate', uri=f'unix:{path}')
    assert wait_over(source)['status'] == 'completed'
    assert peer.result().startswith(MAGIC)
