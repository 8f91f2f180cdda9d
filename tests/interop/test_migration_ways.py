# SPDX-License-Identifier: GPL-2.0-or-later
"""Every way a guest can go between Ferry and stock QEMU: programs, descriptors, files, TLS, and how each is named."""
import json
import os
import socket

import pytest

from ferry import MIB, Guard, tls
from ferry import migration as m
from ferry.stock import WAYS, arrived, fill

both_ways = pytest.mark.parametrize('way', WAYS)
since = pytest.mark.since


def saved(source, uri):
    source.cmd('migrate', uri=uri)
    info = m.wait_over(source)
    assert info['status'] == 'completed', info


# Programs and descriptors

@both_ways
def test_two_programs(lane, way, work):
    """One that sends what the other one receives."""
    first, second = way.split('-')
    os.mkfifo(work / 'fifo')
    source = lane.guest(first)
    destination = lane.guest(second, '-incoming', 'defer')
    fill(source, 31)
    source.cmd('migrate', uri=f'exec:cat > {work}/fifo')
    destination.cmd('migrate-incoming', uri=f'exec:cat {work}/fifo')
    arrived(source, destination)


@both_ways
@pytest.mark.parametrize('kind', ['socket', 'pipe'])
def test_descriptor_by_name(lane, way, kind):
    first, second = way.split('-')
    source = lane.guest(first, caps=['return-path'] if kind == 'socket' else [])
    destination = lane.guest(second, '-incoming', 'defer')
    fill(source, 32)
    if kind == 'socket':
        ends = [end.detach() for end in socket.socketpair()]
    else:
        ends = os.pipe()
    destination.cmd('getfd', fdname='in', fds=[ends[0]])
    source.cmd('getfd', fdname='out', fds=[ends[1]])
    for end in ends:
        os.close(end)
    destination.cmd('migrate-incoming', uri='fd:in')
    arrived(source, destination, 'fd:out')


@both_ways
def test_descriptor_by_number(lane, way):
    """The destination inherits it."""
    first, second = way.split('-')
    ours, theirs = socket.socketpair()
    with ours, theirs:
        source = lane.guest(first, caps=['return-path'])
        destination = lane.guest(second, '-incoming', f'fd:{theirs.fileno()}', pass_fds=[theirs.fileno()])
        fill(source, 33)
        source.cmd('getfd', fdname='out', fds=[ours.fileno()])
    arrived(source, destination, 'fd:out')


# Files

@both_ways
@pytest.mark.parametrize('offset', [0, 0x4000])
def test_file(lane, way, work, offset):
    """The stream as it is, after so many bytes of another program's. 7.2 reads it through a program."""
    first, second = way.split('-')
    new = lane.peer.version >= (8, 2)
    source = lane.guest(first)
    fill(source, 34)
    path = work / 'saved'
    path.write_bytes(b'H' * offset)
    saved(source, f'file:{path},offset={offset}' if new or first == 'ferry' else f'exec:cat >> {path}')
    assert path.read_bytes()[:offset] == b'H' * offset
    destination = lane.guest(second, '-incoming', f'file:{path},offset={offset}' if new or second == 'ferry' else
                             f'exec:tail -c +{offset + 1} {path}')
    arrived(source, destination)


@both_ways
@pytest.mark.parametrize('offset', [0, 0x4000])
@pytest.mark.parametrize('caps, params', [([], {}), (['multifd'], {'multifd-channels': 3}), (['multifd'], {'direct-io': True})],
                         ids=['one', 'multifd', 'direct'])
@since(9, 0)
def test_pages_at_fixed_places_of_a_file(lane, way, disk_work, offset, caps, params):
    first, second = way.split('-')
    caps = ['mapped-ram', *caps]
    source = lane.guest(first, caps=caps, params=params)
    fill(source, 35)
    uri = f'file:{disk_work}/saved,offset={offset}'
    saved(source, uri)
    destination = lane.guest(second, '-incoming', 'defer', caps=caps, params=params)
    destination.cmd('migrate-incoming', uri=uri)
    arrived(source, destination)


@both_ways
@pytest.mark.parametrize('write_multifd', [False, True])
@since(9, 0)
def test_fixed_places_are_read_with_or_without_channels(lane, way, work, write_multifd):
    """The file does not say by how many it was written."""
    first, second = way.split('-')
    source = lane.guest(first, caps=['mapped-ram', *(['multifd'] if write_multifd else [])])
    fill(source, 36)
    saved(source, f'file:{work}/saved')
    destination = lane.guest(second, '-incoming', 'defer', caps=['mapped-ram', *([] if write_multifd else ['multifd'])])
    destination.cmd('migrate-incoming', uri=f'file:{work}/saved')
    arrived(source, destination)


@both_ways
@pytest.mark.parametrize('caps', [['mapped-ram'], ['mapped-ram', 'multifd']], ids=['one', 'multifd'])
@since(9, 0)
def test_a_guest_that_writes_into_fixed_places(lane, way, work, caps):
    """Pages written again are written over in the file, not behind it."""
    first, second = way.split('-')
    source = lane.guest(first, caps=[*caps, 'pause-before-switchover'], writer=True,
                        params={'max-bandwidth': MIB, 'downtime-limit': 1})
    fill(source, 37, end=MIB)
    source.cmd('cont')
    source.cmd('migrate', uri=f'file:{work}/saved')
    guard = Guard(60)
    while source.cmd('query-migrate')['status'] != 'pre-switchover':
        source.writer.write()
        source.writer.finish()
        source.cmd('migrate-set-parameters', {'downtime-limit': 2000})
        guard.left()
    source.cmd('migrate-continue', state='pre-switchover')
    assert m.wait_over(source)['status'] == 'completed'
    assert os.path.getsize(work / 'saved') < lane.size + 4 * MIB
    destination = lane.guest(second, '-incoming', 'defer', caps=caps)
    destination.cmd('migrate-incoming', uri=f'file:{work}/saved')
    arrived(source, destination)


# TLS

@both_ways
@pytest.mark.parametrize('caps, tcp', [([], False), (['multifd'], False), (['multifd'], True)],
                         ids=['one', 'multifd', 'multifd-tcp'])
@pytest.mark.parametrize('kind', ['x509', 'psk', 'anon'])
def test_tls(lane, way, work, need, kind, caps, tcp):
    """Over TCP the channels' handshakes may end in another order than they began."""
    need.tool('certtool')
    if kind == 'x509':
        authority = tls.Authority(work / 'ca')
        more = {'client': f',dir={authority.creds(client=authority.client())}',
                'server': f',dir={authority.creds(server=authority.server())},verify-peer=on'}
    elif kind == 'psk':
        folder = tls.psk_creds(work / 'psk', alice='0123456789abcdef' * 4)
        more = {'client': f',dir={folder},username=alice', 'server': f',dir={folder}'}
    else:
        more = {'client': '', 'server': ''}
    first, second = way.split('-')

    def args(endpoint):
        return ['-object', f'tls-creds-{kind},id=tls0,endpoint={endpoint}{more[endpoint]}']
    params = {'tls-creds': 'tls0'}
    source = lane.guest(first, *args('client'), caps=['return-path', *caps],
                        params={**params, **({'tls-hostname': 'localhost'} if kind == 'x509' else {})})
    destination = lane.guest(second, *args('server'), '-incoming', 'defer', caps=caps, params=params)
    uri = f'unix:{work}/in'
    destination.cmd('migrate-incoming', uri='tcp:127.0.0.1:0' if tcp else uri)
    if tcp:
        uri = f"tcp:127.0.0.1:{destination.cmd('query-migrate')['socket-address'][0]['port']}"
    fill(source, 38)
    arrived(source, destination, uri)


@both_ways
@pytest.mark.parametrize('welcome', [True, False])
def test_tls_authorization(lane, way, work, need, welcome):
    """By the name in the source's certificate; a source that is refused keeps its guest."""
    need.tool('certtool')
    authority = tls.Authority(work / 'ca')
    first, second = way.split('-')
    name = 'O=Ferry tests,CN=alice' if welcome else 'CN=bob'
    source = lane.guest(first, '-object', 'tls-creds-x509,id=tls0,endpoint=client,'
                        f'dir={authority.creds(client=authority.client())}', caps=['return-path'],
                        params={'tls-creds': 'tls0', 'tls-hostname': 'localhost'})
    destination = lane.guest(second, '-object', 'tls-creds-x509,id=tls0,endpoint=server,verify-peer=on,'
                             f'dir={authority.creds(server=authority.server())}',
                             '-object', f'authz-simple,id=list,identity={name.replace(",", ",,")}',
                             '-incoming', 'defer', params={'tls-creds': 'tls0', 'tls-authz': 'list'})
    source.cmd('cont')
    destination.cmd('migrate-incoming', uri=f'unix:{work}/in')
    fill(source, 39)
    if welcome:
        arrived(source, destination, f'unix:{work}/in')
        return
    destination.expected = {0, 1}
    source.cmd('migrate', uri=f'unix:{work}/in')
    assert m.wait_over(source)['status'] == 'failed'
    assert m.wait_run_state(source, 'running') == 'running'


# Names

def named(path):
    return [{'channel-type': 'main', 'addr': {'transport': 'socket', 'type': 'unix', 'path': str(path)}}]


@both_ways
@pytest.mark.parametrize('caps', [[], ['multifd']], ids=['one', 'multifd'])
def test_channel_lists(lane, way, work, caps):
    """Both sides are told by lists where both know them; 7.2 by a URI."""
    first, second = way.split('-')
    source = lane.guest(first, caps=['return-path', *caps])
    destination = lane.guest(second, '-incoming', 'defer', caps=caps)
    path = work / 'in'
    for who, vm, command in ((second, destination, 'migrate-incoming'), (first, source, 'migrate')):
        if who == 'stock' and lane.peer.version < (8, 2):
            vm.cmd(command, uri=f'unix:{path}')
        else:
            vm.cmd(command, channels=named(path))
        if vm is destination:
            fill(source, 40)
    arrived(source, destination)


@both_ways
@pytest.mark.parametrize('transport', ['exec', 'file'])
@since(8, 2)
def test_other_addresses(lane, way, work, transport):
    first, second = way.split('-')
    source = lane.guest(first)
    fill(source, 41)
    path = work / 'saved'

    def channels(command):
        addr = {'transport': 'exec', 'args': ['/bin/sh', '-c', command]} if transport == 'exec' else \
            {'transport': 'file', 'filename': str(path), 'offset': 512}
        return [{'channel-type': 'main', 'addr': addr}]
    source.cmd('migrate', channels=channels(f'cat > {path}'))
    assert m.wait_over(source)['status'] == 'completed'
    destination = lane.guest(second, '-incoming', 'defer')
    destination.cmd('migrate-incoming', channels=channels(f'cat {path}'))
    arrived(source, destination)


@pytest.mark.parametrize('way', ['stock-ferry', pytest.param('ferry-stock', marks=since(10, 0))])
def test_incoming_as_json(lane, way, work):
    first, second = way.split('-')
    source = lane.guest(first, caps=['return-path'])
    destination = lane.guest(second, '-incoming', json.dumps(named(work / 'in')[0]))
    fill(source, 42)
    arrived(source, destination, f'unix:{work}/in')


# Switches of compatibility

@both_ways
@pytest.mark.parametrize('switch', [
    'send-section-footer=off', 'store-global-state=off', 'x-clear-bitmap-shift=6',
    *(pytest.param(switch, marks=since(10, 0)) for switch in (
        'send-switchover-start=on', 'send-switchover-start=off', 'multifd-clean-tls-termination=on'))])
def test_switches_of_compatibility(lane, way, switch):
    """The same on both sides, as a machine type would have it."""
    source, destination, uri = lane.pair(way, '-global', f'migration.{switch}', source_caps=['return-path'])
    fill(source, 43)
    arrived(source, destination, uri)


@both_ways
def test_stream_without_configuration(lane, way, need):
    need.that(way == 'ferry-stock' or lane.peer.version < (8, 0), 'as a source this version aborts with it')
    source, destination, uri = lane.pair(way, '-global', 'migration.send-configuration=off', source_caps=['return-path'])
    fill(source, 45)
    arrived(source, destination, uri)


@both_ways
def test_capabilities_by_global(lane, way, work):
    """What -global sets is as if a client had."""
    first, second = way.split('-')
    args = ['-global', 'migration.x-multifd=on', '-global', 'migration.multifd-channels=2',
            '-global', 'migration.x-return-path=on']
    more = ['-global', 'migration.multifd-flush-after-each-section=off'] if first == 'ferry' and lane.peer.new_barriers else []
    source = lane.guest(first, *args, *more)
    destination = lane.guest(second, *args, '-incoming', 'defer')
    destination.cmd('migrate-incoming', uri=f'unix:{work}/in')
    fill(source, 44)
    info = arrived(source, destination, f'unix:{work}/in')
    assert info['ram']['multifd-bytes'] > 0


# Capabilities that no other test has

@both_ways
@pytest.mark.parametrize('same', [True, False])
def test_uuid_is_compared(lane, way, work, same):
    first, second = way.split('-')
    uuids = ['11111111-2222-3333-4444-555555555555', '11111111-2222-3333-4444-55555555555' + ('5' if same else '6')]
    source = lane.guest(first, '-uuid', uuids[0], caps=['return-path', 'validate-uuid'])
    destination = lane.guest(second, '-uuid', uuids[1], '-incoming', f'unix:{work}/in', caps=['validate-uuid'])
    source.cmd('cont')
    fill(source, 46)
    if same:
        arrived(source, destination, f'unix:{work}/in')
        return
    destination.expected = {1}
    source.cmd('migrate', uri=f'unix:{work}/in')
    assert m.wait_over(source)['status'] == 'failed'
    assert destination.wait_exit() == 1
    assert m.wait_run_state(source, 'running') == 'running'


@both_ways
def test_pages_that_are_not_copied_into_the_kernel(lane, way, need):
    first, second = way.split('-')
    source = lane.guest(first, caps=['return-path', 'multifd'])
    names = [c['capability'] for c in source.cmd('query-migrate-capabilities')]
    need.that('zero-copy-send' in names, 'this source has no zero-copy-send')
    m.set_caps(source, 'zero-copy-send')
    destination = lane.guest(second, '-incoming', 'defer', caps=['multifd'])
    destination.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    port = destination.cmd('query-migrate')['socket-address'][0]['port']
    fill(source, 47)
    arrived(source, destination, f'tcp:127.0.0.1:{port}')
