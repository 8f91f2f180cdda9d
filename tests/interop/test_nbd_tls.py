# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD over TLS: which clients are let in, what each side must prove, and that nothing said in the clear counts."""
import base64
import os
import socket
import ssl
import struct
import subprocess
from pathlib import Path

import nbd
import pytest

import ferry
from ferry.tls import Authority, psk_creds

SIZE = 4 * ferry.MIB
KEY = '0123456789abcdef' * 4
OTHER_KEY = 'fedcba9876543210' * 4

OPTS_MAGIC = 0x49484156454F5054
REPLY_MAGIC = 0x3E889045565A9
OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO, OPT_STRUCTURED = 1, 2, 3, 5, 6, 7, 8
OPT_LIST_META, OPT_SET_META = 9, 10
REP_SERVER, REP_META = 2, 4
REP_ACK, REP_ERR_POLICY, REP_ERR_INVALID, REP_ERR_TLS_REQD = 1, 0x80000002, 0x80000003, 0x80000005


@pytest.fixture
def pki(work, need):
    need.tool('certtool')
    authority = Authority(work / 'ca')
    authority.server()
    authority.client()
    return authority


@pytest.fixture
def disk(work):
    return ferry.fill(work / 'disk.raw', SIZE, seed=11)


def add_creds(vm, kind, creds_id, folder, endpoint, **more):
    vm.cmd('object-add', {'qom-type': f'tls-creds-{kind}', 'id': creds_id, 'dir': str(folder), 'endpoint': endpoint,
                          **{k.replace('_', '-'): v for k, v in more.items()}})


class TlsServer:
    """A binary that serves `disk` over TLS on a TCP port."""

    def __init__(self, vm, disk, creds='tls0', **options):
        self.vm = vm
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self.port = probe.getsockname()[1]
        vm.add_file(disk, node_name='disk')
        vm.cmd('nbd-server-start', addr={'type': 'inet', 'data': {'host': '127.0.0.1', 'port': str(self.port)}},
               tls_creds=creds, **options)
        vm.cmd('nbd-server-add', device='disk', writable=True)

    def uri(self, folder=None, host='127.0.0.1', scheme='nbds'):
        query = f'?tls-certificates={folder}' if folder else ''
        return f'{scheme}://{host}:{self.port}/disk{query}'

    def psk_uri(self, folder, user):
        return f'nbds://{user}@127.0.0.1:{self.port}/disk?tls-psk-file={folder}/keys.psk'

    def connect(self):
        return socket.create_connection(('127.0.0.1', self.port), timeout=60)


@pytest.fixture
def tls_server(vm, pki, disk):
    """x509 with clients verified."""
    add_creds(vm, 'x509', 'tls0', pki.creds(server='server'), 'server')
    return TlsServer(vm, disk)


def connect(uri):
    handle = nbd.NBD()
    handle.set_uri_allow_local_file(True)
    handle.connect_uri(uri)
    return handle


def read_back(uri, path):
    """The first MiB as a client sees it is what the disk holds."""
    handle = connect(uri)
    assert handle.get_tls_negotiated() == uri.startswith('nbds')
    assert handle.pread(ferry.MIB, 0) == Path(path).read_bytes()[:ferry.MIB]
    handle.shutdown()


def refused(uri):
    with pytest.raises(nbd.Error):
        handle = connect(uri)
        handle.pread(512, 0)    # with TLS 1.3 the client learns after its own end of the handshake


# --- our server, others' clients ---

def test_client_with_certificate_is_served(tls_server, pki, disk):
    creds = pki.creds(client='client')
    read_back(tls_server.uri(creds), disk)
    info = subprocess.run(['nbdinfo', tls_server.uri(creds)], capture_output=True, text=True, check=True).stdout
    assert 'with TLS' in info


def test_nbdcopy_writes_and_reads_the_same(tls_server, pki, disk, work):
    new = ferry.fill(work / 'new.raw', SIZE, seed=12)
    creds = pki.creds(client='client')
    subprocess.run(['nbdcopy', new, tls_server.uri(creds)], check=True)
    subprocess.run(['nbdcopy', tls_server.uri(creds), work / 'back.raw'], check=True)
    ferry.compare(new, work / 'back.raw')
    ferry.compare(new, disk)


def test_stock_qemu_img_reads_everything(tls_server, pki, disk, work):
    ferry.qemu_img('convert', '-O', 'raw', '--object',
                   f'tls-creds-x509,id=t,endpoint=client,dir={pki.creds(client="client")}', '--image-opts',
                   f'driver=nbd,host=127.0.0.1,port={tls_server.port},export=disk,tls-creds=t', work / 'out.raw')
    ferry.compare(disk, work / 'out.raw')


def test_psk_client_is_served_and_a_wrong_key_is_not(vm, work, disk):
    keys = psk_creds(work / 'keys', alice=KEY, bob=OTHER_KEY)
    add_creds(vm, 'psk', 'tls0', keys, 'server')
    server = TlsServer(vm, disk)
    read_back(server.psk_uri(keys, 'alice'), disk)
    refused(server.psk_uri(psk_creds(work / 'wrong', alice=OTHER_KEY), 'alice'))
    refused(server.psk_uri(psk_creds(work / 'unknown', eve=KEY), 'eve'))
    ferry.qemu_img('info', '--object', f'tls-creds-psk,id=t,endpoint=client,dir={keys},username=bob', '--image-opts',
                   f'driver=nbd,host=127.0.0.1,port={server.port},export=disk,tls-creds=t')


def test_client_without_certificate_is_refused(tls_server, pki):
    refused(tls_server.uri(pki.creds()))


def test_client_of_another_authority_is_refused(tls_server, pki, work):
    other = Authority(work / 'other', 'Other authority')
    other.client()
    folder = other.creds(client='client', ca=pki)
    refused(tls_server.uri(folder))


def test_client_with_revoked_certificate_is_refused(vm, pki, disk):
    pki.client('mallory', cn='mallory')
    add_creds(vm, 'x509', 'tls0', pki.creds(server='server', crl=pki.revoke('mallory')), 'server')
    server = TlsServer(vm, disk)
    read_back(server.uri(pki.creds(client='client')), disk)
    refused(server.uri(pki.creds(client='mallory')))


def test_client_need_not_prove_itself_where_verify_peer_is_off(vm, pki, disk):
    add_creds(vm, 'x509', 'tls0', pki.creds(server='server'), 'server', verify_peer=False)
    read_back(TlsServer(vm, disk).uri(pki.creds()), disk)


def test_client_without_tls_is_refused(tls_server):
    refused(tls_server.uri(scheme='nbd'))


def test_authorization_by_distinguished_name(vm, pki, disk):
    pki.client('bob', cn='bob')
    add_creds(vm, 'x509', 'tls0', pki.creds(server='server'), 'server')
    server = TlsServer(vm, disk, tls_authz='auth0')
    alice, bob = (server.uri(pki.creds(client=name)) for name in ('client', 'bob'))
    refused(alice)          # no client is allowed while the object is missing
    vm.cmd('object-add', {'qom-type': 'authz-list', 'id': 'auth0', 'policy': 'deny', 'rules': [
        {'match': 'O=Ferry tests,CN=alice', 'policy': 'allow'}]})
    read_back(alice, disk)
    refused(bob)
    vm.cmd('object-del', id='auth0')
    vm.cmd('object-add', {'qom-type': 'authz-list', 'id': 'auth0', 'policy': 'deny', 'rules': [
        {'match': '*CN=b?b*', 'policy': 'allow', 'format': 'glob'}]})
    read_back(bob, disk)
    refused(alice)


def test_authorization_by_psk_user(vm, work, disk):
    keys = psk_creds(work / 'keys', alice=KEY, bob=OTHER_KEY)
    vm.cmd('object-add', {'qom-type': 'authz-simple', 'id': 'auth0', 'identity': 'bob'})
    add_creds(vm, 'psk', 'tls0', keys, 'server')
    server = TlsServer(vm, disk, tls_authz='auth0')
    read_back(server.psk_uri(keys, 'bob'), disk)
    refused(server.psk_uri(keys, 'alice'))


def test_anonymous_tls_serves_stock_qemu_img(vm, work, disk):
    vm.cmd('object-add', {'qom-type': 'tls-creds-anon', 'id': 'tls0', 'endpoint': 'server'})
    server = TlsServer(vm, disk)
    ferry.qemu_img('convert', '-O', 'raw', '--object', 'tls-creds-anon,id=t,endpoint=client', '--image-opts',
                   f'driver=nbd,host=127.0.0.1,port={server.port},export=disk,tls-creds=t', work / 'out.raw')
    ferry.compare(disk, work / 'out.raw')


# --- the handshake, byte by byte ---

def recv_exactly(sock, count):
    data = b''
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def greet(server):
    sock = server.connect()
    assert recv_exactly(sock, 18)[:8] == b'NBDMAGIC'
    sock.sendall(struct.pack('>I', 3))
    return sock


def option(number, data=b''):
    return struct.pack('>QII', OPTS_MAGIC, number, len(data)) + data


def reply(sock):
    magic, number, kind, length = struct.unpack('>QIII', recv_exactly(sock, 20))
    assert magic == REPLY_MAGIC
    return number, kind, recv_exactly(sock, length)


def assert_closed(sock):
    """Everything that still comes is an alert; then the connection is over."""
    data = b''
    try:
        while more := sock.recv(4096):
            data += more
    except ConnectionResetError:
        pass
    assert len(data) < 64 and b'disk' not in data
    sock.close()


@pytest.mark.parametrize('number', [OPT_LIST, OPT_INFO, OPT_GO, OPT_STRUCTURED, OPT_LIST_META, OPT_SET_META, 77])
def test_option_before_tls_is_refused(tls_server, number):
    with greet(tls_server) as sock:
        sock.sendall(option(number, struct.pack('>I4sH', 4, b'disk', 0) if number in (OPT_INFO, OPT_GO) else b''))
        assert reply(sock)[:2] == (number, REP_ERR_TLS_REQD)
        sock.sendall(option(OPT_ABORT))
        assert reply(sock)[:2] == (OPT_ABORT, REP_ACK)


def meta(number, *queries):
    data = struct.pack('>I4sI', 4, b'disk', len(queries))
    return option(number, data + b''.join(struct.pack('>I', len(q)) + q for q in queries))


def secure(sock, pki):
    """TLS on a connection whose server has consented."""
    folder = pki.creds(client='client')
    context = ssl.create_default_context(cafile=folder / 'ca-cert.pem')
    context.load_cert_chain(folder / 'client-cert.pem', folder / 'client-key.pem')
    return context.wrap_socket(sock, server_hostname='localhost')


def test_nothing_said_before_tls_counts_behind_it(tls_server, pki):
    """Structured replies and contexts that were asked for in the clear are neither granted nor remembered."""
    sock = greet(tls_server)
    for early, number in ((option(OPT_STRUCTURED), OPT_STRUCTURED), (meta(OPT_SET_META, b'base:allocation'), OPT_SET_META)):
        sock.sendall(early)
        number_seen, kind, text = reply(sock)
        assert (number_seen, kind) == (number, REP_ERR_TLS_REQD) and b'disk' not in text
    sock.sendall(option(OPT_STARTTLS))
    assert reply(sock)[:2] == (OPT_STARTTLS, REP_ACK)
    with secure(sock, pki) as tls:
        tls.sendall(meta(OPT_SET_META, b'base:allocation'))
        assert reply(tls)[:2] == (OPT_SET_META, REP_ERR_INVALID)       # no structured replies yet
        tls.sendall(option(OPT_LIST))
        number, kind, data = reply(tls)
        assert (number, kind, data) == (OPT_LIST, REP_SERVER, struct.pack('>I4s', 4, b'disk'))
        assert reply(tls)[:2] == (OPT_LIST, REP_ACK)
        tls.sendall(option(OPT_STRUCTURED))
        assert reply(tls)[:2] == (OPT_STRUCTURED, REP_ACK)
        tls.sendall(option(OPT_GO, struct.pack('>I4sH', 4, b'disk', 0)))
        while reply(tls)[1] != REP_ACK:
            pass
        # block status without a context behind TLS is refused: none survived
        tls.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 7, 1, 0, 4096))
        magic, flags, kind, cookie, length = struct.unpack('>IHHQI', recv_exactly(tls, 20))
        assert (magic, flags & 1, kind, cookie) == (0x668e33ef, 1, 0x8001, 1)
        assert struct.unpack('>I', recv_exactly(tls, length)[:4])[0] == 22


def test_second_starttls_is_refused_and_changes_nothing(tls_server, pki):
    sock = greet(tls_server)
    sock.sendall(option(OPT_STARTTLS))
    assert reply(sock)[:2] == (OPT_STARTTLS, REP_ACK)
    with secure(sock, pki) as tls:
        tls.sendall(option(OPT_STARTTLS))
        assert reply(tls)[:2] == (OPT_STARTTLS, REP_ERR_INVALID)
        tls.sendall(option(OPT_STRUCTURED) + meta(OPT_SET_META, b'base:allocation'))
        assert reply(tls)[:2] == (OPT_STRUCTURED, REP_ACK)
        assert reply(tls)[:2] == (OPT_SET_META, REP_META)


def test_export_name_before_tls_ends_the_connection(tls_server):
    sock = greet(tls_server)
    sock.sendall(option(OPT_EXPORT_NAME, b'disk'))
    assert_closed(sock)


def test_starttls_with_a_payload_is_invalid(tls_server):
    with greet(tls_server) as sock:
        sock.sendall(option(OPT_STARTTLS, b'x'))
        assert reply(sock)[:2] == (OPT_STARTTLS, REP_ERR_INVALID)


def test_what_is_sent_in_the_clear_behind_starttls_ends_the_connection(tls_server):
    sock = greet(tls_server)
    sock.sendall(option(OPT_STARTTLS) + option(OPT_LIST) + option(OPT_GO, struct.pack('>I4sH', 4, b'disk', 0)))
    assert reply(sock)[:2] == (OPT_STARTTLS, REP_ACK)
    assert_closed(sock)


def test_starttls_without_credentials_is_refused(vm, disk):
    vm.add_file(disk, node_name='disk')
    path = str(vm.workdir / 'plain.sock')
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': path}})
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        recv_exactly(sock, 18)
        sock.sendall(struct.pack('>I', 3) + option(OPT_STARTTLS))
        assert reply(sock)[:2] == (OPT_STARTTLS, REP_ERR_POLICY)


def test_client_that_stalls_in_the_tls_handshake_is_dropped(vm, pki, disk):
    add_creds(vm, 'x509', 'tls0', pki.creds(server='server'), 'server')
    vm.add_file(disk, node_name='disk')
    path = str(vm.workdir / 'stall.sock')
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': path}},
           tls_creds='tls0', handshake_max_seconds=1)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(path)
        recv_exactly(sock, 18)
        sock.sendall(struct.pack('>I', 3) + option(OPT_STARTTLS))
        assert reply(sock)[:2] == (OPT_STARTTLS, REP_ACK)
        sock.sendall(b'\x16\x03\x01')      # the first bytes of a ClientHello, and no more
        assert_closed(sock)


def test_server_stops_while_clients_are_in_the_tls_handshake(tls_server, vm):
    sock = greet(tls_server)
    sock.sendall(option(OPT_STARTTLS))
    assert reply(sock)[:2] == (OPT_STARTTLS, REP_ACK)
    vm.cmd('nbd-server-stop')
    assert_closed(sock)


# --- objects ---

def test_credentials_in_use_cannot_be_deleted(tls_server, vm):
    with pytest.raises(ferry.QMPError, match="'tls0' is in use"):
        vm.cmd('object-del', id='tls0')
    vm.cmd('nbd-server-stop')
    vm.cmd('object-del', id='tls0')


def test_objects_of_the_command_line_serve_clients(vmm, pki, disk):
    vm = vmm('-object', f'tls-creds-x509,id=tls0,endpoint=server,dir={pki.creds(server="server")},verify-peer=yes',
             '-object', 'authz-list,id=auth0,policy=deny,rules.0.match=*CN=alice*,rules.0.policy=allow,rules.0.format=glob',
             '-object', '{"qom-type": "secret", "id": "sec0", "data": "eA==", "format": "base64"}')
    server = TlsServer(vm, disk, tls_authz='auth0')
    read_back(server.uri(pki.creds(client='client')), disk)
    vm.cmd('object-del', id='sec0')
    pki.client('bob', cn='bob')
    refused(server.uri(pki.creds(client='bob')))


def test_unfit_credentials_on_the_command_line_end_the_start(work, pki):
    pki.cert('old', 'cn = "localhost"', 'tls_www_server', 'signing_key', 'activation_date = "2001-01-01 00:00:00"',
             'expiration_date = "2002-01-01 00:00:00"')
    done = subprocess.run([*ferry.binary(), '-machine', 'none', '-display', 'none', '-nodefaults', '-S', '-object',
                           f'tls-creds-x509,id=tls0,endpoint=server,dir={pki.creds(server="old")}'],
                          capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert 'has expired' in done.stderr


def test_server_wants_credentials_for_a_server(vm, pki, disk):
    add_creds(vm, 'x509', 'tls0', pki.creds(client='client'), 'client')
    vm.cmd('object-add', {'qom-type': 'secret', 'id': 'sec0', 'data': 'x'})
    for creds, message in (('tls0', 'Expected TLS credentials for a server endpoint'),
                           ('sec0', "No TLS credentials with id 'sec0'")):
        with pytest.raises(ferry.QMPError, match=message):
            vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(vm.workdir / 's')}}, tls_creds=creds)


def test_encrypted_key_is_read_with_a_secret_under_a_master_key(vm, pki, disk, need):
    need.tool('openssl')
    folder = pki.creds(server='server')
    password, master, iv = 'a pass phrase', bytes(range(32)), bytes(range(16))
    encrypted = subprocess.run(['openssl', 'pkcs8', '-topk8', '-in', pki.folder / 'server.key', '-passout', f'pass:{password}'],
                               capture_output=True, check=True).stdout
    (folder / 'server-key.pem').write_bytes(encrypted)
    with pytest.raises(ferry.QMPError, match='passwordid'):
        add_creds(vm, 'x509', 'tls0', folder, 'server')
    cipher = subprocess.run(['openssl', 'enc', '-aes-256-cbc', '-K', master.hex(), '-iv', iv.hex(), '-base64', '-A'],
                            input=password.encode(), capture_output=True, check=True).stdout.decode()
    (vm.workdir / 'master.key').write_bytes(master)
    vm.cmd('object-add', {'qom-type': 'secret', 'id': 'master0', 'format': 'raw', 'file': str(vm.workdir / 'master.key')})
    vm.cmd('object-add', {'qom-type': 'secret', 'id': 'sec0', 'format': 'base64', 'keyid': 'master0', 'data': cipher,
                          'iv': base64.b64encode(iv).decode()})
    add_creds(vm, 'x509', 'tls0', folder, 'server', passwordid='sec0')
    read_back(TlsServer(vm, disk).uri(pki.creds(client='client')), disk)


# --- our client, others' servers ---

def add_client(vm, server, node_name='remote', **options):
    vm.cmd('blockdev-add', server.node(node_name, **options))


def same_as(vm, node, path, work):
    """What the node reads is what the file holds."""
    ferry.compare(path, copy_out(vm, node, work))


def copy_out(vm, node, work):
    out = work / f'{node}.out'
    out.touch()
    os.truncate(out, SIZE)
    vm.add_file(out, node_name=f'{node}-out')
    vm.cmd('blockdev-mirror', job_id=f'{node}-job', device=node, target=f'{node}-out', sync='full')
    vm.wait('BLOCK_JOB_READY', device=f'{node}-job')
    vm.cmd('block-job-cancel', device=f'{node}-job')
    vm.wait('BLOCK_JOB_COMPLETED', device=f'{node}-job')
    vm.cmd('blockdev-del', node_name=f'{node}-out')
    return out


@pytest.fixture
def stock_server(pki, disk, qemu_nbd):
    return qemu_nbd(disk, 'raw', '--object', f'tls-creds-x509,id=t,endpoint=server,dir={pki.creds(server="server")}',
                    '--tls-creds', 't', tcp=True)


def test_client_copies_from_stock_qemu_nbd(vm, pki, disk, stock_server, work):
    add_creds(vm, 'x509', 'tls0', pki.creds(client='client'), 'client')
    add_client(vm, stock_server, tls_creds='tls0')      # the certificate is for 127.0.0.1 too
    same_as(vm, 'remote', disk, work)
    with pytest.raises(ferry.QMPError, match='in use'):
        vm.cmd('object-del', id='tls0')
    vm.cmd('blockdev-del', node_name='remote')
    vm.cmd('object-del', id='tls0')


def test_client_copies_from_nbdkit_with_psk(vm, disk, nbdkit, work, need):
    need.tool('nbdkit')
    keys = psk_creds(work / 'keys', qemu=KEY)
    server = nbdkit('--tls=require', f'--tls-psk={keys}/keys.psk', 'file', str(disk))
    add_creds(vm, 'psk', 'tls0', keys, 'client')
    add_client(vm, server, tls_creds='tls0')
    same_as(vm, 'remote', disk, work)


def test_client_copies_from_nbdkit_with_certificates_over_unix(vm, pki, disk, nbdkit, work, need):
    need.tool('nbdkit')
    server = nbdkit('--tls=require', f'--tls-certificates={pki.creds(server="server")}', '--tls-verify-peer', 'file', str(disk))
    add_creds(vm, 'x509', 'tls0', pki.creds(client='client'), 'client')
    with pytest.raises(ferry.QMPError, match='[Hh]ostname'):
        add_client(vm, server, tls_creds='tls0')
    add_client(vm, server, tls_creds='tls0', tls_hostname='localhost')
    same_as(vm, 'remote', disk, work)


def test_client_refuses_a_server_for_another_host(vm, pki, stock_server):
    add_creds(vm, 'x509', 'tls0', pki.creds(client='client'), 'client')
    with pytest.raises(ferry.QMPError, match='does not match the hostname elsewhere.example'):
        add_client(vm, stock_server, tls_creds='tls0', tls_hostname='elsewhere.example')


def test_client_refuses_a_server_of_another_authority(vm, pki, stock_server, work):
    other = Authority(work / 'other', 'Other authority')
    add_creds(vm, 'x509', 'tls0', pki.creds(client='client', ca=other), 'client', sanity_check=False)
    with pytest.raises(ferry.QMPError, match='cannot be trusted'):
        add_client(vm, stock_server, tls_creds='tls0')


def test_client_refused_for_want_of_a_certificate_says_so(vm, pki, stock_server):
    add_creds(vm, 'x509', 'tls0', pki.creds(), 'client')
    with pytest.raises(ferry.QMPError):
        add_client(vm, stock_server, tls_creds='tls0')


def test_client_without_tls_hears_that_it_is_needed(vm, stock_server):
    with pytest.raises(ferry.QMPError, match='requires TLS'):
        add_client(vm, stock_server)


def test_client_does_not_fall_back_to_the_clear(vm, pki, disk, qemu_nbd):
    server = qemu_nbd(disk, tcp=True)
    add_creds(vm, 'x509', 'tls0', pki.creds(client='client'), 'client')
    with pytest.raises(ferry.QMPError, match='starttls'):
        add_client(vm, server, tls_creds='tls0')


def test_client_survives_a_restart_of_its_tls_server(vm, pki, disk, stock_server, work):
    add_creds(vm, 'x509', 'tls0', pki.creds(client='client'), 'client')
    add_client(vm, stock_server, tls_creds='tls0', reconnect_delay=60)
    stock_server.kill()
    stock_server.start()
    same_as(vm, 'remote', disk, work)


def test_mirror_to_a_tls_server_is_complete(vm, vmm, pki, disk, work):
    copy = work / 'copy.raw'
    copy.touch()
    os.truncate(copy, SIZE)
    destination = vmm(name='destination')
    add_creds(destination, 'x509', 'tls0', pki.creds(server='server'), 'server')
    server = TlsServer(destination, copy)
    add_creds(vm, 'x509', 'tls0', pki.creds(client='client'), 'client')
    vm.add_file(disk, node_name='disk')
    vm.cmd('blockdev-add', {'driver': 'raw', 'node-name': 'remote', 'file': {
        'driver': 'nbd', 'server': {'type': 'inet', 'host': '127.0.0.1', 'port': str(server.port)}, 'export': 'disk',
        'tls-creds': 'tls0'}})
    vm.cmd('blockdev-mirror', job_id='j', device='disk', target='remote', sync='full')
    vm.wait('BLOCK_JOB_READY', device='j')
    vm.cmd('block-job-cancel', device='j')
    vm.wait('BLOCK_JOB_COMPLETED', device='j')
    ferry.compare(disk, copy)
