# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests move over what only a network has: pages sent without a copy between hosts, names that no server resolves,
vsock. Two network namespaces joined by a cable stand for two hosts."""
import itertools
import os
import random
import socket
import subprocess
import sys

import pytest

import ferry
from ferry import migration as m

RAM = 64 * ferry.MIB
MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults']
_numbers = itertools.count(1)

# A name server that says that it was asked, and answers that there is no such name once it is told to.
NAME_SERVER = '''
import select, socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 53))
print("ready", flush=True)
asked, answering = [], False
while True:
    for ready in select.select([sock, sys.stdin], [], [])[0]:
        if ready is sock:
            asked.append(sock.recvfrom(4096))
            print("asked", flush=True)
        else:
            answering = bool(sys.stdin.readline()) or sys.exit(0)
    while answering and asked:
        query, client = asked.pop()
        sock.sendto(query[:2] + b"\\x81\\x83" + query[4:6] + bytes(6) + query[12:], client)
'''


def ip(*args):
    subprocess.run(['ip', *args], check=True, capture_output=True)


class Network:
    """Namespaces; `hosts` of them, the first two joined by a cable with the addresses 10.99.0.1 and .2."""

    def __init__(self, hosts):
        tag = f'ferry{os.getpid()}-{next(_numbers)}'
        self.names = [f'{tag}-{i}' for i in range(hosts)]
        self.folders = []
        for name in self.names:
            ip('netns', 'add', name)
            ip('-n', name, 'link', 'set', 'lo', 'up')
        if hosts > 1:
            ip('link', 'add', 'cable', 'netns', self.names[0], 'type', 'veth', 'peer', 'name', 'cable', 'netns',
               self.names[1])
            for i, name in enumerate(self.names[:2]):
                ip('-n', name, 'addr', 'add', f'10.99.0.{i + 1}/24', 'dev', 'cable')
                ip('-n', name, 'link', 'set', 'cable', 'up')

    def at(self, host, *command):
        return ['ip', 'netns', 'exec', self.names[host], *command]

    def resolver(self, host):
        """Names are asked of a server on this host."""
        folder = f'/etc/netns/{self.names[host]}'
        os.makedirs(folder)
        self.folders.append(folder)
        with open(f'{folder}/resolv.conf', 'w', encoding='ascii') as file:
            file.write('nameserver 127.0.0.1\noptions timeout:30 attempts:1\n')

    def remove(self):
        for name in self.names:
            subprocess.run(['ip', 'netns', 'del', name], check=False)
        for folder in self.folders:
            os.unlink(f'{folder}/resolv.conf')
            os.rmdir(folder)


@pytest.fixture
def network(need):
    need.root()
    need.tool('ip')
    made = []

    def make(hosts=2):
        try:
            made.append(Network(hosts))
        except subprocess.CalledProcessError as error:
            pytest.skip(f'network namespaces cannot be made here: {error.stderr.decode().strip()}')
        return made[-1]
    yield make
    for one in made:
        one.remove()


# Zero copy

class Side:
    def __init__(self, vmm, work, name, *args, wrapper=(), caps=(), **options):
        self.qtest = ferry.QTest(work, name)
        self.vm = vmm(*MACHINE, '-m', f'{RAM // ferry.MIB}M', *self.qtest.args, *args, defaults=False, name=name,
                      command=[*wrapper, *ferry.binary()], **options)
        m.set_caps(self.vm, 'events', *caps)


def zero_copy_pair(vmm, work, network, wrapper=()):
    source = Side(vmm, work, 'source', wrapper=network.at(0, *wrapper), caps=['multifd', 'zero-copy-send'])
    destination = Side(vmm, work, 'destination', '-incoming', 'defer', wrapper=network.at(1), caps=['multifd'])
    for side in (source, destination):
        side.vm.cmd('migrate-set-parameters', {'multifd-channels': 2})
    destination.vm.cmd('migrate-incoming', uri='tcp:10.99.0.2:0')
    port = destination.vm.cmd('query-migrate')['socket-address'][0]['port']
    return source, destination, f'tcp:10.99.0.2:{port}'


def fill(side, seed):
    print(f'seed {seed}')
    data = random.Random(seed).randbytes(RAM * 3 // 4)
    side.qtest.write(0, data)
    return data + bytes(RAM - len(data))


def test_zero_copy_between_hosts_moves_every_byte(vmm, work, network):
    source, destination, uri = zero_copy_pair(vmm, work, network())
    data = bytearray(fill(source, 77))
    # slow enough for passes in which pages change that are on their way
    source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 48 * ferry.MIB})
    source.vm.cmd('migrate', uri=uri)
    rng = random.Random(78)
    late = None         # a page written when the guest may have been stopped already
    while late is None:
        info = source.vm.cmd('query-migrate')
        if info.get('ram', {}).get('dirty-sync-count', 0) >= 3 or info.get('status') in m.OVER:
            break
        if info['status'] != 'active':
            continue
        at = rng.randrange(RAM // m.PAGE) * m.PAGE
        data[at:at + m.PAGE] = rng.randbytes(m.PAGE)
        source.qtest.write(at, data[at:at + m.PAGE])
        if source.vm.cmd('query-migrate')['status'] != 'active':
            late = at
    source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 1 << 40})
    assert m.wait_over(source.vm)['status'] == 'completed'
    assert m.wait_over(destination.vm)['status'] == 'completed'
    arrived = bytearray(destination.qtest.read(0, RAM))
    if late is not None:
        data[late:late + m.PAGE] = arrived[late:late + m.PAGE]
    assert arrived == data
    ram = source.vm.cmd('query-migrate')['ram']
    # the cable's other end is in this kernel, which copies after all, and says so at each pass
    assert 1 <= ram['dirty-sync-missed-zero-copy'] <= ram['dirty-sync-count'] * 2


def test_without_zero_copy_none_is_missed(vmm, work, network):
    source, destination, uri = zero_copy_pair(vmm, work, network())
    source.vm.cmd('migrate-set-capabilities', capabilities=[{'capability': 'zero-copy-send', 'state': False}])
    data = fill(source, 79)
    source.vm.cmd('migrate', uri=uri)
    assert m.wait_over(source.vm)['status'] == 'completed'
    assert m.wait_over(destination.vm)['status'] == 'completed'
    assert destination.qtest.read(0, RAM) == data
    assert source.vm.cmd('query-migrate')['ram']['dirty-sync-missed-zero-copy'] == 0


def test_zero_copy_needs_memory_that_may_be_locked(vmm, work, network, need):
    need.tool('setpriv', 'prlimit')
    # a privileged process may lock as much as it likes
    wrapper = ['prlimit', '--memlock=65536:65536', 'setpriv', '--bounding-set=-ipc_lock', '--inh-caps=-ipc_lock']
    source, destination, uri = zero_copy_pair(vmm, work, network(), wrapper)
    destination.vm.expected = {1}
    data = fill(source, 80)
    source.vm.cmd('migrate', uri=uri)
    info = m.wait_over(source.vm)
    assert info['status'] == 'failed'
    assert 'lock enough memory' in info['error-desc'] and 'RLIMIT_MEMLOCK' in info['error-desc']
    assert source.qtest.read(0, RAM) == data
    assert source.vm.cmd('query-status')['status'] in ('running', 'prelaunch')


# Names

@pytest.fixture
def silent_names(network, vmm):
    """A binary on a host whose name server does not answer, and that server."""
    net = network(1)
    net.resolver(0)
    server = subprocess.Popen(net.at(0, sys.executable, '-c', NAME_SERVER), stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline() == 'ready\n'
        yield vmm('-object', 'secret,id=s,data=x', command=net.at(0, *ferry.binary())), server
    finally:
        server.kill()
        server.communicate()


def test_monitor_answers_while_a_name_is_looked_up(silent_names):
    vm, server = silent_names
    inet = {'type': 'inet', 'host': 'nobody.example', 'port': '1'}
    vm.cmd('migrate', uri='tcp:nobody.example:1')
    assert server.stdout.readline() == 'asked\n'
    assert vm.cmd('query-migrate')['status'] == 'setup'
    assert vm.cmd('query-name') == {}
    vm.cmd('migrate_cancel')
    assert vm.cmd('query-status')['running'] in (True, False)
    server.stdin.write('answer\n')
    server.stdin.flush()
    assert m.wait_over(vm)['status'] in ('cancelled', 'failed')
    with pytest.raises(ferry.QMPError, match='nobody.example'):
        vm.cmd('blockdev-add', {'driver': 'nbd', 'node-name': 'n', 'server': inet})


def test_name_that_does_not_exist_is_named(silent_names):
    vm, server = silent_names
    server.stdin.write('answer\n')
    server.stdin.flush()
    vm.cmd('migrate', uri='tcp:nobody.example:1')
    info = m.wait_over(vm)
    assert info['status'] == 'failed' and 'nobody.example' in info['error-desc']
    backend = {'type': 'socket', 'data': {'server': False, 'addr': {'type': 'inet', 'data': {
        'host': 'nobody.example', 'port': '1'}}}}
    with pytest.raises(ferry.QMPError, match='nobody.example'):
        vm.cmd('chardev-add', id='c', backend=backend)


def test_other_monitors_are_served_while_a_command_waits_for_a_name(silent_names):
    vm, server = silent_names
    vm.cmd('trace-event-set-state', name='chr_socket_tried', enable=True)
    address = {'type': 'inet', 'data': {'host': 'nobody.example', 'port': '1'}}
    backend = {'type': 'socket', 'data': {'server': False, 'reconnect-ms': 1000, 'addr': address}}
    vm.cmd('chardev-add', id='r', backend=backend)
    assert server.stdout.readline() == 'asked\n'
    assert vm.cmd('query-name') == {}
    vm.cmd('chardev-remove', id='r')        # though its look-up is under way
    assert 'r' not in [c['label'] for c in vm.cmd('query-chardev')]
    server.stdin.write('answer\n')          # the look-up ends, and no migration waits for it any more
    server.stdin.flush()
    guard = ferry.Guard(60)
    while 'chr_socket_tried' not in vm.stderr():
        vm.cmd('query-name')
        guard.left()


# vsock

def vsock_works(cid, listen=True):
    try:
        with socket.socket(socket.AF_VSOCK) as server:
            server.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
            server.listen(1)
            with socket.socket(socket.AF_VSOCK) as client:
                client.settimeout(2)
                client.connect((cid, server.getsockname()[1] if listen else 1))
                return True
    except (AttributeError, OSError) as error:
        return error


def test_guest_moves_over_vsock(vmm, work, need):
    error = vsock_works(1)
    need.that(error is True, f'no vsock on this host itself (vsock_loopback): {error}')
    source = Side(vmm, work, 'source', caps=['return-path'])
    destination = Side(vmm, work, 'destination', '-incoming', 'vsock:1:4444')
    data = fill(source, 81)
    source.vm.cmd('migrate', uri='vsock:1:4444')
    assert m.wait_over(source.vm)['status'] == 'completed'
    assert m.wait_over(destination.vm)['status'] == 'completed'
    assert destination.qtest.read(0, RAM) == data


def test_destination_listens_on_vsock(vmm, need):
    need.that(hasattr(socket, 'AF_VSOCK') and os.path.exists('/dev/vsock'), 'no vsock here')
    vm = vmm('-incoming', 'vsock:4294967295:4445')
    with socket.socket(socket.AF_VSOCK) as other:
        with pytest.raises(OSError, match='in use'):
            other.bind((socket.VMADDR_CID_ANY, 4445))
    assert vm.cmd('query-migrate')['socket-address'] == [{'type': 'vsock', 'cid': '4294967295', 'port': '4445'}]


def test_absent_vsock_peer_is_reported_in_words_that_are_true(vmm, need):
    need.that(hasattr(socket, 'AF_VSOCK') and os.path.exists('/dev/vsock'), 'no vsock here')
    vm = vmm()
    vm.cmd('migrate', uri='vsock:4242:1')
    info = m.wait_over(vm)
    assert info['status'] == 'failed' and "'vsock:4242:1': " in info['error-desc']
    assert 'no machine of that CID answers' in info['error-desc'] or 'no vsock transport' in info['error-desc']
