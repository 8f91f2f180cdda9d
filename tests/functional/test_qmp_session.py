# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP sessions: negotiation, order, out-of-band requests, events, several clients, descriptors."""
import json
import os
import signal
import socket

import pytest

import ferry


def server(work, name='m'):
    """Arguments for one more monitor that listens, and its path."""
    path = str(work / f'{name}.sock')
    return ['-qmp', f'unix:{path},server=on,wait=off'], path


def hang(vm, work):
    """An in-band command that ends only when a client connects to the path that is returned with it."""
    path = str(work / 'hang.sock')
    backend = {'type': 'socket', 'data': {'addr': {'type': 'unix', 'data': {'path': path}}, 'server': True, 'wait': True}}
    sent = vm.send('chardev-add', {'id': 'hang', 'backend': backend})
    return sent, path


def release(path):
    """Connects; the server may not listen yet, because nothing says when a command has begun."""
    sock = socket.socket(socket.AF_UNIX)
    guard = ferry.Guard(60)
    while True:
        try:
            sock.connect(path)
            return sock
        except (FileNotFoundError, ConnectionRefusedError):
            guard.left()


def test_greeting_names_version_and_oob(vm):
    assert vm.qmp.greeting['capabilities'] == ['oob']
    assert set(vm.qmp.greeting['version']) == {'qemu', 'package'}
    assert vm.cmd('query-version') == vm.qmp.greeting['version']


def test_nothing_runs_before_negotiation(vmm):
    vm = vmm(capabilities=False)
    with pytest.raises(ferry.QMPError) as error:
        vm.cmd('query-status')
    assert error.value.cls == 'CommandNotFound'
    assert 'qmp_capabilities' in error.value.desc
    vm.cmd('qmp_capabilities')
    assert vm.cmd('query-status')['status'] == 'prelaunch'


def test_negotiation_happens_once(vm):
    with pytest.raises(ferry.QMPError) as error:
        vm.cmd('qmp_capabilities')
    assert error.value.cls == 'CommandNotFound'


def test_unknown_capability_leaves_the_session_in_negotiation(vmm):
    vm = vmm(capabilities=False)
    with pytest.raises(ferry.QMPError, match='bogus'):
        vm.cmd('qmp_capabilities', enable=['bogus'])
    with pytest.raises(ferry.QMPError, match='qmp_capabilities'):
        vm.cmd('query-status')
    vm.cmd('qmp_capabilities')


@pytest.mark.parametrize('request_text, words', [
    ('[1]', 'must be a JSON object'),
    ('"x"', 'must be a JSON object'),
    ('5', 'must be a JSON object'),
    ('null', 'must be a JSON object'),
    ('{}', "lacks member 'execute'"),
    ('{"execute":5}', "'execute' must be a string"),
    ('{"foo":1}', "'foo' is unexpected"),
    ('{"execute":"query-status","exec-oob":"query-status"}', "'exec-oob' is unexpected"),
    ('{"exec-oob":"query-status"}', "'exec-oob' is unexpected"),
    ('{"execute":"query-status","arguments":5}', "'arguments' must be an object"),
    ('{"execute":"query-status","arguments":{"x":1}}', 'x'),
    ('{"execute":"nope"}', 'The command nope has not been found'),
])
def test_request_of_wrong_form_is_named(vm, request_text, words):
    vm.qmp.send_raw(request_text.encode() + b'\n')
    assert words in vm.qmp.stray()['error']['desc']
    assert vm.cmd('query-status')['status'] == 'prelaunch'


def test_unknown_command_has_its_class(vm):
    with pytest.raises(ferry.QMPError) as error:
        vm.cmd('no-such-command')
    assert error.value.cls == 'CommandNotFound'


@pytest.mark.parametrize('ident', ['x', 0, -1.5, True, None, [1, {'a': None}], {'deep': [[]]}])
def test_id_is_echoed_as_it_was(work, vmm, ident):
    args, path = server(work)
    vmm(*args)
    raw = Raw(path)
    raw.line()
    for command in ('qmp_capabilities', 'query-status', 'nope'):
        raw.send(json.dumps({'execute': command, 'id': ident}).encode())
        reply = raw.line()
        assert 'id' in reply and reply['id'] == ident
    raw.close()


class Raw:
    """A connection that sends what it is told and reads lines."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.sock.settimeout(60 * ferry.time_scale())
        self.file = self.sock.makefile('rb')

    def send(self, data):
        self.sock.sendall(data)

    def line(self):
        """The next message; None at the end of the stream."""
        text = self.file.readline()
        return json.loads(text) if text else None

    def close(self):
        self.file.close()
        self.sock.close()


def test_commands_run_in_order(work, vmm):
    args, path = server(work)
    vmm(*args)
    raw = Raw(path)
    commands = ['qmp_capabilities'] + ['query-status', 'query-name', 'nope', 'query-uuid'] * 50
    raw.send(b''.join(json.dumps({'execute': c, 'id': i}).encode() for i, c in enumerate(commands)))
    raw.line()
    assert [raw.line()['id'] for _ in commands] == list(range(len(commands)))
    raw.close()


def test_in_band_waits_behind_a_hanging_command_and_oob_does_not(vmm, work):
    vm = vmm(capabilities=['oob'])
    first, path = hang(vm, work)
    second = vm.send('query-status')
    with pytest.raises(ferry.QMPError, match='does not support OOB'):
        vm.cmd('query-status', oob=True)
    sock = release(path)
    vm.reply(first)
    vm.reply(second)
    sock.close()


def test_a_hanging_command_of_one_client_does_not_hold_up_another(vmm, work):
    args, path = server(work)
    vm = vmm(*args)
    sent, hung = hang(vm, work)
    other = ferry.QMPClient.connect(path)
    assert other.cmd('query-status')['status'] == 'prelaunch'
    other.close()
    sock = release(hung)
    vm.reply(sent)
    sock.close()


def test_client_that_leaves_during_a_command_does_not_block_the_next(vmm, work):
    args, path = server(work)
    vm = vmm(*args)
    first = ferry.QMPClient.connect(path)
    _, hung = hang(first, work)
    first.close()
    second = ferry.QMPClient.connect(path)
    assert second.cmd('query-status')['status'] == 'prelaunch'
    sock = release(hung)
    assert second.cmd('query-status')['status'] == 'prelaunch'
    guard = ferry.Guard(60)
    while not any(c['label'] == 'hang' for c in vm.cmd('query-chardev')):
        guard.left()
    second.close()
    sock.close()


def test_more_requests_than_the_queue_holds_are_all_answered(vmm, work):
    vm = vmm(capabilities=['oob'])
    first, path = hang(vm, work)
    sent = [vm.send('query-status') for _ in range(100)]      # what the socket buffers without being read
    sock = release(path)
    vm.reply(first)
    for one in sent:
        vm.reply(one)
    sock.close()


def test_events_reach_every_client_that_negotiated(vmm, work):
    args, path = server(work, 'a')
    more, silent_path = server(work, 'b')
    vm = vmm(*args, *more)
    other = ferry.QMPClient.connect(path)
    silent = Raw(silent_path)
    assert 'QMP' in silent.line()
    vm.cmd('cont')
    for client in (vm, other):
        event = client.wait('RESUME')
        assert set(event['timestamp']) == {'seconds', 'microseconds'}
    silent.send(b'{"execute":"qmp_capabilities"}{"execute":"query-status"}')
    assert silent.line() == {'return': {}}
    assert silent.line()['return']['running'] is True
    silent.close()
    other.close()


def test_events_come_before_the_reply_of_the_command_that_caused_them(work, vmm):
    args, path = server(work)
    vmm(*args)
    raw = Raw(path)
    raw.send(b'{"execute":"qmp_capabilities"}{"execute":"cont"}{"execute":"stop"}')
    got = [raw.line() for _ in range(6)]
    assert [m.get('event', 'reply' if 'return' in m else 'greeting') for m in got] == \
        ['greeting', 'reply', 'RESUME', 'reply', 'STOP', 'reply']
    raw.close()


def test_shutdown_is_announced_with_its_reason(vmm, work):
    args, path = server(work)
    vm = vmm(*args)
    other = ferry.QMPClient.connect(path)
    vm.cmd('quit')
    assert other.wait('SHUTDOWN')['data'] == {'guest': False, 'reason': 'host-qmp-quit'}
    other.wait_closed()
    other.close()
    assert vm.wait_exit() == 0


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_in_order(vm, number):
    vm.process.send_signal(number)
    assert vm.wait('SHUTDOWN')['data'] == {'guest': False, 'reason': 'host-signal'}
    assert vm.wait_exit() == 0
    assert f'terminating on signal {int(number)} from pid {os.getpid()}' in vm.stderr()


def test_pretty_output_is_the_same_json(work, vmm):
    path = str(work / 'p.sock')
    vmm('-qmp-pretty', f'unix:{path},server=on,wait=off')
    raw = Raw(path)
    raw.send(b'{"execute":"qmp_capabilities"}{"execute":"query-version"}{"execute":"quit"}')
    text = raw.file.read().decode()
    assert text.count('\n') > 10
    values, decoder, rest = [], json.JSONDecoder(), text.lstrip()
    while rest:
        value, end = decoder.raw_decode(rest)
        values.append(value)
        rest = rest[end:].lstrip()
    assert 'QMP' in values[0] and values[1] == {'return': {}}
    raw.close()


# Descriptors


def test_getfd_keeps_the_descriptor_that_came_with_it(vm):
    read, write = os.pipe()
    with pytest.raises(ferry.QMPError, match='SCM_RIGHTS'):
        vm.cmd('getfd', fdname='x')
    vm.cmd('getfd', fdname='x', fds=[write])
    os.close(write)
    vm.cmd('closefd', fdname='x')
    assert os.read(read, 1) == b''          # the last writer is gone
    with pytest.raises(ferry.QMPError, match="'x' not found"):
        vm.cmd('closefd', fdname='x')
    os.close(read)


def test_getfd_of_a_bad_name_closes_the_descriptor(vm):
    read, write = os.pipe()
    with pytest.raises(ferry.QMPError, match='digit'):
        vm.cmd('getfd', fdname='1x', fds=[write])
    os.close(write)
    assert os.read(read, 1) == b''
    os.close(read)


def test_a_descriptor_whose_command_failed_does_not_turn_up_in_the_next(vm):
    read, write = os.pipe()
    with pytest.raises(ferry.QMPError):
        vm.cmd('getfd', fds=[write])        # no name
    os.close(write)
    other = os.open('/dev/null', os.O_RDONLY)
    vm.cmd('getfd', fdname='x', fds=[other])
    assert os.read(read, 1) == b''
    vm.cmd('closefd', fdname='x')
    os.close(read)
    os.close(other)


def test_descriptors_of_pipelined_commands_stay_with_them(vm):
    pipes = [os.pipe() for _ in range(4)]
    sent = [vm.send('getfd', fdname=f'n{i}', fds=[w]) for i, (_, w) in enumerate(pipes)]
    for one, (_, write) in zip(sent, pipes):
        vm.reply(one)
        os.close(write)
    for i, (read, _) in enumerate(pipes):
        vm.cmd('closefd', fdname=f'n{i}')
        assert os.read(read, 1) == b''
        os.close(read)


def test_descriptor_ahead_of_its_command(work, vmm):
    args, path = server(work)
    vmm(*args)
    raw = Raw(path)
    raw.line()
    read, write = os.pipe()
    raw.send(b'{"execute":"qmp_capabilities"}')
    raw.line()
    socket.send_fds(raw.sock, [b' '], [write])
    os.close(write)
    raw.send(b'{"execute":"getfd","arguments":{"fdname":"x"}}')
    assert raw.line() == {'return': {}}
    raw.send(b'{"execute":"closefd","arguments":{"fdname":"x"}}')
    assert raw.line() == {'return': {}}
    assert os.read(read, 1) == b''
    os.close(read)
    raw.close()


def test_fd_sets_are_made_listed_and_removed(vm):
    null = os.open('/dev/null', os.O_RDWR)
    first = vm.cmd('add-fd', fds=[null])
    second = vm.cmd('add-fd', fdset_id=first['fdset-id'], opaque='here', fds=[null])
    assert second['fdset-id'] == first['fdset-id']
    sets = vm.cmd('query-fdsets')
    assert len(sets) == 1 and {f.get('opaque') for f in sets[0]['fds']} == {None, 'here'}
    vm.cmd('remove-fd', fdset_id=first['fdset-id'], fd=first['fd'])
    vm.cmd('remove-fd', fdset_id=first['fdset-id'])
    assert vm.cmd('query-fdsets') == []
    with pytest.raises(ferry.QMPError, match='not found'):
        vm.cmd('remove-fd', fdset_id=first['fdset-id'])
    with pytest.raises(ferry.QMPError, match='SCM_RIGHTS'):
        vm.cmd('add-fd')
    os.close(null)


def test_fd_set_opens_as_a_disk(vm, work):
    image = work / 'disk.raw'
    image.write_bytes(b'x' * 4096)
    fd = os.open(image, os.O_RDWR)
    number = vm.cmd('add-fd', fds=[fd])['fdset-id']
    os.close(fd)
    vm.add_file(f'/dev/fdset/{number}', node_name='disk')
    node = next(n for n in vm.cmd('query-named-block-nodes') if n['node-name'] == 'disk')
    assert node['image']['virtual-size'] == 4096
    vm.cmd('remove-fd', fdset_id=number)
    vm.cmd('blockdev-del', node_name='disk')
    assert vm.cmd('query-fdsets') == []


# Objects


def test_objects_come_and_go(vm):
    vm.cmd('object-add', qom_type='iothread', id='t')
    info, = vm.cmd('query-iothreads')
    assert info['id'] == 't' and os.path.exists(f'/proc/{vm.pid}/task/{info["thread-id"]}')
    with pytest.raises(ferry.QMPError, match="'t'"):
        vm.cmd('object-add', qom_type='iothread', id='t')
    with pytest.raises(ferry.QMPError, match='identifier'):
        vm.cmd('object-add', qom_type='iothread', id='1t')
    with pytest.raises(ferry.QMPError, match='bogus'):
        vm.cmd('object-add', qom_type='bogus', id='x')
    vm.cmd('object-del', id='t')
    with pytest.raises(ferry.QMPError, match="object 't' not found"):
        vm.cmd('object-del', id='t')
    assert vm.cmd('query-iothreads') == []
