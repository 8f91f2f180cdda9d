# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever breaks on one of multifd's connections, or on the main one meanwhile, the guest is on exactly one side, and
can go another time."""
import fcntl
import io
import os
import socket
import termios
import threading

import pytest

import ferry
from ferry import faults
from ferry import migration as m

HANDSHAKE, HEADER = 64, 1344
# Bytes of an extra channel: its handshake, the SYNC packet behind the list of blocks, a packet with pages.
PLACES = {'handshake': 20, 'first-sync': HANDSHAKE, 'in-first-sync': HANDSHAKE + 700,
          'header': HANDSHAKE + HEADER + 600, 'page': HANDSHAKE + 2 * HEADER + 3 * m.PAGE + 100}
COMPRESSED = {'handshake': 20, 'in-first-sync': HANDSHAKE + 700, 'page': HANDSHAKE + 2 * HEADER + 1000}
PER_ROUND = ['-global', 'migration.multifd-flush-after-each-section=off']
CAPS = ('multifd', 'return-path')


@pytest.fixture
def mover(vmm, work):
    return lambda caps=CAPS, **options: faults.Mover(vmm, work, caps, **options)


def unlimited(channels=2, **more):
    return {'multifd-channels': channels, 'max-bandwidth': 0, **more}


def params_for(how, channels=2, **more):
    """A reset takes TCP, whose buffers would hold the whole guest: it leaves slowly."""
    slow = {'max-bandwidth': 8 * ferry.MIB, 'downtime-limit': 50} if how == 'reset' else {}
    return unlimited(channels, **{**slow, **more})


def break_one(mover, link, at, how, back=False):
    """One migration that breaks there; returns the side that has the guest."""
    channels = mover.start({(link, back): (at, 'stall' if how == 'stall' else how)})
    if how == 'stall':
        guard = ferry.Guard(m.LIMIT_S)
        while not channels.stalled.is_set() and faults.status_of(mover.source.vm) not in m.OVER:
            guard.left()
        if channels.stalled.is_set():
            channels.wait_known()
            assert m.run_state(mover.destination.vm) == 'inmigrate'
            assert m.wait_status(mover.source.vm, 'setup', 'active', 'device')
            channels.drop()
    else:
        m.wait_over(mover.source.vm)
    where = mover.outcome()
    assert channels.broken.is_set() or where == 'there'
    return where


# An extra channel breaks

@pytest.mark.parametrize('how', ['cut', 'reset', 'stall'])
@pytest.mark.parametrize('link', [1, 2])
def test_a_channel_breaks(mover, link, how):
    one = mover(params=params_for(how), tcp=how == 'reset')
    for at in PLACES.values():
        assert break_one(one, link, at, how) == 'here'
    one.finish()


@pytest.mark.parametrize('what', ['zlib', 'zstd', 'no-return-path', 'per-round', 'zero-pages', 'stopped'])
def test_a_channel_of_another_kind_breaks(mover, what):
    options = {'zlib': {'params': unlimited(**{'multifd-compression': 'zlib'})},
               'zstd': {'params': unlimited(**{'multifd-compression': 'zstd'})},
               'no-return-path': {'caps': ['multifd']},
               'per-round': {'source_args': PER_ROUND, 'destination_args': PER_ROUND},
               'zero-pages': {'params': unlimited(**{'zero-page-detection': 'multifd'})},
               'stopped': {'running': False}}[what]
    one = mover(**{'params': unlimited(), **options})
    for at in (COMPRESSED if what in ('zlib', 'zstd') else PLACES).values():
        for link, how in ((1, 'cut'), (2, 'reset')):
            assert break_one(one, link, at, how) == 'here'
    one.finish()


@pytest.mark.slow
@pytest.mark.parametrize('how', ['cut', 'reset', 'stall'])
@pytest.mark.parametrize('per_round', [False, True])
@pytest.mark.parametrize('return_path', [True, False])
@pytest.mark.parametrize('compression', ['none', 'zlib', 'zstd'])
def test_any_channel_breaks_anywhere(mover, compression, return_path, per_round, how):
    """
    One of three channels may have nothing to do, and come to its end. A source that hears nothing may have given all of
    it to the kernel before.
    """
    args = PER_ROUND if per_round else []
    possible = ('here', 'there') if return_path else ('here', 'there', 'unknown')
    one = mover(CAPS if return_path else ['multifd'], params=params_for(how, 3, **{'multifd-compression': compression}),
                source_args=args, destination_args=args, tcp=how == 'reset')
    for link in (1, 2, 3):
        for at in (COMPRESSED if compression != 'none' else PLACES).values():
            assert break_one(one, link, at, how) in possible
    one.finish()


def test_the_last_barrier_breaks(mover):
    """Where the last SYNC packet of the only channel is, is known from a whole run; with barriers a round, not a section,
    there are as many each time."""
    one = mover(params=unlimited(1), source_args=PER_ROUND, destination_args=PER_ROUND)
    one.start()
    assert one.outcome() == 'there'
    total = one.channels.links[1].count[False]
    for at, how in ((total - HEADER, 'cut'), (total - 700, 'cut'), (total - 700, 'reset'), (total - 1, 'cut')):
        assert break_one(one, 1, at, how) == 'here'
    # whether the end of the main channel is on its way when the connections end is a matter of time
    assert break_one(one, 1, total - 1, 'stall') in ('here', 'unknown')
    one.finish()


# The main one breaks

def main_places(channels):
    record = io.BytesIO(bytes(channels.links[faults.MAIN].record))
    places = {}
    for at, what in m.StreamReader(lambda: record.read(1 << 16)).run().marks:
        places.setdefault(what, at)
    return places


@pytest.mark.parametrize('how', ['cut', 'reset', 'stall'])
def test_the_main_channel_breaks(mover, how):
    one = mover(params=unlimited())
    one.start()
    assert one.outcome() == 'there'
    seen = set()
    for what, at in main_places(one.channels).items():
        if what == 'end':
            continue        # everything has gone then
        at += 5 if what == 'header' else 1      # with fewer bytes it is not known for a source
        seen.add((what, break_one(one, faults.MAIN, at, how)))
    assert {('header', 'here'), ('start ram', 'here'), ('description', 'unknown')} <= seen
    one.finish()


@pytest.mark.parametrize('at, expected', [(0, {'here'}), (3, {'here'}), (8, {'there'}), (12, {'there'})])
def test_the_return_path_breaks(mover, at, expected):
    """PONG is bytes 0 to 7; the verdict, 8 to 15, comes when the guest has arrived."""
    one = mover(params=unlimited())
    channels = one.start({(faults.MAIN, True): (at, 'stall')})
    assert channels.stalled.wait(m.LIMIT_S)
    channels.wait_known()
    if at >= 8:
        assert one.destination_is_over() == 'completed'
    channels.drop()
    assert one.outcome() in expected | {'there'}
    one.finish()


# A destination that waits for channels, and does not read the main one

def waiting_destination(vmm, work, channels=2):
    vm = vmm(*faults.MACHINE, '-incoming', 'defer', defaults=False)
    m.set_caps(vm, 'multifd')
    vm.cmd('migrate-set-parameters', {'multifd-channels': channels})
    vm.cmd('migrate-incoming', {'uri': f'unix:{work}/in', 'exit-on-error': False})
    return vm


def connect(work):
    conn = socket.socket(socket.AF_UNIX)
    conn.connect(f'{work}/in')
    return conn


def handshake(channel):
    return m.be32(0x11223344) + m.be32(1) + bytes(16) + bytes([channel]) + bytes(39)


def until_refused(work):
    guard = ferry.Guard(m.LIMIT_S)
    try:
        while guard.left():
            connect(work).close()
    except OSError:
        pass


def fails_and_can_wait_again(vm, work, cause):
    info = m.wait_status(vm, 'failed')
    assert cause in info['error-desc']
    assert len(m.error_lines(vm)) == 1 and info['error-desc'] in m.error_lines(vm)[0]
    until_refused(work)     # a source must not believe that the destination waits for it
    m.set_caps(vm, multifd=False)
    vm.cmd('migrate-incoming', {'uri': f'unix:{work}/again', 'exit-on-error': False})
    again = socket.socket(socket.AF_UNIX)
    again.connect(f'{work}/again')
    again.sendall(m.joined(m.base()))
    m.wait_status(vm, 'completed')
    again.close()


@pytest.mark.parametrize('said', [m.header(), m.joined(m.base()) + bytes(100000)], ids=['header', 'everything'])
@pytest.mark.parametrize('half', [True, False])
@pytest.mark.parametrize('others', [0, 1])
def test_a_source_that_goes_before_all_channels_are_there(vmm, work, said, half, others):
    vm = waiting_destination(vmm, work)
    main = connect(work)
    main.sendall(said)
    more = [connect(work) for _ in range(others)]
    for i, conn in enumerate(more):
        conn.sendall(handshake(i))
    if half:
        main.shutdown(socket.SHUT_WR)
    else:
        main.close()
    fails_and_can_wait_again(vm, work, 'closed the main channel before all channels of multifd were there')
    for conn in [main, *more]:
        conn.close()


@pytest.mark.parametrize('said, cause', [
    (handshake(0), 'channel 0: the source has closed it too early'), (handshake(9), 'received channel id 9'),
    (handshake(0) + bytes(HEADER), 'multifd channel 0: ')], ids=['handshake', 'id', 'packet'])
def test_an_extra_channel_that_goes_before_all_are_there(vmm, work, said, cause):
    """The main one stays open and says nothing."""
    vm = waiting_destination(vmm, work)
    main = connect(work)
    main.sendall(m.header())
    extra = connect(work)
    extra.sendall(said)
    extra.close()
    fails_and_can_wait_again(vm, work, cause)
    main.close()


@pytest.mark.parametrize('said', [b'', b'QEV'])
def test_a_main_channel_that_breaks_before_it_is_known(vmm, work, said):
    """The extra channel was there first."""
    vm = waiting_destination(vmm, work)
    extra = connect(work)
    extra.sendall(handshake(0))
    main = connect(work)
    main.sendall(said)
    main.close()
    extra.close()
    fails_and_can_wait_again(vm, work, 'channel 0: the source has closed it too early')


SYNC = m.be32(0x11223344) + m.be32(1) + m.be32(1) + bytes(HEADER - 12)


def reads_no_more(conn):
    """The destination has read all of it; the channel's thread stands at the barrier."""
    guard = ferry.Guard(m.LIMIT_S)
    while int.from_bytes(fcntl.ioctl(conn, termios.TIOCOUTQ, bytes(4)), 'little'):
        guard.left()


@pytest.mark.parametrize('main_says', [None, b'', b'QEV', m.header()], ids=['absent', 'nothing', 'little', 'header'])
@pytest.mark.parametrize('main_first', [True, False])
@pytest.mark.parametrize('ends', ['extra', 'both'])
def test_a_source_that_goes_while_its_channel_waits_at_a_barrier(vmm, work, main_says, main_first, ends):
    """The channel's thread reads nothing there, so it does not see the end."""
    vm = waiting_destination(vmm, work)
    conns = {}

    def connects(what):
        if what == 'extra' or main_says is not None:
            conns[what] = connect(work)
            conns[what].sendall(handshake(0) + SYNC if what == 'extra' else main_says)
    for what in (['main', 'extra'] if main_first else ['extra', 'main']):
        connects(what)
    reads_no_more(conns['extra'])
    for what in ('main', 'extra') if ends == 'both' else ('extra',):
        if what in conns:
            conns[what].close()
    fails_and_can_wait_again(vm, work, 'closed')
    for conn in conns.values():
        conn.close()


class DeafDestination:
    """Takes all connections, reads what they say, and never answers."""

    def __init__(self, path):
        self.listener = m.unix_listener(path)
        self.conns = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            conn = self.listener.accept()[0]
            self.conns.append(conn)
            threading.Thread(target=self._read, args=(conn,), daemon=True).start()

    def _read(self, conn):
        faults.quiet(lambda: all(iter(lambda: conn.recv(1 << 16), b'')))


@pytest.mark.parametrize('link', [1, 2])
def test_a_destination_that_closes_a_channel_to_which_nothing_is_sent(vmm, work, link):
    """No page is left to be sent, so no thread of the source would notice."""
    vm = vmm(*faults.MACHINE, defaults=False)
    m.set_caps(vm, *CAPS)
    vm.cmd('migrate-set-parameters', {'multifd-channels': 2})
    there = DeafDestination(work / 'deaf')
    vm.cmd('migrate', uri=f'unix:{work}/deaf')
    guard = ferry.Guard(m.LIMIT_S)
    while vm.cmd('query-migrate').get('ram', {}).get('dirty-sync-count', 0) < 4:
        guard.left()
    there.conns[link].shutdown(socket.SHUT_RDWR)
    assert 'the destination has closed it' in m.wait_status(vm, 'failed')['error-desc']
    assert m.run_state(vm) == 'running'


def test_yank_ends_the_wait_at_a_barrier(mover):
    """Everything has come but what one channel brings."""
    one = mover(params=unlimited())
    channels = one.start({(1, False): (HANDSHAKE + 700, 'stall')})
    assert channels.stalled.wait(m.LIMIT_S)
    m.wait_status(one.destination.vm, 'active')
    one.destination.vm.cmd('yank', instances=[{'type': 'migration'}])
    assert 'cut by yank' in m.wait_status(one.destination.vm, 'failed')['error-desc']
    channels.drop()
    assert one.outcome() == 'here'
    one.finish()


def test_a_channel_that_ends_while_the_main_one_is_silent(mover):
    """Before the first barrier it is seen at once."""
    one = mover(params=unlimited())
    channels = one.start({(faults.MAIN, False): (60, 'stall'), (1, False): (HANDSHAKE, 'stall')})
    assert channels.stalled.wait(m.LIMIT_S)
    m.wait_status(one.destination.vm, 'active')
    channels.break_link(channels.links[1], 'cut')
    assert 'the source has closed it too early' in m.wait_status(one.destination.vm, 'failed')['error-desc']
    channels.drop()
    assert one.outcome() == 'here'
    one.finish()


@pytest.mark.parametrize('when', [pytest.param('barrier', marks=pytest.mark.slow), 'pause'])
def test_a_channel_that_ends_while_nothing_comes(mover, when):
    """The destination gives up after some seconds, and the source hears of it."""
    one = mover((*CAPS, 'pause-before-switchover'), params=unlimited())
    if when == 'pause':
        channels = one.start()
        sent = m.wait_status(one.source.vm, 'pre-switchover')['ram']['multifd-bytes']
        guard = ferry.Guard(m.LIMIT_S)
        while sum(link.count[False] for link in channels.links[1:]) < sent:
            guard.left()
    else:       # the channel waits there, and reads nothing
        channels = one.start({(faults.MAIN, False): (60, 'stall'), (1, False): (HANDSHAKE + HEADER, 'stall')})
        assert channels.stalled.wait(m.LIMIT_S)
        m.wait_status(one.destination.vm, 'active')
    channels.break_link(channels.links[1], 'cut')
    info = m.wait_status(one.destination.vm, 'failed')
    # whether the barrier was waited for already is a matter of time
    nothing = ', and nothing comes on the main one' if when == 'pause' else ''
    assert f'the source has closed it too early{nothing}' in info['error-desc']
    if when == 'barrier':
        channels.drop()
    assert one.outcome() == 'here'
    m.set_caps(one.source.vm, pause_before_switchover=False)
    one.finish()


# Both sides must agree

def hears_of_missing_channels(vm, come, wanted):
    """The destination waits for more, and says after a while what may be wrong."""
    guard = ferry.Guard(m.LIMIT_S)
    while f'multifd: {come} of {wanted} channels have come so far' not in vm.stderr():
        assert vm.cmd('query-migrate')['status'] == 'setup'
        guard.left()


@pytest.mark.parametrize('source, destination, causes', [
    ({'caps': ['return-path']}, {}, None),
    ({}, {'caps': ['return-path']}, ('connect', 'channel', 'Broken pipe', 'reset', 'went away')),
])
def test_multifd_at_one_side_only(mover, source, destination, causes):
    """Either waits for what the other does not say, until the migration is cancelled, or is told."""
    one = mover(params=unlimited())
    one.new_destination()
    for side, options in ((one.source, source), (one.destination, destination)):
        if 'caps' in options:
            m.set_caps(side.vm, multifd=False)
    if causes:
        one.start()
        assert one.outcome(source_causes=causes) == 'here'
    else:
        one.source.vm.cmd('migrate', uri=f'unix:{one.listen()}')
        m.wait_status(one.source.vm, 'active', 'device')
        hears_of_missing_channels(one.destination.vm, 0, 2)
        one.source.vm.cmd('migrate_cancel')
        assert m.wait_over(one.source.vm)['status'] == 'cancelled'
        assert m.run_state(one.source.vm) == 'running'
        one.destination_failed(False, ['before all channels'])
    for side in (one.source, one.destination):
        m.set_caps(side.vm, 'multifd')
    one.finish()


@pytest.mark.parametrize('here, there', [(2, 3), (3, 2)])
def test_different_numbers_of_channels(mover, here, there):
    one = mover(source_params=unlimited(here), destination_params=unlimited(there))
    one.start()
    if here < there:
        m.wait_status(one.source.vm, 'active', 'device')
        hears_of_missing_channels(one.destination.vm, here, there)
        one.source.vm.cmd('migrate_cancel')
        assert m.wait_over(one.source.vm)['status'] == 'cancelled'
        one.destination_failed(False, ['before all channels', 'closed it too early'])    # whichever it sees first
    else:
        assert one.outcome() == 'here'
    for side in (one.source, one.destination):
        side.vm.cmd('migrate-set-parameters', {'multifd-channels': 4})
    one.finish()


def test_another_compression(mover):
    one = mover(source_params=unlimited(**{'multifd-compression': 'zstd'}),
                destination_params=unlimited(**{'multifd-compression': 'zlib'}))
    one.start()
    assert one.outcome(destination_causes=['packet compressed by method']) == 'here'
    one.destination.vm.cmd('migrate-set-parameters', {'multifd-compression': 'zstd'})
    one.finish()


def test_another_uuid(mover):
    one = mover(params=unlimited(), source_args=['-uuid', '11223344-5566-7788-99aa-bbccddeeff00'])
    one.start()
    assert one.outcome(destination_causes=['UUID']) == 'here'
    one.destination.vm.quit()
    one.destination_args = ['-uuid', '11223344-5566-7788-99aa-bbccddeeff00']
    one.destination = None
    one.finish()


def test_broken_channels_leave_nothing_behind(mover):
    """Threads and descriptors of a migration that failed are gone when the next one begins."""
    one = mover(params=unlimited())

    def held():
        return [len(os.listdir(f'/proc/{side.vm.pid}/{what}')) for side in (one.source, one.destination)
                for what in ('fd', 'task')]
    for i in range(6):
        assert break_one(one, 1, PLACES['page'], 'cut') == 'here'
        if i == 1:
            first = held()
    assert all(now <= then + 2 for then, now in zip(first, held()))
    one.finish()
