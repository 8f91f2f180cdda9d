# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP against clients that send nonsense, too much, too slowly, or do not read."""
import json
import random
import socket

import pytest

import ferry

READY = b'{"execute":"qmp_capabilities"}'
STATUS = b'{"execute":"query-status"}'


@pytest.fixture
def raw(vmm, work):
    """A connected client without negotiation, as (socket, readline)."""
    path = str(work / 'raw.sock')
    vmm('-qmp', f'unix:{path},server=on,wait=off')
    clients = []

    def connect():
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.settimeout(60 * ferry.time_scale())
        stream = sock.makefile('rb')
        clients.append((sock, stream))

        def line():
            text = stream.readline()
            return json.loads(text) if text else None
        return sock, line
    yield connect
    for sock, stream in clients:
        stream.close()
        sock.close()


def negotiated(connect):
    sock, line = connect()
    sock.sendall(READY)
    assert 'QMP' in line()
    assert line() == {'return': {}}
    return sock, line


def until_status(line):
    """Reads answers until the one of query-status; returns those before it."""
    errors = []
    while True:
        message = line()
        assert message is not None, 'the connection ended'
        if 'return' in message:
            assert message['return']['status'] == 'prelaunch'
            return errors
        assert message['error']['class'] in ('GenericError', 'CommandNotFound')
        errors.append(message['error']['desc'])


@pytest.mark.parametrize('garbage', [
    b'}\n', b']\n', b'{"execute":"a" "b"}\n', b'{"a":nope}\n', b'[}\n', b'{]\n', b'\xff', b'\xff\xff\xff', b'{"execute":"\xff',
    b'"unfinished\n', b'{"a":"\x01"}\n', b'{"a":\n\xff', b'\xc3\x28\n', b'{"execute":"\xed\xa0\x80"}\n', b'{"a":1e999999}\n',
    b'{"a":99999999999999999999999}\n', b'{"a":"\\ud800"}\n', b'{"a":"\\x"}\n', b'{"a":01}\n', b'\x00\x00\x00\n', b'{,}\n',
])
def test_garbage_is_answered_and_survived(raw, garbage):
    sock, line = negotiated(raw)
    sock.sendall(garbage + STATUS)
    assert until_status(line)


def test_deep_nesting_is_refused_once(raw):
    sock, line = negotiated(raw)
    sock.sendall(b'[' * 100000 + b']' * 100000 + b'\n' + STATUS)
    assert len(until_status(line)) == 1


def test_deep_nesting_without_end_is_bounded(raw):
    sock, line = negotiated(raw)
    sock.sendall(b'{"a":' * 200000 + b'\xff' + STATUS)
    assert until_status(line)


@pytest.mark.limit(600)
def test_command_beyond_the_limit_is_refused_and_memory_given_back(vmm, work):
    vm = vmm()
    before = vm.memory_kib()
    piece = b'x' * (1 << 20)
    vm.qmp.send_raw(b'{"execute":"')
    for _ in range(80):
        vm.qmp.send_raw(piece)
    vm.qmp.send_raw(b'"}\n')
    assert 'error' in vm.qmp.stray()
    assert vm.cmd('query-status')['status'] == 'prelaunch'
    assert vm.memory_kib('VmHWM') - before < 400 * 1024
    if not vm.sanitized():
        assert vm.memory_kib() - before < 100 * 1024


def test_large_command_within_the_limit_is_understood(vm):
    name = 'x' * (4 << 20)
    with pytest.raises(ferry.QMPError) as error:
        vm.cmd('blockdev-del', node_name=name)
    assert error.value.cls == 'GenericError'


def test_bytes_one_by_one(raw):
    sock, line = raw()
    text = '{"execute":"qmp_capabilities"}{"execute":"blockdev-del","arguments":{"node-name":"\u00e4\u20ac\U0001f600"}}'
    for byte in text.encode():
        sock.sendall(bytes([byte]))
    assert 'QMP' in line()
    assert line() == {'return': {}}
    assert '\u00e4\u20ac\U0001f600' in line()['error']['desc']


def test_command_before_the_greeting_is_read(raw):
    sock, line = raw()
    sock.sendall(READY + STATUS)
    assert 'QMP' in line()
    assert line() == {'return': {}}
    assert line()['return']['status'] == 'prelaunch'


def test_half_close_still_gets_all_answers(raw):
    sock, line = raw()
    sock.sendall(READY + STATUS * 30)
    sock.shutdown(socket.SHUT_WR)
    assert 'QMP' in line()
    assert line() == {'return': {}}
    for _ in range(30):
        assert line()['return']['status'] == 'prelaunch'
    assert line() is None
    negotiated(raw)


def test_half_close_inside_a_command(raw):
    sock, line = raw()
    sock.sendall(READY + b'{"execute":"query-st')
    sock.shutdown(socket.SHUT_WR)
    assert 'QMP' in line()
    assert line() == {'return': {}}
    assert 'error' in line()
    assert line() is None


def test_disconnect_inside_a_command_is_forgotten(raw):
    for _ in range(20):
        sock, _ = raw()
        sock.sendall(READY + b'{"execute":"query-st')
        sock.shutdown(socket.SHUT_RDWR)
    negotiated(raw)


def test_client_that_does_not_read_holds_up_no_other(vmm, work):
    path = str(work / 'deaf.sock')
    vm = vmm('-qmp', f'unix:{path},server=on,wait=off')
    deaf = socket.socket(socket.AF_UNIX)
    deaf.connect(path)
    deaf.setblocking(False)
    deaf.send(READY)
    sent = 0
    schema = b'{"execute":"query-qmp-schema"}' * 100
    try:
        while sent < 50 * len(schema):
            sent += deaf.send(schema)
    except BlockingIOError:
        pass                                # it no longer reads our commands: what is unsent is bounded
    for _ in range(100):
        vm.cmd('cont')
        vm.cmd('stop')
    assert vm.memory_kib() < 200 * 1024
    deaf.close()
    other = ferry.QMPClient.connect(path)
    assert other.cmd('query-status')['running'] is False
    other.close()


def test_random_bytes_never_end_the_process(raw):
    seed = 20240
    print(f'seed {seed}')
    rng = random.Random(seed)
    alphabet = [b'{', b'}', b'[', b']', b'"', b"'", b':', b',', b'\\', b'\n', b'execute', b'"execute"', b'"id"', b'1', b'-', b'e',
                b'true', b'null', b'\xff', b'\xc3', b'\x00', b' ', b'"query-status"', b'u0000', b'%']
    sock, line = negotiated(raw)
    for _ in range(200):
        sock.sendall(b''.join(rng.choice(alphabet) for _ in range(rng.randrange(1, 200))))
        sock.sendall(b'\xff\n' + STATUS)
        while True:
            message = line()
            assert message is not None
            if 'return' in message and isinstance(message['return'], dict) and 'status' in message['return']:
                break


@pytest.mark.parametrize('request_, word', [
    (b'{"execute":"query-status\\u0000x"}', 'query-status'),
    (b'{"execute":"query-status\\u0000"}', 'query-status'),
    (b'{"execute\\u0000":"query-status"}', 'execute'),
    (b'{"execute":"query-block","arguments":{"flat\\u0000x":true}}', 'flat'),
    (b'{"execute":"block-job-pause","arguments":{"device":"a\\u0000b"}}', 'device'),
])
def test_nul_does_not_cut_a_string_short(raw, request_, word):
    sock, line = negotiated(raw)
    sock.sendall(request_)
    reply = line()
    assert 'error' in reply, f'{word} was taken for another name'
    sock.sendall(STATUS)
    assert 'return' in line()


def test_nul_in_an_id_comes_back(raw):
    sock, line = negotiated(raw)
    sock.sendall(b'{"execute":"query-status","id":"a\\u0000b"}')
    assert line()['id'] == 'a\0b'


@pytest.mark.parametrize('line, word', [
    (b'5.', 'digit'), (b'-.5', 'digit'), (b'00', 'zero'), (b'-01', 'zero'),
    (b'{"execute":"quit","execute":"query-name"}', 'duplicate key'),
    (b'{"execute":"query-name","arguments":{},"\\u0061rguments":{}}', 'duplicate key'),
    (b'{"execute":"query-name","id":5.}', 'digit'),
    (b'{"execute":"query-name","id":[00]}', 'zero'),
    (b'{"execute":"query-name","id":"\\ud800"}', 'surrogate'),
    (b'{"execute":"query-name","id":"\xc3\x28"}', 'UTF-8'),
    (b'{"execute":"query-name","\xc3\x28":1}', 'UTF-8'),
])
def test_text_that_is_no_json_is_refused_whole(raw, line, word):
    sock, read = negotiated(raw)
    sock.sendall(line + b'\n' + STATUS)
    said = until_status(read)
    assert len(said) == 1 and said[0].startswith('JSON parse error') and word in said[0]


@pytest.mark.parametrize('text, same', [
    (b"'it\\'s'", "it's"), (b"'say \"x\"'", 'say "x"'), (b'"it\\\'s"', "it's"), (b'"it\'s"', "it's"),
    (b'"\\ud83d\\ude00"', '\U0001f600'), (b'"\\/"', '/'),
])
def test_strings_are_read_as_stock_reads_them(raw, text, same):
    sock, read = negotiated(raw)
    sock.sendall(b"{'execute':\"query-name\",'id':" + text + b'}')
    assert read() == {'return': {}, 'id': same}
