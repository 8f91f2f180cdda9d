# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations over TLS that break: in the handshake, in the data, by credentials that do not fit, by a peer that does not
speak it. The guest is on exactly one side, and can go another time."""
import socket

import pytest

import ferry
from ferry import faults
from ferry import migration as m
from ferry import tls

USER, KEY, OTHER_KEY = 'ferry', '00112233445566778899aabbccddeeff', 'ff' * 16
CREDS = {'tls-creds': 'tls0'}


def psk(work, name, key=KEY, user=USER):
    folder = work / f'psk-{name}'
    if not folder.exists():
        tls.psk_creds(folder, **{user: key})
    more = f',username={user}' if name.startswith('client') else ''
    endpoint = 'client' if more else 'server'
    return ['-object', f'tls-creds-psk,id=tls0,dir={folder},endpoint={endpoint}{more}']


def x509(folder, endpoint):
    return ['-object', f'tls-creds-x509,id=tls0,dir={folder},endpoint={endpoint}']


@pytest.fixture
def mover(vmm, work):
    """With a shared key on both sides."""
    def start(caps=('return-path',), **options):
        settings = {'source_args': psk(work, 'client'), 'destination_args': psk(work, 'server'),
                    'params': {**CREDS, 'max-bandwidth': 0}}
        return faults.Mover(vmm, work, caps, **{**settings, **options})
    return start


@pytest.fixture
def authority(work, need):
    need.tool('certtool')
    return tls.Authority(work / 'ca')


def whole_run(mover):
    """Bytes of each connection, to the destination and back."""
    mover.start()
    assert mover.outcome() == 'there'
    return [tuple(link.count) for link in mover.channels.links]


def break_one(mover, link, at, how, back=False):
    channels = mover.start({(link, back): (at, how)})
    guard = ferry.Guard(m.LIMIT_S)
    while how == 'stall' and not channels.stalled.wait(0.01):
        guard.left()
        if faults.status_of(mover.source.vm) in m.OVER:     # this time other channels carried more
            return mover.outcome(waits=True)
    if how == 'stall':
        assert back or m.run_state(mover.destination.vm) == 'inmigrate'
        assert m.wait_status(mover.source.vm, 'setup', 'active', 'device')
        channels.drop()
    return mover.outcome(waits=True)


# Where the connection breaks

@pytest.mark.parametrize('how', ['cut', 'reset', 'stall'])
@pytest.mark.parametrize('back', [False, True])
def test_a_handshake_breaks(mover, back, how):
    """A destination forgets a peer whose handshake fails, and waits on."""
    one = mover(tcp=how == 'reset')
    for at in (0, 3, 100, 150):
        assert break_one(one, faults.MAIN, at, how, back) == 'here'
    one.finish()


@pytest.mark.parametrize('how', ['cut', 'reset', 'stall'])
def test_encrypted_data_break(mover, how):
    one = mover(params={**CREDS, 'max-bandwidth': 8 * ferry.MIB, 'downtime-limit': 50})
    total = whole_run(one)[0][0]
    seen = {break_one(one, faults.MAIN, at, how) for at in (700, 20000, total // 3, total // 2)}
    assert seen == {'here'}
    one.finish()


def test_the_end_of_encrypted_data_breaks(mover):
    """In the last records: devices, the end, the description. A cut record is as if it had not come."""
    one = mover()
    total = whole_run(one)[0][0]
    seen = {break_one(one, faults.MAIN, total - before, 'cut') for before in (600, 300, 100, 20, 1)}
    assert seen <= {'here', 'unknown', 'there'}
    one.finish()


@pytest.mark.parametrize('how', ['cut', 'stall'])
def test_the_verdict_breaks(mover, how):
    one = mover()
    total = whole_run(one)[0][1]
    for at in (total - 40, total - 30):     # behind it there may be a good-bye of 24 bytes
        assert break_one(one, faults.MAIN, at, how, back=True) in ('here', 'there', 'unknown')
    one.finish()


@pytest.mark.parametrize('link', [faults.MAIN, 1, 2])
@pytest.mark.parametrize('how', ['cut', 'stall'])
def test_channels_of_multifd_break(mover, link, how):
    """In the handshake, in the first packet of the channel, and among pages."""
    one = mover(('multifd', 'return-path'), params={**CREDS, 'max-bandwidth': 0, 'multifd-channels': 2})
    places = (0, 150, 600, 100000) if link else (0, 150, 420)
    for at in places:
        assert break_one(one, link, at, how) == 'here'
    one.finish()


def test_channels_overtake_the_main_one(mover):
    """The end of its handshake is late: to the source it is complete, to the destination the others are first."""
    one = mover(('multifd', 'return-path'), params={**CREDS, 'max-bandwidth': 0, 'multifd-channels': 2})
    channels = one.start({(faults.MAIN, True): (1, 'stall')})
    assert channels.stalled.wait(m.LIMIT_S)
    channels.hold.add((faults.MAIN, False))
    channels.release()
    assert channels.stalled.wait(m.LIMIT_S)
    guard = ferry.Guard(m.LIMIT_S)
    while len(channels.links) < 3 or min(link.count[False] for link in channels.links[1:]) < 500:
        guard.left()
    channels.hold.clear()
    channels.release()
    assert one.outcome() == 'there'
    one.finish()


@pytest.mark.parametrize('caps', [['return-path'], ['multifd', 'return-path'], ['multifd']])
def test_over_tcp(mover, caps):
    mover(caps, tcp=True).finish()


def test_the_handshake_of_a_channel_ends_with_the_main_one(mover):
    """The source waits for a handshake when the connection that matters breaks: it does not wait on."""
    one = mover(('multifd', 'return-path'), params={**CREDS, 'max-bandwidth': 0, 'multifd-channels': 2})
    channels = one.start({(2, False): (100, 'stall')})
    assert channels.stalled.wait(m.LIMIT_S)
    assert m.wait_status(one.source.vm, 'setup')
    channels.break_link(channels.links[faults.MAIN], 'cut')
    assert one.outcome(source_causes=['the destination went away', 'TLS handshake failed']) == 'here'
    one.finish()


@pytest.mark.slow
@pytest.mark.parametrize('how', ['cut', 'reset', 'stall'])
@pytest.mark.parametrize('caps', [['return-path'], [], ['multifd', 'return-path'], ['multifd']],
                         ids=['plain', 'plain-one-way', 'multifd', 'multifd-one-way'])
def test_any_place_breaks(mover, caps, how):
    one = mover(caps, tcp=how == 'reset', params={**CREDS, 'max-bandwidth': 16 * ferry.MIB, 'downtime-limit': 50})
    total = whole_run(one)
    for link, (forward, backward) in enumerate(total):
        for at in (*range(0, 500, 45), *range(500, min(forward, 1 << 20), (1 << 18) + 77)):
            assert break_one(one, link, at, how) in ('here', 'there', 'unknown')
        for at in range(0, backward, 97):
            assert break_one(one, link, at, how, back=True) in ('here', 'there', 'unknown')
    one.finish()


# Which peers are refused, and with which words

def refused_then_taken(mover, source=('handshake', 'certificate'), destination=('handshake', 'certificate')):
    """With the source's credentials `bad`, twice, for the destination waits on; then with those that fit."""
    for _ in range(2):
        mover.start()
        assert mover.outcome(waits=True, source_causes=source, destination_causes=destination) == 'here'
    mover.source.vm.cmd('migrate-set-parameters', CREDS)
    mover.finish()


def bad_and_good(bad, good):
    return [bad[0], bad[1].replace('id=tls0', 'id=bad'), *good]


BAD = {'source_params': {'tls-creds': 'bad'}}


@pytest.mark.parametrize('client', [{'key': OTHER_KEY}, {'user': 'stranger'}], ids=['key', 'user'])
def test_another_shared_key(mover, work, client):
    refused_then_taken(mover(source_args=bad_and_good(psk(work, 'client-other', **client), psk(work, 'client')), **BAD))


@pytest.mark.parametrize('caps', [['return-path'], ['multifd', 'return-path'], []])
@pytest.mark.parametrize('who', ['strange-client', 'no-client-certificate', 'strange-server'])
def test_certificates_of_another_authority(mover, work, authority, who, caps):
    other = tls.Authority(work / 'other', 'Another authority')
    server = authority.creds(server=authority.server())
    good = authority.creds(client=authority.client())
    bad = {'strange-client': other.creds(client=other.client()), 'no-client-certificate': authority.creds(),
           'strange-server': other.creds(client=other.client())}[who]
    if who == 'strange-client':     # the one that knows both authorities, of which the server knows one
        (bad / 'ca-cert.pem').write_text((other.folder / 'ca.pem').read_text() + (authority.folder / 'ca.pem').read_text())
    one = mover(caps, source_args=bad_and_good(x509(bad, 'client'), x509(good, 'client')),
                destination_args=x509(server, 'server'), params={**CREDS, 'tls-hostname': 'localhost'}, **BAD)
    refused_then_taken(one, ['ertificate', 'handshake', 'went away'], ['ertificate', 'handshake'])


@pytest.mark.parametrize('caps', [['return-path'], ['multifd', 'return-path']])
def test_another_host(mover, authority, caps):
    one = mover(caps, source_args=x509(authority.creds(client=authority.client()), 'client'),
                destination_args=x509(authority.creds(server=authority.server()), 'server'),
                params={**CREDS, 'tls-hostname': 'elsewhere.example'})
    for _ in range(2):
        one.start()
        assert one.outcome(waits=True, source_causes=['elsewhere.example']) == 'here'
    one.source.vm.cmd('migrate-set-parameters', {'tls-hostname': 'localhost'})
    one.finish()


def test_peer_that_is_not_on_the_list(mover, authority):
    rules = {'qom-type': 'authz-list', 'id': 'list', 'policy': 'deny', 'rules': [
        {'match': 'O=Ferry tests,CN=bob', 'policy': 'allow', 'format': 'exact'}]}
    one = mover(source_args=bad_and_good(x509(authority.creds(client=authority.client('mallory', 'mallory')), 'client'),
                                         x509(authority.creds(client=authority.client('bob', 'bob')), 'client')),
                destination_args=x509(authority.creds(server=authority.server()), 'server'),
                params={**CREDS, 'tls-hostname': 'localhost'}, destination_params={'tls-authz': 'list'}, **BAD)
    one.new_destination()
    one.destination.vm.cmd('object-add', rules)
    refused_then_taken(one, ['handshake', 'went away', 'ertificate', 'TLS'], ['mallory', 'not authorized', 'denied', 'TLS'])


# Only one side speaks TLS

@pytest.mark.parametrize('caps', [['return-path'], ['multifd', 'return-path'], []])
def test_a_destination_without_tls(mover, caps):
    """It turns away what begins with a handshake, and waits on."""
    one = mover(caps, destination_params={'tls-creds': ''})
    one.start()
    assert one.outcome(waits=True, source_causes=['handshake', 'TLS'], destination_causes=['Not a migration stream']) == 'here'
    one.destination.vm.cmd('migrate-set-parameters', CREDS)
    one.finish()


@pytest.mark.parametrize('caps', [['return-path'], ['multifd', 'return-path'], []])
def test_a_source_without_tls(mover, caps):
    one = mover(caps, source_params={'tls-creds': ''})
    for _ in range(2):
        one.start()
        assert one.outcome(waits=True, destination_causes=['handshake', 'TLS']) == 'here'
    one.source.vm.cmd('migrate-set-parameters', CREDS)
    one.finish()


def test_credentials_that_are_not_there(mover):
    """Told at once: nothing is tried."""
    one = mover()
    where = one.listen()
    for name, words in (('nobody', "'nobody'"), ('', '')):
        one.source.vm.cmd('migrate-set-parameters', {'tls-creds': name or 'tls0'})
        if words:
            with pytest.raises(ferry.QMPError, match=words):
                one.source.vm.cmd('migrate', uri=f'unix:{where}')
            assert m.run_state(one.source.vm) == 'running' and one.source.new_errors() == []
    one.finish()


def test_credentials_for_the_other_end(mover, work):
    one = mover(source_args=bad_and_good(psk(work, 'server'), psk(work, 'client')),
                destination_args=psk(work, 'server2'), **BAD)
    with pytest.raises(ferry.QMPError, match='endpoint|client|server'):
        one.source.vm.cmd('migrate', uri=f'unix:{one.listen()}')
    one.source.vm.cmd('migrate-set-parameters', CREDS)
    one.finish()


def test_peers_that_say_nothing_do_not_keep_the_source_out(mover):
    """Handshakes that hang, and nonsense, beside one that does not."""
    one = mover()
    where = one.listen()
    idle = []
    for data in (b'', b'\x16\x03', b'x' * 100):
        conn = socket.socket(socket.AF_UNIX)
        conn.connect(str(where))
        conn.sendall(data)
        idle.append(conn)
    one.start()
    assert m.wait_over(one.source.vm)['status'] == 'completed'
    assert one.destination_is_over() == 'completed'
    assert one.destination.memory() == one.data
    for conn in idle:
        conn.close()
