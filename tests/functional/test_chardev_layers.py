# SPDX-License-Identifier: GPL-2.0-or-later
"""Socket chardevs that speak TLS, WebSocket or telnet: clients reach monitors through them, unless they fail to prove
their identity."""
import asyncio
import json
import os
import socket
import ssl
import threading

import pytest

import ferry
from ferry import tls

IAC, WILL, WONT, DO, DONT = 255, 251, 252, 253, 254
QMP = b'{"execute":"qmp_capabilities"}{"execute":"query-name","id":1}'
KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
UPGRADE = ('GET / HTTP/1.1\r\nHost: ferry\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
           f'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n')


def filename(vm, label):
    return next(c['filename'] for c in vm.cmd('query-chardev') if c['label'] == label)


def port_of(vm, label):
    return int(filename(vm, label).removeprefix('disconnected:').split(':')[2].split(',')[0])


def connect(port):
    sock = socket.create_connection(('127.0.0.1', port), timeout=60 * ferry.time_scale())
    sock.settimeout(60 * ferry.time_scale())
    return sock


def until(condition):
    guard = ferry.Guard(60)
    while not condition():
        guard.left()


def qmp_server(vmm, options, *more):
    return vmm(*more, '-chardev', f'socket,id=c,host=127.0.0.1,port=0,server=on,wait=off,{options}', '-mon',
               'chardev=c,mode=control')


# TLS

@pytest.fixture
def pki(work, need):
    need.tool('certtool')
    authority = tls.Authority(work / 'ca')
    authority.server()
    authority.client()
    return authority


def creds(folder, endpoint, **more):
    extra = ''.join(f',{k}={v}' for k, v in more.items())
    return ['-object', f'tls-creds-x509,id=tls0,dir={folder},endpoint={endpoint}{extra}']


def client_context(pki, cert='client'):
    context = ssl.create_default_context(cafile=pki.folder / 'ca.pem')
    if cert:
        context.load_cert_chain(pki.folder / f'{cert}.pem', pki.folder / f'{cert}.key')
    return context


def tls_client(pki, port, cert='client'):
    return client_context(pki, cert).wrap_socket(connect(port), server_hostname='localhost')


def turned_away(sock):
    """With TLS 1.3 the client learns of it when it reads."""
    try:
        return sock.recv(1) == b''
    except (ssl.SSLError, ConnectionResetError):
        return True


def test_monitor_over_tls(vmm, pki):
    vm = qmp_server(vmm, 'tls-creds=tls0', *creds(pki.creds(server='server'), 'server'))
    for _ in range(2):
        client = ferry.QMPClient(tls_client(pki, port_of(vm, 'c')))
        assert client.cmd('query-name') == {}
        big = client.cmd('query-qmp-schema')
        assert big == vm.cmd('query-qmp-schema')
        client.close()


def test_client_without_certificate_is_not_served_and_others_are(vmm, pki, work):
    vm = qmp_server(vmm, 'tls-creds=tls0', *creds(pki.creds(server='server'), 'server'))
    stranger = tls.Authority(work / 'other', name='Another authority')
    stranger.client('mallory')
    context = client_context(pki, None)
    context.load_cert_chain(stranger.folder / 'mallory.pem', stranger.folder / 'mallory.key')
    for attempt in (client_context(pki, None), context):
        try:
            with attempt.wrap_socket(connect(port_of(vm, 'c')), server_hostname='localhost') as sock:
                assert turned_away(sock)
        except ssl.SSLError:
            pass
    with connect(port_of(vm, 'c')) as sock:     # no TLS at all
        sock.sendall(QMP)
        assert b'QMP' not in sock.recv(4096)
    client = ferry.QMPClient(tls_client(pki, port_of(vm, 'c')))
    assert client.cmd('query-name') == {}
    client.close()


def test_authorization_decides_which_client_may_talk(vmm, pki):
    pki.client('bob', cn='bob')
    vm = qmp_server(vmm, 'tls-creds=tls0,tls-authz=auth0', *creds(pki.creds(server='server'), 'server'), '-object',
                    'authz-list,id=auth0,policy=deny,rules.0.match=*CN=alice*,rules.0.format=glob,rules.0.policy=allow')
    with tls_client(pki, port_of(vm, 'c'), 'bob') as sock:
        assert turned_away(sock)
    client = ferry.QMPClient(tls_client(pki, port_of(vm, 'c')))
    assert client.cmd('query-name') == {}
    client.close()


def test_silent_client_holds_up_only_the_next_client(vmm, pki):
    vm = qmp_server(vmm, 'tls-creds=tls0', *creds(pki.creds(server='server'), 'server'))
    silent = connect(port_of(vm, 'c'))
    until(lambda: '<->' not in filename(vm, 'c') and vm.cmd('query-name') == {})
    silent.close()
    client = ferry.QMPClient(tls_client(pki, port_of(vm, 'c')))
    assert client.cmd('query-name') == {}
    client.close()


def test_chardev_is_removed_while_a_handshake_is_under_way(vmm, pki):
    vm = vmm(*creds(pki.creds(server='server'), 'server'))
    address = {'type': 'inet', 'data': {'host': '127.0.0.1', 'port': '0'}}
    for _ in range(3):
        vm.cmd('chardev-add', id='c', backend={'type': 'socket', 'data': {'addr': address, 'tls-creds': 'tls0'}})
        with connect(port_of(vm, 'c')) as sock:
            sock.sendall(b'\x16\x03\x01')
            vm.cmd('query-name')
            with pytest.raises(ferry.QMPError, match='in use'):
                vm.cmd('object-del', id='tls0')
            vm.cmd('chardev-remove', id='c')
            assert turned_away(sock)
    vm.cmd('object-del', id='tls0')


class TLSServer:
    """A TLS server that wants a client's certificate and hands out what connects."""

    def __init__(self, pki, cert='server'):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.folder / f'{cert}.pem', pki.folder / f'{cert}.key')
        context.load_verify_locations(pki.folder / 'ca.pem')
        context.verify_mode = ssl.CERT_REQUIRED
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.listener.settimeout(60 * ferry.time_scale())
        self.port = self.listener.getsockname()[1]
        self.context = context

    def accept(self):
        sock, _ = self.listener.accept()
        return self.context.wrap_socket(sock, server_side=True)


def client_backend(port, **more):
    return {'type': 'socket', 'data': {'addr': {'type': 'inet', 'data': {'host': '127.0.0.1', 'port': str(port), 'ipv4': True}},
                                       'server': False, **more}}


def test_client_over_tls(vmm, pki):
    server = TLSServer(pki)
    vm = vmm(*creds(pki.creds(client='client'), 'client'))
    got = []
    thread = threading.Thread(target=lambda: got.append(server.accept()))
    thread.start()
    vm.cmd('chardev-add', id='c', backend=client_backend(server.port, **{'tls-creds': 'tls0'}))
    thread.join()
    vm.cmd('chardev-remove', id='c')
    assert got[0].recv(1) == b''        # with a good-bye: else this is an error
    got[0].close()


def test_client_finds_that_the_server_is_another_one(vmm, pki, work):
    pki.server('elsewhere', cn='elsewhere', template=('dns_name = "elsewhere"', 'tls_www_server', 'signing_key'))
    server = TLSServer(pki, 'elsewhere')
    vm = vmm(*creds(pki.creds(client='client'), 'client'))
    thread = threading.Thread(target=lambda: pytest.raises((ssl.SSLError, OSError), server.accept))
    thread.start()
    with pytest.raises(ferry.QMPError, match='127.0.0.1'):
        vm.cmd('chardev-add', id='c', backend=client_backend(server.port, **{'tls-creds': 'tls0'}))
    thread.join()
    assert len(vm.cmd('query-chardev')) == 1


def test_client_that_reconnects_says_once_why_it_cannot(vmm, pki):
    vm = vmm(*creds(pki.creds(client='client'), 'client'))
    listener = socket.create_server(('127.0.0.1', 0))
    backend = client_backend(listener.getsockname()[1], **{'tls-creds': 'tls0', 'reconnect-ms': 5})
    vm.cmd('chardev-add', id='c', backend=backend)
    for _ in range(3):
        sock = ferry.accept(listener, vm)
        sock.sendall(b'this is no TLS\r\n' * 10)
        sock.close()
    vm.cmd('chardev-remove', id='c')
    listener.close()
    vm.quit()
    assert vm.stderr_path.read_text().count("chardev 'c': ") == 1


@pytest.mark.parametrize('options, message', [
    ('host=127.0.0.1,port=0,server=on,wait=off,tls-creds=nope', "No TLS credentials with id 'nope'"),
    ('path=x,server=on,wait=off,tls-creds=tls0', "'tls_creds' option is incompatible with 'unix' address type"),
    ('host=127.0.0.1,port=0,server=on,wait=off,tls-authz=a', "'tls_authz' option requires 'tls_creds' option"),
    ('host=127.0.0.1,port=1,tls-creds=tls1,tls-authz=a', "'tls_authz' option is incompatible"),
    ('host=127.0.0.1,port=1,tls-creds=tls0', 'Expected TLS credentials for a client endpoint'),
    ('host=127.0.0.1,port=1,websocket=on', 'Websocket client is not implemented'),
    ('host=127.0.0.1,port=0,server=on,wait=off,tn3270=on', "'tn3270' is not supported"),
])
def test_contradictions_are_refused(vmm, options, message):
    with pytest.raises(RuntimeError, match=message):
        vmm('-object', 'tls-creds-anon,id=tls0,endpoint=server', '-object', 'tls-creds-anon,id=tls1,endpoint=client',
            '-chardev', f'socket,id=c,{options}')


# WebSocket

def websockets_module():
    return pytest.importorskip('websockets', reason='python3-websockets is not installed')


async def converse(url, **options):
    """A QMP session over a WebSocket, in frames and messages of every shape."""
    websockets = websockets_module()
    async with websockets.connect(url, subprotocols=['binary'], **options) as ws:
        assert ws.subprotocol == 'binary'
        received = b''

        async def line():
            nonlocal received
            while b'\n' not in received:
                received += await asyncio.wait_for(ws.recv(), 60 * ferry.time_scale())
            text, received = received.split(b'\n', 1)
            return json.loads(text)

        assert 'QMP' in await line()
        await ws.send(b'{"execute":')
        await ws.send([b'"qmp_cap', b'', b'abilities', b'"}'])
        assert await line() == {'return': {}}
        await (await ws.ping(b'are you there'))
        padding = ' ' * 200000
        await ws.send(f'{{"execute":"query-name",{padding}"id":7}}'.encode())
        assert await line() == {'return': {}, 'id': 7}
        await ws.send(b'{"execute":"query-qmp-schema","id":8}')
        schema = await line()
        assert len(schema['return']) > 100
    assert ws.close_code == 1000


def test_monitor_over_websocket(vmm):
    websockets_module()
    vm = vmm('-qmp', 'websocket:127.0.0.1:0,server=on,wait=off')
    assert filename(vm, 'compat_monitor0').startswith('disconnected:websocket:127.0.0.1:')
    for _ in range(2):
        asyncio.run(converse(f'ws://127.0.0.1:{port_of(vm, "compat_monitor0")}/'))


def test_monitor_over_websocket_over_tls(vmm, pki):
    websockets_module()
    vm = qmp_server(vmm, 'tls-creds=tls0,websocket=on', *creds(pki.creds(server='server'), 'server'))
    asyncio.run(converse(f'wss://127.0.0.1:{port_of(vm, "c")}/', ssl=client_context(pki)))


def test_monitor_over_websocket_on_a_unix_socket(vmm, work):
    vm = vmm('-chardev', f'socket,id=c,path={work}/c,server=on,wait=off,websocket=on', '-mon', 'chardev=c,mode=control')
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(work / 'c'))
        sock.sendall((UPGRADE + '\r\n').encode())
        stream = sock.makefile('rb')
        assert stream.readline() == b'HTTP/1.1 101 Switching Protocols\r\n'
        while stream.readline() != b'\r\n':
            pass
        assert stream.read(2)[0] == 0x82
        stream.close()
    assert filename(vm, 'c').endswith(f'unix:{work}/c,server=on')


def test_what_is_no_websocket_is_refused_and_others_are_served(vmm):
    websockets_module()
    vm = vmm('-qmp', 'websocket:127.0.0.1:0,server=on,wait=off')
    port = port_of(vm, 'compat_monitor0')
    for request, status in [('GET / HTTP/1.1\r\nHost: x\r\n\r\n', b'400'), ('hello\r\n\r\n', b'400'),
                            (UPGRADE.replace(': 13', ': 12') + '\r\n', b'426'),
                            (UPGRADE + 'Sec-WebSocket-Protocol: chat\r\n\r\n', b'400')]:
        with connect(port) as sock:
            sock.sendall(request.encode())
            assert sock.makefile('rb').readline().split()[1] == status
    asyncio.run(converse(f'ws://127.0.0.1:{port}/'))


# Telnet

def test_monitor_over_telnet(vmm):
    vm = vmm('-qmp', 'telnet:127.0.0.1:0,server=on,wait=off')
    assert filename(vm, 'compat_monitor0').startswith('disconnected:telnet:127.0.0.1:')
    with connect(port_of(vm, 'compat_monitor0')) as sock:
        stream = sock.makefile('rb')
        assert stream.read(12) == bytes([IAC, WILL, 1, IAC, WILL, 3, IAC, WILL, 0, IAC, DO, 0])
        assert b'QMP' in stream.readline()
        # agreement, a command and a subnegotiation in the middle of a word; a terminal type that was not asked for
        sock.sendall(b'{"execute":"qmp_' + bytes([IAC, DO, 1, IAC, DO, 3, IAC, 241, IAC, WILL, 24]) +
                     bytes([IAC, 250, 24, 0, IAC, IAC, 65, IAC, 240]) + b'capabilities"}\r\n')
        assert stream.read(3) == bytes([IAC, DONT, 24])
        assert json.loads(stream.readline()) == {'return': {}}
        stream.close()


def test_human_monitor_over_telnet_takes_a_line_of_a_telnet_program(vmm):
    vm = vmm('-monitor', 'telnet:127.0.0.1:0,server=on,wait=off')
    with connect(port_of(vm, 'compat_monitor0')) as sock:
        sock.sendall(b'info name\r\0' + b'info version\r\n')
        heard = b''
        while not heard.count(b'\r\n(qemu) ') >= 3:
            data = sock.recv(4096)
            assert data
            heard += data
        assert b'unknown command' not in heard


def test_telnet_client_does_not_speak_first(vmm, work):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(work / 's'))
        listener.listen(1)
        vm = vmm('-chardev', f'socket,id=c,path={work}/s,telnet=on', '-mon', 'chardev=c,mode=control')
        sock = ferry.accept(listener, vm)
        assert b'{"QMP"' == sock.recv(6)
        sock.close()
    os.unlink(work / 's')
