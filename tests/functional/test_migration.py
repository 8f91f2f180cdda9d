# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest moves from one Ferry to another: over every transport, with the states and events of its way, and with
every byte of its memory."""
import os
import random
import shlex
import socket
import threading
import time

import pytest

import ferry
from ferry import faults
from ferry import migration as m
from ferry import tls

RAM = 32 * ferry.MIB
STANDSTILL_S = 0.3          # of a stream whose time is looked at
MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults']


class Side:
    """A binary with memory that qtest reads and writes."""

    def __init__(self, vmm, work, name, *args, ram=RAM, caps=(), **options):
        self.ram, self.name = ram, name
        self.qtest = ferry.QTest(work, name)
        self.vm = vmm(*MACHINE, '-m', f'{ram // ferry.MIB}M', *self.qtest.args, *args, defaults=False, name=name,
                      **options)
        m.set_caps(self.vm, 'events', *caps)

    def memory(self):
        return self.qtest.read(0, self.ram)

    def fill(self, seed):
        """Random bytes, repeated bytes and zeroes, in runs of pages; returns the whole memory."""
        print(f'{self.name}: seed {seed}')
        rng = random.Random(seed)
        data = bytearray(self.ram)
        at = 0
        while at < self.ram:
            pages = min(rng.randrange(1, 600), (self.ram - at) // m.PAGE)
            kind = rng.randrange(3)
            if kind == 0:
                data[at:at + pages * m.PAGE] = rng.randbytes(pages * m.PAGE)
            elif kind == 1:
                data[at:at + pages * m.PAGE] = bytes([rng.randrange(1, 256)]) * (pages * m.PAGE)
            if kind != 2:
                self.qtest.write(at, data[at:at + pages * m.PAGE])
            at += pages * m.PAGE
        return bytes(data)

    def statuses(self):
        return [e['data']['status'] for e in self.vm.seen('MIGRATION')]

    def story(self):
        """Statuses and changes of the run state in the order of their events."""
        return [e['data']['status'] if e['event'] == 'MIGRATION' else e['event'] for e in self.vm.events
                if e['event'] in ('MIGRATION', 'STOP', 'RESUME')]


@pytest.fixture
def side(vmm, work):
    return lambda name, *args, **options: Side(vmm, work, name, *args, **options)


@pytest.fixture
def pair(side, work):
    """source, destination and the URI at which the latter listens."""
    def start(*args, source=(), destination=(), caps=('return-path',), uri=None, **options):
        uri = uri or f'unix:{work}/in'
        return (side('source', *args, *source, caps=caps, **options),
                side('destination', *args, *destination, '-incoming', uri, **options), uri)
    return start


def arrived(source, destination, expected, state='running'):
    assert m.wait_over(source.vm)['status'] == 'completed'
    assert m.wait_over(destination.vm)['status'] == 'completed'
    assert m.run_state(source.vm) == 'postmigrate'
    assert m.run_state(destination.vm) == state
    assert destination.memory() == expected
    assert m.error_lines(destination.vm) == []
    if source.statuses().count('setup') == 1:
        assert m.error_lines(source.vm) == []


def listens_at(vm):
    """The port that a destination chose; its address says of which family it is, as stock QEMU's does."""
    address = vm.cmd('query-migrate')['socket-address'][0]
    family = 'ipv6' if ':' in address['host'] else 'ipv4'
    assert address == {'type': 'inet', 'host': address['host'], 'port': address['port'], family: True}
    return address['port']


# Transports

@pytest.mark.parametrize('return_path', [True, False])
@pytest.mark.parametrize('transport', ['unix', 'tcp'])
def test_sockets(pair, work, transport, return_path):
    source, destination, uri = pair(uri='tcp:127.0.0.1:0' if transport == 'tcp' else None,
                                    caps=['return-path'] if return_path else [])
    if transport == 'tcp':
        uri = f'tcp:127.0.0.1:{listens_at(destination.vm)}'
    data = source.fill(1)
    source.vm.cmd('migrate', uri=uri)
    arrived(source, destination, data)


def test_a_list_of_channels(side, work):
    channels = [{'channel-type': 'main', 'addr': {'transport': 'socket', 'type': 'unix', 'path': f'{work}/in'}}]
    source = side('source', caps=['return-path'])
    destination = side('destination', '-incoming', 'defer')
    destination.vm.cmd('migrate-incoming', channels=channels)
    data = source.fill(2)
    source.vm.cmd('migrate', channels=channels)
    arrived(source, destination, data)


@pytest.mark.parametrize('how', ['name', 'number'])
def test_descriptors(side, vmm, how):
    ours, theirs = socket.socketpair()
    if how == 'name':
        source = side('source', caps=['return-path'])
        destination = side('destination', '-incoming', 'defer')
        source.vm.cmd('getfd', fdname='way', fds=[ours.fileno()])
        destination.vm.cmd('getfd', fdname='way', fds=[theirs.fileno()])
        destination.vm.cmd('migrate-incoming', uri='fd:way')
        uri = 'fd:way'
    else:
        source = side('source', caps=['return-path'], pass_fds=[ours.fileno()])
        destination = side('destination', '-incoming', f'fd:{theirs.fileno()}', pass_fds=[theirs.fileno()])
        uri = f'fd:{ours.fileno()}'
    ours.close()
    theirs.close()
    data = source.fill(3)
    source.vm.cmd('migrate', uri=uri)
    arrived(source, destination, data)


def test_programs_between(side, work):
    os.mkfifo(work / 'pipe')
    source = side('source')
    destination = side('destination', '-incoming', f'exec:cat {work}/pipe')
    data = source.fill(4)
    source.vm.cmd('migrate', uri=f'exec:cat > {work}/pipe')
    arrived(source, destination, data)


@pytest.mark.parametrize('save, load', [('file:{}/saved', 'file:{}/saved'),
                                        ('file:{}/saved,offset=0x3000', 'file:{}/saved,offset=0x3000'),
                                        ('exec:cat > {}/saved', 'exec:cat < {}/saved'),
                                        ('exec:gzip -1 > {}/saved', 'exec:gzip -dc {}/saved'),
                                        ('file:{}/saved', 'exec:cat {}/saved')])
def test_saved_and_restored(side, work, save, load):
    source = side('source')
    data = source.fill(5)
    source.vm.cmd('migrate', uri=save.format(work))
    assert m.wait_over(source.vm)['status'] == 'completed'
    destination = side('destination', '-incoming', load.format(work))
    arrived(source, destination, data)


# TLS

@pytest.fixture
def x509(work, need):
    need.tool('certtool')
    authority = tls.Authority(work / 'ca')
    return {'server': authority.creds(server=authority.server()), 'client': authority.creds(client=authority.client())}


def creds(kind, folder, endpoint, **more):
    extra = ''.join(f',{k}={v}' for k, v in more.items())
    return ['-object', f'tls-creds-{kind},id=tls0,dir={folder},endpoint={endpoint}{extra}']


def use_tls(side, **more):
    side.vm.cmd('migrate-set-parameters', {'tls-creds': 'tls0', **more})


def tls_pair(side, source_args, destination_args, **options):
    source = side('source', *source_args, caps=['return-path'])
    destination = side('destination', *destination_args, '-incoming', 'defer')
    use_tls(source, **options)
    use_tls(destination)
    destination.vm.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    return source, destination, f'tcp:127.0.0.1:{listens_at(destination.vm)}'


def test_tls_with_certificates(side, x509):
    source, destination, uri = tls_pair(side, creds('x509', x509['client'], 'client'),
                                        creds('x509', x509['server'], 'server'))
    data = source.fill(6)
    source.vm.cmd('migrate', uri=uri)
    arrived(source, destination, data)


def test_tls_with_a_shared_key(side, work):
    folder = tls.psk_creds(work / 'psk', ferry='00112233445566778899aabbccddeeff')
    source, destination, uri = tls_pair(side, creds('psk', folder, 'client', username='ferry'),
                                        creds('psk', folder, 'server'))
    data = source.fill(7)
    source.vm.cmd('migrate', uri=uri)
    arrived(source, destination, data)


def test_tls_of_another_host_is_refused_and_the_destination_waits_on(side, x509):
    source, destination, uri = tls_pair(side, creds('x509', x509['client'], 'client'),
                                        creds('x509', x509['server'], 'server'), **{'tls-hostname': 'elsewhere'})
    data = source.fill(8)
    source.vm.cmd('migrate', uri=uri)
    assert 'elsewhere' in m.wait_status(source.vm, 'failed')['error-desc']
    assert m.run_state(source.vm) == 'running' and m.run_state(destination.vm) == 'inmigrate'
    assert len(m.error_lines(source.vm)) == 1
    use_tls(source, **{'tls-hostname': ''})
    source.vm.cmd('migrate', uri=uri)
    assert m.wait_over(destination.vm)['status'] == 'completed'
    assert destination.memory() == data


# States and events

def test_the_way_of_a_running_guest(pair):
    source, destination, uri = pair()
    assert m.wait_status(destination.vm, 'setup')['socket-address']
    path = uri.split(':')[1]
    assert f'socket address: [\r\n\tunix:{path}\r\n]' in destination.vm.hmp('info migrate')
    data = source.fill(9)
    source.vm.cmd('migrate', uri=uri)
    arrived(source, destination, data)
    assert source.story() == ['setup', 'active', 'STOP', 'device', 'completed']
    assert destination.story()[-3:] == ['active', 'RESUME', 'completed']
    done = source.vm.cmd('query-migrate')
    assert {'status', 'setup-time', 'total-time', 'downtime', 'ram'} <= done.keys()
    assert not {'expected-downtime', 'remaining', 'error-desc'} & done.keys()
    assert done['ram']['total'] == RAM and done['ram']['remaining'] == 0 and done['ram']['page-size'] == m.PAGE
    there = destination.vm.cmd('query-migrate')
    assert there.pop('x-downtime').keys() == {'resume'}      # the part that the destination knows
    assert there == {'status': 'completed'}


def test_the_way_of_a_stopped_guest(pair):
    source, destination, uri = pair(source=['-S'])
    data = source.fill(10)
    source.vm.cmd('migrate', uri=uri)
    arrived(source, destination, data, state='prelaunch')
    assert source.story() == ['setup', 'active', 'device', 'completed']
    assert 'RESUME' not in destination.story()
    destination.vm.cmd('cont')
    assert m.run_state(destination.vm) == 'running'


def test_a_paused_guest_arrives_paused(pair):
    source, destination, uri = pair()
    source.vm.cmd('stop')
    source.vm.cmd('migrate', uri=uri)
    arrived(source, destination, bytes(RAM), state='paused')


@pytest.mark.parametrize('tell, state', [('-S', 'paused'), ('stop', 'paused'), ('cont', 'running')])
def test_the_destination_is_told_whether_to_start(pair, tell, state):
    source, destination, uri = pair(destination=[] if tell == 'stop' else ['-S'])
    if tell != '-S':
        destination.vm.cmd(tell)
    source.vm.cmd('migrate', uri=uri)
    arrived(source, destination, bytes(RAM), state=state)


def test_figures_by_status(pair):
    source, destination, uri = pair(caps=['return-path', 'pause-before-switchover'])
    assert source.vm.cmd('query-migrate') == {}
    data = source.fill(11)
    source.vm.cmd('migrate-set-parameters', {'max-bandwidth': ferry.MIB})
    source.vm.cmd('migrate', uri=uri)
    active = m.wait_status(source.vm, 'active')
    assert {'status', 'setup-time', 'total-time', 'expected-downtime', 'ram', 'remaining'} <= active.keys()
    assert 'downtime' not in active
    source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 0})
    waiting = m.wait_status(source.vm, 'pre-switchover')
    assert {'expected-downtime', 'ram', 'remaining'} <= waiting.keys()
    source.vm.cmd('migrate-continue', state='pre-switchover')
    arrived(source, destination, data)


@pytest.mark.parametrize('caps', [[], ['return-path'], ['return-path', 'multifd']])
def test_where_the_downtime_went(pair, work, caps):
    """The stream stands still among the last pages, which shows there and in the whole."""
    source, destination, uri = pair(caps=caps)
    m.set_caps(destination.vm, *caps)
    data = source.fill(29)
    # What the first pass would take longer for is all sent while the guest is stopped.
    source.vm.cmd('migrate-set-parameters', {'downtime-limit': 2000000, 'max-bandwidth': 10 * ferry.MIB,
                                             'avail-switchover-bandwidth': 2 ** 64 - 1})
    stall = {} if 'multifd' in caps else {(faults.MAIN, False): (8 * ferry.MIB, 'stall')}
    channels = faults.Channels(work / 'between', uri.removeprefix('unix:'), stall)
    source.vm.cmd('migrate', uri=channels.uri)
    if stall:
        assert channels.stalled.wait(m.LIMIT_S)
        time.sleep(STANDSTILL_S)
        channels.release()
    arrived(source, destination, data)
    channels.close()
    done = source.vm.cmd('query-migrate')
    phases = done['x-downtime']
    assert phases.keys() == {'stop', 'last-sync', 'last-pages', 'device-state', *(['peer-load'] if caps else [])}
    assert phases['last-pages'] > (STANDSTILL_S * 1000 / 2 if stall else 0)
    assert sum(phases.values()) < done['downtime'] + 1
    assert source.vm.hmp('info migrate').count('downtime: ') == 1 + len(phases)


# Waiting before the end

def test_pause_before_switchover(pair):
    source, destination, uri = pair(caps=['return-path', 'pause-before-switchover'])
    data = source.fill(12)
    source.vm.cmd('migrate', uri=uri)
    m.wait_status(source.vm, 'pre-switchover')
    assert m.run_state(source.vm) == 'finish-migrate' and m.run_state(destination.vm) == 'inmigrate'
    for command in ('cont', 'migrate'):
        with pytest.raises(ferry.QMPError):
            source.vm.cmd(command, {'uri': uri} if command == 'migrate' else {})
    with pytest.raises(ferry.QMPError, match='Migration not in expected state: pre-switchover'):
        source.vm.cmd('migrate-continue', state='device')
    source.vm.cmd('migrate-continue', state='pre-switchover')
    arrived(source, destination, data)
    assert source.story() == ['setup', 'active', 'STOP', 'pre-switchover', 'device', 'completed']


def test_commands_at_the_wrong_time(pair):
    source, destination, uri = pair()
    source.vm.cmd('migrate_cancel')
    assert source.vm.cmd('query-migrate') == {}
    with pytest.raises(ferry.QMPError, match='none'):
        source.vm.cmd('migrate-continue', state='pre-switchover')
    with pytest.raises(ferry.QMPError, match='no paused migration'):
        source.vm.cmd('migrate', uri=uri, resume=True)
    with pytest.raises(ferry.QMPError, match='Guest is waiting for an incoming migration'):
        destination.vm.cmd('migrate', uri=uri)
    with pytest.raises(ferry.QMPError, match='already been started'):
        destination.vm.cmd('migrate-incoming', uri=uri)
    with pytest.raises(ferry.QMPError, match='not specified'):
        source.vm.cmd('migrate-incoming', uri=uri)
    destination.vm.cmd('migrate_cancel')
    source.vm.cmd('migrate', uri=uri)
    arrived(source, destination, bytes(RAM))
    with pytest.raises(ferry.QMPError, match='paused due to previous migration'):
        source.vm.cmd('migrate', uri=uri)


# Cancelling

def second_migration(source, work, side, data):
    m.set_caps(source.vm, 'return-path', pause_before_switchover=False)
    source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 0})
    destination = side('second', '-incoming', f'unix:{work}/second')
    state = m.run_state(source.vm)
    source.vm.cmd('migrate', uri=f'unix:{work}/second')
    arrived(source, destination, data, state)


@pytest.mark.parametrize('ran', [True, False])
@pytest.mark.parametrize('when', ['setup', 'active', 'pre-switchover'])
def test_cancel_gives_the_guest_back(side, work, x509, when, ran):
    """In setup: the peer takes the connection and never answers the TLS handshake."""
    source = side('source', *creds('x509', x509['client'], 'client'), *([] if ran else ['-S']),
                  caps=['return-path', 'pause-before-switchover'])
    before = m.run_state(source.vm)
    data = source.fill(13)
    listener = socket.create_server(('127.0.0.1', 0))
    if when == 'setup':
        use_tls(source, **{'tls-hostname': 'localhost'})
        uri = f'tcp:127.0.0.1:{listener.getsockname()[1]}'
    else:
        sink = m.Sink(work / 'sink', stop_at=1 << 40)
        uri = sink.uri
    if when == 'active':
        source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 65536})
    source.vm.cmd('migrate', uri=uri)
    silent = ferry.accept(listener, source.vm) if when == 'setup' else None
    m.wait_status(source.vm, when)
    source.vm.cmd('migrate_cancel')
    assert m.wait_over(source.vm)['status'] == 'cancelled'
    listener.close()
    if silent:
        silent.close()
    assert m.run_state(source.vm) == before
    stopped = ran and when == 'pre-switchover'
    assert source.story() == {
        'setup': ['setup', 'cancelling', 'cancelled'], 'active': ['setup', 'active', 'cancelling', 'cancelled'],
        'pre-switchover': ['setup', 'active', *(['STOP'] if stopped else []), 'pre-switchover', 'cancelling',
                           *(['RESUME'] if stopped else []), 'cancelled']}[when]
    assert m.error_lines(source.vm) == []
    use_tls(source, **{'tls-creds': ''})
    second_migration(source, work, side, data)


def test_cancel_in_device_state_gives_the_guest_back(side, work):
    """The peer stops reading in the stopped guest's memory: its end has not left."""
    source = side('source', caps=['return-path', 'pause-before-switchover'])
    data = source.fill(14)
    peer = faults.Channels(work / 'proxy', work / 'first')
    side('first', '-incoming', f'unix:{work}/first').vm.expected = {0, 1}
    # Whatever remains may be sent while the guest is stopped.
    source.vm.cmd('migrate-set-parameters', {'avail-switchover-bandwidth': 1 << 50, 'downtime-limit': 2000})
    source.vm.cmd('migrate', uri=peer.uri)
    m.wait_status(source.vm, 'pre-switchover')
    source.qtest.write(0, data[:8 * ferry.MIB])     # more than sockets hold
    peer.hold.add((faults.MAIN, False))
    source.vm.cmd('migrate-continue', state='pre-switchover')
    m.wait_status(source.vm, 'device')
    assert peer.stalled.wait(60)
    source.vm.cmd('migrate_cancel')
    assert m.wait_over(source.vm)['status'] == 'cancelled'
    peer.drop()
    assert m.run_state(source.vm) == 'running'
    assert source.story()[-3:] == ['cancelling', 'RESUME', 'cancelled']
    second_migration(source, work, side, data)


def test_cancel_and_again_many_times(side, work):
    source = side('source', caps=['return-path'])
    data = source.fill(15)
    source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 1 << 20})
    for i in range(10):
        m.Sink(work / f'sink{i}', stop_at=1 << 40)
        source.vm.cmd('migrate', uri=f'unix:{work}/sink{i}')
        source.vm.cmd('migrate_cancel')
        assert m.wait_over(source.vm)['status'] == 'cancelled'
        assert m.run_state(source.vm) == 'running'
    second_migration(source, work, side, data)


# What does not fit

def refuse(source, destination, uri, cause):
    destination.vm.expected = {1}
    source.vm.cmd('migrate', uri=uri)
    info = m.wait_status(source.vm, 'failed')
    assert 'error-desc' in info
    assert destination.vm.wait_exit() == 1
    assert len(m.error_lines(destination.vm)) == 1 and cause in m.error_lines(destination.vm)[0]
    assert len(m.error_lines(source.vm)) == 1
    assert m.run_state(source.vm) == 'running'


def test_other_sizes_are_refused(side, work):
    source = side('source', caps=['return-path'])
    destination = side('destination', '-incoming', f'unix:{work}/in', ram=2 * RAM)
    refuse(source, destination, f'unix:{work}/in', 'Size mismatch')
    second_migration(source, work, side, bytes(RAM))


UUIDS = ['-uuid', '11223344-5566-7788-99aa-bbccddeeff00'], ['-uuid', '99999999-5566-7788-99aa-bbccddeeff00']


@pytest.mark.parametrize('theirs', [0, 1, None])
def test_validate_uuid(side, work, theirs):
    source = side('source', *UUIDS[0], caps=['return-path', 'validate-uuid'])
    args = [] if theirs is None else UUIDS[theirs]
    destination = side('destination', *args, '-incoming', f'unix:{work}/in')
    if theirs == 1:
        refuse(source, destination, f'unix:{work}/in', 'UUID')
        return
    source.vm.cmd('migrate', uri=f'unix:{work}/in')
    arrived(source, destination, bytes(RAM))


# Memory

def shared(path):
    return ['-object', f'memory-backend-file,id=ram0,mem-path={path},size={RAM},share=on',
            '-machine', 'memory-backend=ram0']


@pytest.mark.parametrize('both', [True, False])
def test_shared_memory_stays_where_it_is(side, work, both):
    caps = ['x-ignore-shared']
    source = side('source', *shared(work / 'mem'), caps=[*caps, 'return-path'])
    destination = side('destination', *shared(work / 'mem'), '-incoming', 'defer', caps=caps if both else [])
    destination.vm.cmd('migrate-incoming', uri=f'unix:{work}/in')
    data = source.fill(16)
    if not both:
        refuse(source, destination, f'unix:{work}/in', 'Capability x-ignore-shared is off')
        return
    source.vm.cmd('migrate', uri=f'unix:{work}/in')
    arrived(source, destination, data)
    ram = source.vm.cmd('query-migrate')['ram']
    assert ram['transferred'] < 10000 and ram['total'] == 0


def test_files_are_alike(side, work):
    source = side('source', *shared(work / 'a'), caps=['return-path'])
    destination = side('destination', *shared(work / 'b'), '-incoming', f'unix:{work}/in')
    source.fill(17)
    source.vm.cmd('migrate', uri=f'unix:{work}/in')
    assert m.wait_over(source.vm)['status'] == m.wait_over(destination.vm)['status'] == 'completed'
    assert (work / 'a').read_bytes() == (work / 'b').read_bytes()


def test_pmemsave_tells_the_same(pair, work):
    source, destination, uri = pair()
    data = source.fill(18)
    source.vm.cmd('migrate', uri=uri)
    arrived(source, destination, data)
    destination.vm.cmd('pmemsave', val=0, size=RAM, filename=str(work / 'saved'))
    assert (work / 'saved').read_bytes() == data


class Rewriter(threading.Thread):
    """Writes to a guest all the time and keeps the record."""

    def __init__(self, side, data, seed):
        super().__init__(daemon=True)
        print(f'writes: seed {seed}')
        self.qtest, self.memory, self.rng = side.qtest, bytearray(data), random.Random(seed)
        self.enough, self.started = threading.Event(), threading.Event()
        self.writes = 0
        self.start()

    def run(self):
        while not self.enough.is_set():
            size = self.rng.choice((1, 8, 100, 4096, 20000))
            at = self.rng.randrange(len(self.memory) - size)
            data = bytes(size) if self.rng.randrange(4) == 0 else self.rng.randbytes(size)
            self.qtest.write(at, data)
            self.memory[at:at + size] = data
            self.writes += 1
            if self.writes == 20:
                self.started.set()

    def stop(self):
        self.enough.set()
        self.join()
        return bytes(self.memory)


@pytest.mark.parametrize('caps', [[], ['xbzrle'], ['multifd']], ids=['plain', 'xbzrle', 'multifd'])
def test_nothing_is_lost_of_what_is_written_meanwhile(side, work, caps):
    source = side('source', caps=['return-path', 'pause-before-switchover', *caps])
    destination = side('destination', '-incoming', 'defer', caps=[c for c in caps if c == 'multifd'])
    destination.vm.cmd('migrate-incoming', uri=f'unix:{work}/in')
    source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 20 * ferry.MIB, 'downtime-limit': 0})
    writer = Rewriter(source, source.fill(19), 20)
    assert writer.started.wait(60)
    source.vm.cmd('migrate', uri=f'unix:{work}/in')
    guard = ferry.Guard(60)
    while (info := source.vm.cmd('query-migrate'))['status'] != 'pre-switchover' and \
            info.get('ram', {}).get('dirty-sync-count', 0) < 4:
        guard.left()
    source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 0, 'downtime-limit': 2000})
    m.wait_status(source.vm, 'pre-switchover')      # the guest is stopped, and so is its stand-in
    expected = writer.stop()
    source.vm.cmd('migrate-continue', state='pre-switchover')
    arrived(source, destination, expected)
    print(f'{writer.writes} writes')


def test_there_and_back_again(side, work):
    """The same guest moves five times, and is written to at each stop."""
    here = side('guest0', caps=['return-path'])
    data = bytearray(here.fill(21))
    for i in range(1, 6):
        there = side(f'guest{i}', '-incoming', f'unix:{work}/in{i}', caps=['return-path'])
        piece = random.Random(i).randbytes(300000)
        here.qtest.write(i << 20, piece)
        data[i << 20:(i << 20) + len(piece)] = piece
        here.vm.cmd('migrate', uri=f'unix:{work}/in{i}')
        arrived(here, there, bytes(data))
        here.vm.quit()
        here = there


def test_the_guest_can_be_taken_back_and_sent_again(side, work):
    """`cont` on the source of a completed migration is the user's word that the copy is void."""
    source = side('source', caps=['return-path'])
    data = source.fill(22)
    first = side('first', '-incoming', f'unix:{work}/first')
    source.vm.cmd('migrate', uri=f'unix:{work}/first')
    arrived(source, first, data)
    first.vm.kill()
    source.vm.cmd('cont')
    source.qtest.write(0, b'after')
    second_migration(source, work, side, b'after' + data[5:])


def test_command_words_with_blanks(side, work):
    folder = work / 'a folder'
    folder.mkdir()
    source = side('source')
    source.vm.cmd('migrate', uri=f'exec:cat > {shlex.quote(str(folder / "x"))}')
    assert m.wait_over(source.vm)['status'] == 'completed'
    assert m.read_stream(folder / 'x').blocks == {'ram': RAM}
