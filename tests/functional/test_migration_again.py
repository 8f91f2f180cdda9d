# SPDX-License-Identifier: GPL-2.0-or-later
"""A source that begins once more, before the destination has given up its first connection, gets its guest over.

The destination is stopped (SIGSTOP) while the first connection ends and the next one is made. So it finds both when it
goes on, however fast the machine is.
"""
import select
import signal

import pytest

from ferry import faults
from ferry import migration as m
from ferry import tls

USER, KEY = 'ferry', '00112233445566778899aabbccddeeff'
MULTIFD = ['multifd', 'return-path']
PLAIN = ['return-path']


@pytest.fixture
def mover(vmm, work):
    def start(caps, encrypted=False):
        params = {'max-bandwidth': 0, 'multifd-channels': 2}
        args = {}
        if encrypted:
            tls.psk_creds(work / 'psk', **{USER: KEY})
            creds = f'tls-creds-psk,id=tls0,dir={work}/psk'
            params['tls-creds'] = 'tls0'
            args = {'source_args': ['-object', f'{creds},endpoint=client,username={USER}'],
                    'destination_args': ['-object', f'{creds},endpoint=server']}
        return faults.Mover(vmm, work, caps, params=params, **args)
    return start


class Stopped:
    """The process stands while this is entered."""

    def __init__(self, vm):
        self.vm = vm

    def __enter__(self):
        self.vm.process.send_signal(signal.SIGSTOP)

    def __exit__(self, *args):
        self.vm.process.send_signal(signal.SIGCONT)


def begin_again(mover):
    """`migrate` while the destination stands; returns when the connection has been made and something was sent."""
    again = faults.Channels(mover.work / 'again', mover.where)
    mover.source.vm.cmd('migrate', uri=again.uri)
    again.wait_known()
    return again


def arrives(mover):
    assert m.wait_over(mover.source.vm)['status'] == 'completed'
    assert mover.destination_is_over() == 'completed'
    assert m.run_state(mover.source.vm) == 'postmigrate' and m.run_state(mover.destination.vm) == 'running'
    assert mover.destination.memory() == mover.data
    assert mover.source.new_errors() == []
    assert [line for line in mover.destination.new_errors() if 'a peer was turned away' not in line] == []


@pytest.mark.parametrize('encrypted', [False, True], ids=['plain', 'tls'])
@pytest.mark.parametrize('caps, held', [
    (MULTIFD, {(1, False): (0, 'stall'), (2, False): (0, 'stall')}),    # the main channel is there, the others are not
    (MULTIFD, {(2, False): (0, 'stall')}),                              # one of the others is there too
    (PLAIN, {(faults.MAIN, False): (3, 'stall')}),                      # not enough to know the first connection
], ids=['multifd', 'multifd-half', 'one'])
def test_a_cancelled_source_begins_again(mover, caps, held, encrypted):
    one = mover(caps, encrypted)
    first = one.start(held)
    assert first.stalled.wait(m.LIMIT_S)
    if faults.MAIN not in [link for link, _ in held]:
        first.wait_known()
    with Stopped(one.destination.vm):
        one.source.vm.cmd('migrate_cancel')
        assert m.wait_over(one.source.vm)['status'] == 'cancelled'
        first.close()
        again = begin_again(one)
    arrives(one)
    again.close()


def says_header(where):
    return m.unix_connect(where, m.header()[:faults.KNOWN])


def taken_and_turned_away(where):
    """Of two main channels one is taken; the other is closed, and then the destination has had both."""
    conns = [says_header(where), says_header(where)]
    ready, _, _ = select.select(conns, [], [], m.LIMIT_S)
    assert len(ready) == 1 and ready[0].recv(1) == b''
    conns.remove(ready[0])
    return conns[0], ready[0]


@pytest.mark.parametrize('known', [True, False], ids=['taken', 'found-dead'])
def test_another_source_follows_one_that_died(mover, known):
    """The first one says that it is a source, and ends: after it was taken, or before the destination has looked."""
    one = mover(MULTIFD)
    where = one.listen()
    if known:
        dead, second = taken_and_turned_away(where)
        second.close()
        assert 'a second main channel was turned away' in one.destination.vm.stderr()
    with Stopped(one.destination.vm):
        if not known:
            dead = says_header(where)
        dead.close()
        again = begin_again(one)
    arrives(one)
    again.close()


def test_a_dead_channel_of_an_earlier_attempt_does_not_count_for_the_next(mover):
    """Its main channel never came. The next source's main channel is younger than it."""
    one = mover(MULTIFD)
    where = one.listen()
    with Stopped(one.destination.vm):
        m.unix_connect(where, m.be32(0x11223344) + m.be32(1) + bytes(16) + bytes([0]) + bytes(39)).close()
        again = begin_again(one)
    arrives(one)
    again.close()
