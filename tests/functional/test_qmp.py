# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP as a client sees it: sessions, negotiation, errors, events, several monitors."""
import json
import socket

import pytest

import ferry


def second_monitor(vmm, work, *extra):
    """A binary with one more monitor, a server on a unix socket; returns it and the path."""
    path = str(work / 'second')
    return vmm('-chardev', f'socket,id=c1,path={path},server=on,wait=off', '-mon', 'chardev=c1,mode=control', *extra), path


def raw(vm, line):
    """Sends bytes as they are and returns the answer, which carries no id."""
    vm.qmp.send_raw(line)
    return vm.qmp.stray()


def test_greeting_tells_version_and_oob(vm):
    greeting = vm.qmp.greeting
    version = greeting['version']['qemu']
    assert all(isinstance(version[k], int) for k in ('major', 'minor', 'micro'))
    assert 'oob' in greeting['capabilities']


def test_commands_wait_for_negotiation(vmm, work):
    vm, path = second_monitor(vmm, work)
    client = ferry.QMPClient.connect(path, capabilities=False)
    try:
        with pytest.raises(ferry.QMPError) as error:
            client.cmd('query-status')
        assert error.value.cls == 'CommandNotFound'
        client.cmd('qmp_capabilities')
        assert client.cmd('query-status')['running'] is False
        with pytest.raises(ferry.QMPError) as error:
            client.cmd('qmp_capabilities')
        assert error.value.cls == 'CommandNotFound'
    finally:
        client.close()


def test_unknown_command_has_its_class(vm):
    with pytest.raises(ferry.QMPError) as error:
        vm.cmd('make-coffee')
    assert error.value.cls == 'CommandNotFound'
    assert 'make-coffee' in error.value.desc


@pytest.mark.parametrize('args, word', [
    ({}, 'node-name'),
    ({'node-name': 7}, 'node-name'),
    ({'node-name': 'a', 'sugar': 1}, 'sugar'),
])
def test_wrong_argument_is_an_error_that_names_it(vm, args, word):
    with pytest.raises(ferry.QMPError) as error:
        vm.cmd('blockdev-del', args)
    assert error.value.cls == 'GenericError'
    assert word in error.value.desc


@pytest.mark.parametrize('number', [7, 'seven', None, {'a': [1, 2]}, [1], True])
def test_id_comes_back_as_it_was(vm, number):
    vm.qmp.send_raw(json.dumps({'execute': 'query-name', 'id': number}).encode() + b'\n')
    assert vm.qmp.reply(('query-name', number)) == {}


@pytest.mark.parametrize('line', [b'{"execute": "query-name"', b'}', b'{"execute": }\n', b'nonsense\n', b'[1,2\n', b'"\xff"\n',
                                  b'{"a": 1e999999}\n'])
def test_broken_json_is_answered_and_survived(vm, line):
    vm.qmp.send_raw(line + b'\n')
    # An open brace is only ended by 0xff, QMP's reset.
    vm.qmp.send_raw(b'\xff')
    vm.cmd('query-name')
    assert vm.qmp.stray()['error']['class'] == 'GenericError'


@pytest.mark.parametrize('line', [b'[]', b'7', b'"execute"', b'{}', b'{"execute": 7}', b'{"execute": "query-name", "x": 1}',
                                  b'{"execute": "query-name", "arguments": []}'])
def test_json_that_is_no_command_is_answered_and_survived(vm, line):
    assert raw(vm, line + b'\n')['error']['class'] == 'GenericError'
    vm.cmd('query-name')


def test_deep_nesting_is_refused(vm):
    depth = 5000
    vm.qmp.send_raw(b'[' * depth + b']' * depth + b'\n')
    assert vm.qmp.stray()['error']['class'] == 'GenericError'
    vm.qmp.send_raw(b'\xff')
    vm.cmd('query-name')


def test_many_commands_in_one_write_are_answered_in_order(vm):
    count = 200
    vm.qmp.send_raw(b''.join(b'{"execute": "query-name", "id": "n%d"}' % i for i in range(count)))
    vm.cmd('query-name')
    got = [json.loads(line[3:])['id'] for line in vm.qmp.traffic if line.startswith('<- ')]
    got = [g for g in got if isinstance(g, str)]
    assert got == [f'n{i}' for i in range(count - len(got), count)]


def test_command_in_pieces(vm):
    for byte in b'{"execute": "query-name", "id": "slow"}':
        vm.qmp.send_raw(bytes([byte]))
    assert vm.qmp.reply(('query-name', 'slow')) == {}


def test_event_has_a_timestamp(vm):
    vm.cmd('quit')
    stamp = vm.wait('SHUTDOWN')['timestamp']
    assert stamp['seconds'] > 1_600_000_000
    assert 0 <= stamp['microseconds'] < 1_000_000


def test_two_monitors_work_at_once(vmm, work):
    vm, path = second_monitor(vmm, work)
    client = ferry.QMPClient.connect(path)
    try:
        assert client.cmd('query-status') == vm.cmd('query-status')
        vm.cmd('quit')
        assert client.wait('SHUTDOWN')['data']['reason'] == 'host-qmp-quit'
        assert vm.wait('SHUTDOWN')['data']['reason'] == 'host-qmp-quit'
    finally:
        client.close()


def test_monitor_takes_the_next_client_after_one_left(vmm, work):
    vm, path = second_monitor(vmm, work)
    for _ in range(20):
        client = ferry.QMPClient.connect(path)
        client.send('query-qmp-schema')      # leave without reading the answer
        client.close()
    client = ferry.QMPClient.connect(path)
    assert client.cmd('query-name') == {}
    client.close()
    assert vm.cmd('query-name') == {}


def test_monitor_over_tcp(vmm):
    vm = vmm('-chardev', 'socket,id=c1,host=127.0.0.1,port=0,server=on,wait=off', '-mon', 'chardev=c1,mode=control')
    label = next(c for c in vm.cmd('query-chardev') if c['label'] == 'c1')['filename']
    port = int(label.split('127.0.0.1:')[1].split(',')[0])
    client = ferry.QMPClient.connect(('127.0.0.1', port))
    assert client.cmd('query-name') == {}
    client.close()


def test_monitor_over_an_inherited_descriptor(vmm):
    ours, theirs = socket.socketpair()
    vmm('-chardev', f'socket,id=c1,fd={theirs.fileno()}', '-mon', 'chardev=c1,mode=control', pass_fds=[theirs.fileno()])
    theirs.close()
    client = ferry.QMPClient(ours)
    assert client.cmd('query-name') == {}
    client.close()


def test_out_of_band_is_refused_where_not_negotiated_or_not_allowed(vmm, work):
    vm, path = second_monitor(vmm, work)
    client = ferry.QMPClient.connect(path, capabilities=['oob'])
    try:
        with pytest.raises(ferry.QMPError, match='query-name'):
            client.cmd('query-name', oob=True)      # not a command that may be run out of band
        assert client.cmd('query-name') == {}
    finally:
        client.close()
    with pytest.raises(ferry.QMPError):
        vm.cmd('query-name', oob=True)              # not negotiated here


def test_query_commands_lists_what_works(vm):
    names = {c['name'] for c in vm.cmd('query-commands')}
    assert {'query-status', 'quit', 'blockdev-add', 'blockdev-mirror', 'drive-mirror', 'query-qmp-schema'} <= names


def test_hmp_through_qmp(vm):
    assert 'paused' in vm.hmp('info status')
