# SPDX-License-Identifier: GPL-2.0-or-later
"""Character devices: every back end, as monitor and by QMP."""
import json
import os
import select
import socket
import subprocess

import pytest

import ferry

REQUESTS = b'{"execute":"qmp_capabilities"}{"execute":"query-name","id":1}'


def filename(vm, label):
    return next(c['filename'] for c in vm.cmd('query-chardev') if c['label'] == label)


def until(condition):
    """Asks again until it is true."""
    guard = ferry.Guard(60)
    while True:
        value = condition()
        if value:
            return value
        guard.left()


def messages(stream, n):
    return [json.loads(stream.readline()) for _ in range(n)]


def test_kinds_are_listed(vm):
    kinds = {b['name'] for b in vm.cmd('query-chardev-backends')}
    assert kinds == {'file', 'pipe', 'socket', 'pty', 'null', 'mux', 'stdio', 'ringbuf'}


def test_life_of_a_chardev(vm):
    vm.cmd('chardev-add', {'id': 'c', 'backend': {'type': 'null', 'data': {}}})
    assert filename(vm, 'c') == 'null'
    assert [c['frontend-open'] for c in vm.cmd('query-chardev') if c['label'] == 'c'] == [False]
    with pytest.raises(ferry.QMPError, match="'c' already exists"):
        vm.cmd('chardev-add', {'id': 'c', 'backend': {'type': 'null', 'data': {}}})
    vm.cmd('chardev-remove', id='c')
    with pytest.raises(ferry.QMPError, match="'c' not found"):
        vm.cmd('chardev-remove', id='c')
    with pytest.raises(ferry.QMPError, match='busy'):
        vm.cmd('chardev-remove', id='compat_monitor0')


def test_stdio_from_a_pipe_runs_all_commands():
    done = subprocess.run([*ferry.binary(), '-machine', 'none', '-nodefaults', '-display', 'none', '-S', '-qmp', 'stdio'],
                          input=REQUESTS + b'{"execute":"quit"}', capture_output=True, check=True,
                          timeout=60 * ferry.time_scale())
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    assert 'QMP' in lines[0] and lines[1] == {'return': {}} and lines[2] == {'return': {}, 'id': 1}


def test_stdio_from_and_to_files(work):
    (work / 'in').write_bytes(REQUESTS + b'{"execute":"quit"}')
    with open(work / 'in', 'rb') as stdin, open(work / 'out', 'wb') as stdout:
        subprocess.run([*ferry.binary(), '-machine', 'none', '-nodefaults', '-display', 'none', '-S', '-qmp', 'stdio'],
                       stdin=stdin, stdout=stdout, check=True, timeout=60 * ferry.time_scale())
    assert len((work / 'out').read_bytes().splitlines()) >= 4


def test_unix_server_serves_one_after_the_other(vmm, work):
    path = str(work / 's.sock')
    vm = vmm('-chardev', f'socket,id=s,path={path},server=on,wait=off', '-mon', 'chardev=s,mode=control')
    assert filename(vm, 's') == f'disconnected:unix:{path},server=on'
    for _ in range(3):
        client = ferry.QMPClient.connect(path)
        assert filename(vm, 's') == f'unix:{path},server=on'
        client.close()
    until(lambda: filename(vm, 's').startswith('disconnected:'))
    vm.quit()
    assert not os.path.exists(path)


def test_second_client_waits_for_the_first(vmm, work):
    path = str(work / 's.sock')
    vmm('-qmp', f'unix:{path},server=on,wait=off')
    first = ferry.QMPClient.connect(path)
    second = socket.socket(socket.AF_UNIX)
    second.connect(path)
    assert first.cmd('query-name') == {}
    assert not select.select([second], [], [], 0)[0]
    first.close()
    assert b'QMP' in second.makefile('rb').readline()
    second.close()


def test_left_over_socket_file_is_replaced(vmm, work):
    path = str(work / 's.sock')
    old = socket.socket(socket.AF_UNIX)
    old.bind(path)
    old.close()
    vmm('-qmp', f'unix:{path},server=on,wait=off')
    ferry.QMPClient.connect(path).close()


def test_abstract_socket(vmm, work):
    name = f'ferry-test-{os.getpid()}'
    vm = vmm('-chardev', f'socket,id=s,path={name},abstract=on,server=on,wait=off', '-mon', 'chardev=s,mode=control')
    assert filename(vm, 's') == f'disconnected:unix:@{name},abstract=on,tight=on,server=on'
    ferry.QMPClient.connect('\0' + name).close()


@pytest.mark.parametrize('short', ['server=on,wait=off', 'server,nowait'])
def test_tcp_server(vmm, short):
    vm = vmm('-qmp', f'tcp:127.0.0.1:0,{short}')
    name = filename(vm, 'compat_monitor0')
    assert name.startswith('disconnected:tcp:127.0.0.1:') and name.endswith(',server=on')
    port = int(name.split(':')[3].split(',')[0])
    client = ferry.QMPClient.connect(('127.0.0.1', port))
    mine = client.sock.getsockname()[1]
    assert filename(vm, 'compat_monitor0') == f'tcp:127.0.0.1:{port},server=on <-> 127.0.0.1:{mine}'
    client.close()


def test_wait_holds_up_start_until_a_client_connects(work):
    path = str(work / 's.sock')
    process = subprocess.Popen([*ferry.binary(), '-machine', 'none', '-nodefaults', '-display', 'none', '-S', '-qmp',
                                f'unix:{path},server=on', '-pidfile', str(work / 'pid')], stderr=subprocess.PIPE)
    try:
        assert b'waiting for connection on' in process.stderr.readline()
        client = ferry.QMPClient.connect(path)
        client.cmd('quit')
        client.close()
        assert process.wait(60 * ferry.time_scale()) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_signal_while_waiting_for_a_client_ends_and_cleans_up(work):
    path = str(work / 's.sock')
    process = subprocess.Popen([*ferry.binary(), '-machine', 'none', '-nodefaults', '-display', 'none', '-S', '-qmp',
                                f'unix:{path},server=on', '-pidfile', str(work / 'pid')], stderr=subprocess.PIPE)
    try:
        assert b'waiting for connection on' in process.stderr.readline()
        process.terminate()
        assert process.wait(60 * ferry.time_scale()) == 1
        assert not (work / 'pid').exists()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_client_reconnects(vmm, work):
    path = str(work / 's.sock')
    vm = vmm('-chardev', f'socket,id=s,path={path},reconnect-ms=20', '-mon', 'chardev=s,mode=control')
    for _ in range(3):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(60 * ferry.time_scale())
        sock = ferry.accept(listener, vm)
        listener.close()
        os.unlink(path)
        client = ferry.QMPClient(sock)
        assert client.cmd('query-name') == {}
        client.close()
    assert vm.cmd('query-name') == {}


def test_unreachable_server_is_an_error(vm, work):
    backend = {'type': 'socket', 'data': {'addr': {'type': 'unix', 'data': {'path': str(work / 'none')}}, 'server': False}}
    with pytest.raises(ferry.QMPError, match='No such file'):
        vm.cmd('chardev-add', {'id': 's', 'backend': backend})
    assert len(vm.cmd('query-chardev')) == 1


def test_passed_descriptor_as_chardev(vm):
    ours, theirs = socket.socketpair()
    vm.cmd('getfd', fdname='conn', fds=[theirs.fileno()])
    theirs.close()
    backend = {'type': 'socket', 'data': {'addr': {'type': 'fd', 'data': {'str': 'conn'}}, 'server': False}}
    vm.cmd('chardev-add', {'id': 's', 'backend': backend})
    vm.cmd('chardev-remove', id='s')
    assert ours.recv(1) == b''
    ours.close()


def test_pty(vm):
    path = vm.cmd('chardev-add', {'id': 'p', 'backend': {'type': 'pty', 'data': {}}})['pty']
    assert filename(vm, 'p') == f'pty:{path}'
    assert os.path.exists(path)
    vm.cmd('chardev-remove', id='p')


def test_monitor_on_a_pty(vmm):
    vm = vmm('-qmp', 'pty')
    path = filename(vm, 'compat_monitor0').removeprefix('pty:')
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    with os.fdopen(fd, 'r+b', buffering=0) as tty:
        os.write(fd, REQUESTS)
        got = messages(tty, 3)
    assert 'QMP' in got[0] and got[2] == {'return': {}, 'id': 1}


def test_pipe_pair(vmm, work):
    base = work / 'pipe'
    for end in ('.in', '.out'):
        os.mkfifo(str(base) + end)
    vmm('-qmp', f'pipe:{base}')
    with open(str(base) + '.in', 'wb', buffering=0) as to, open(str(base) + '.out', 'rb') as back:
        to.write(REQUESTS)
        assert messages(back, 3)[2] == {'return': {}, 'id': 1}


def test_file_gets_output_and_log_gets_a_copy(vmm, work):
    out, log = work / 'out', work / 'log'
    log.write_text('old')
    vm = vmm('-chardev', f'file,id=f,path={out},logfile={log},logappend=on', '-mon', 'chardev=f,mode=control')
    until(lambda: out.read_bytes().endswith(b'\n'))
    assert b'QMP' in out.read_bytes()
    assert log.read_bytes() == b'old' + out.read_bytes()
    assert vm.cmd('query-name') == {}


def test_session_from_a_file_to_a_file(vmm, work):
    out = work / 'out'
    (work / 'in').write_bytes(REQUESTS)
    vmm('-chardev', f'file,id=f,path={out},input-path={work / "in"}', '-mon', 'chardev=f,mode=control')
    until(lambda: out.exists() and len(out.read_bytes().splitlines()) >= 3)
    lines = [json.loads(text) for text in out.read_bytes().splitlines()]
    assert 'QMP' in lines[0] and lines[1] == {'return': {}} and lines[2] == {'return': {}, 'id': 1}


def test_ring_buffer_needs_a_power_of_two(vm):
    vm.cmd('chardev-add', {'id': 'r', 'backend': {'type': 'ringbuf', 'data': {'size': 4096}}})
    for size in (0, -1, 3000, 1 << 40):
        with pytest.raises(ferry.QMPError, match='power of two'):
            vm.cmd('chardev-add', {'id': 'x', 'backend': {'type': 'ringbuf', 'data': {'size': size}}})


@pytest.mark.parametrize('data, words', [
    ({'server': True, 'reconnect-ms': 5}, 'reconnect'),
    ({'server': False, 'wait': True}, 'wait'),
    ({'server': False, 'reconnect-ms': -1}, 'reconnect'),
])
def test_contradicting_socket_options(vm, work, data, words):
    addr = {'type': 'unix', 'data': {'path': str(work / 'x')}}
    with pytest.raises(ferry.QMPError, match=words):
        vm.cmd('chardev-add', {'id': 's', 'backend': {'type': 'socket', 'data': {'addr': addr, **data}}})
    assert not os.path.exists(work / 'x')


def test_ringbuf_keeps_the_last_bytes_and_gives_each_once(vmm):
    vm = vmm('-chardev', 'ringbuf,id=rb,size=8', '-chardev', 'null,id=nul')
    vm.cmd('ringbuf-write', device='rb', data='0123456789')
    assert vm.cmd('ringbuf-read', device='rb', size=3) == '234'
    vm.cmd('ringbuf-write', device='rb', data='AAH/', format='base64')
    assert vm.cmd('ringbuf-read', device='rb', size=100, format='base64') == 'NTY3ODkAAf8='
    assert vm.cmd('ringbuf-read', device='rb', size=100) == ''
    for command, arguments, message in [
            ('ringbuf-read', {'device': 'rb', 'size': 0}, 'size must be greater than zero'),
            ('ringbuf-read', {'device': 'nul', 'size': 1}, 'nul is not a ringbuf device'),
            ('ringbuf-read', {'device': 'none', 'size': 1}, "Device 'none' not found"),
            ('ringbuf-write', {'device': 'nul', 'data': 'x'}, 'nul is not a ringbuf device'),
            ('ringbuf-write', {'device': 'rb', 'data': '?', 'format': 'base64'}, 'Base64 data contains'),
            ('ringbuf-write', {'device': 'rb', 'data': 'AA', 'format': 'base64'}, 'Base64 data contains'),
            ('ringbuf-write', {'device': 'rb', 'data': 'A===', 'format': 'base64'}, 'Base64 data contains')]:
        with pytest.raises(ferry.QMPError, match=message):
            vm.cmd(command, arguments)


def test_idle_chardev_becomes_another(vmm, work):
    vm = vmm('-chardev', f'socket,id=c0,path={work}/c0,server=on,wait=off')
    again = {'type': 'socket', 'data': {'addr': {'type': 'unix', 'data': {'path': f'{work}/c0'}}}}
    vm.cmd('chardev-change', id='c0', backend=again)        # the same address: the old one has let go of it
    vm.cmd('chardev-change', id='c0', backend={'type': 'ringbuf', 'data': {}})
    assert {'label': 'c0', 'filename': 'ringbuf', 'frontend-open': False} in vm.cmd('query-chardev')
    vm.cmd('ringbuf-write', device='c0', data='x')
    assert vm.cmd('chardev-change', id='c0', backend={'type': 'pty', 'data': {}})['pty'].startswith('/dev/pts/')


def test_chardev_in_use_stays_what_it_is(vm):
    with pytest.raises(ferry.QMPError, match='does not support chardev hotswap'):
        vm.cmd('chardev-change', id='compat_monitor0', backend={'type': 'null', 'data': {}})
    with pytest.raises(ferry.QMPError, match="Chardev 'nope' does not exist"):
        vm.cmd('chardev-change', id='nope', backend={'type': 'null', 'data': {}})
    assert vm.cmd('query-status')


@pytest.mark.parametrize('option, word', [
    ('socket,id=c,path=/nonexistent/x,tn3270=on', "'tn3270' is not supported"),
    ('null,id=c,mux=maybe', "Parameter 'mux' expects"),
])
def test_absent_options_are_refused_and_not_ignored(vmm, option, word):
    with pytest.raises(RuntimeError, match=word):
        vmm('-chardev', option)


def test_absent_options_may_be_off(vmm, work):
    vm = vmm('-chardev', f'socket,id=c,path={work}/c,server=on,wait=off,telnet=off,websocket=off,tn3270=off,mux=off')
    assert 'c' in [c['label'] for c in vm.cmd('query-chardev')]


def test_reconnect_may_be_in_seconds_as_older_programs_send_it(vm, work):
    socket_ = {'addr': {'type': 'unix', 'data': {'path': f'{work}/nobody'}}, 'server': False}
    vm.cmd('chardev-add', id='c', backend={'type': 'socket', 'data': {**socket_, 'reconnect': 3600}})
    with pytest.raises(ferry.QMPError):     # without it the peer has to be there
        vm.cmd('chardev-add', id='d', backend={'type': 'socket', 'data': socket_})
