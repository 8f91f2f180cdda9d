# SPDX-License-Identifier: GPL-2.0-or-later
"""The port of a destination is open to all: what connects to it and is no source keeps none out, and ends nothing."""
import fcntl
import struct
import termios

import pytest

import ferry
from ferry import migration as m
from ferry import tls

MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults', '-m', '16M']
IDLE = 150


def destination(vmm, work, caps=(), creds=None, args=()):
    vm = vmm(*MACHINE, *args, '-incoming', 'defer', defaults=False, name='destination')
    m.set_caps(vm, *caps)
    if creds:
        vm.cmd('object-add', {'qom-type': 'tls-creds-psk', 'id': 'tls', 'dir': str(creds), 'endpoint': 'server'})
        vm.cmd('migrate-set-parameters', {'tls-creds': 'tls'})
    vm.cmd('migrate-incoming', uri=f'unix:{work}/in')
    return vm


def source(vmm, caps=(), creds=None):
    vm = vmm(*MACHINE, defaults=False, name='source')
    m.set_caps(vm, *caps)
    if creds:
        vm.cmd('object-add', {'qom-type': 'tls-creds-psk', 'id': 'tls', 'dir': str(creds), 'endpoint': 'client',
                              'username': 'alice'})
        vm.cmd('migrate-set-parameters', {'tls-creds': 'tls'})
    return vm


def connect(work, said=b''):
    return m.unix_connect(f'{work}/in', said)


def goes_over(vmm, work, there, caps=(), creds=None):
    here = source(vmm, caps, creds)
    here.cmd('migrate', uri=f'unix:{work}/in')
    assert m.wait_over(here)['status'] == 'completed'
    assert m.wait_over(there)['status'] == 'completed'


@pytest.mark.parametrize('caps', [[], ['multifd', 'return-path']], ids=['plain', 'multifd'])
def test_a_port_scan_changes_nothing(vmm, work, caps):
    there = destination(vmm, work, caps)
    for said in (b'', b'Q', b'GET / HTTP/1.0\r\n\r\n', m.be32(0x11223344) + b'\0', b'\x16\x03\x01'):
        conn = connect(work, said)
        conn.close()
    conn = connect(work, b'SSH-')
    assert conn.recv(1) == b''      # told to go
    assert there.cmd('query-migrate')['status'] == 'setup'
    goes_over(vmm, work, there, caps)


@pytest.mark.parametrize('caps', [[], ['multifd', 'return-path']], ids=['plain', 'multifd'])
@pytest.mark.parametrize('encrypted', [False, True])
def test_idle_connections_keep_no_source_out(vmm, work, caps, encrypted):
    creds = None
    if encrypted:
        creds = work / 'psk'
        tls.psk_creds(creds, alice='00112233445566778899aabbccddeeff')
    there = destination(vmm, work, caps, creds)
    idle = [connect(work) for _ in range(IDLE)]
    assert idle[0].recv(1) == b''       # the oldest went to make room
    goes_over(vmm, work, there, caps, creds)


def asks_without_end(work):
    """A peer that sends PINGs until no more are read, because their answers are not; how many answers fit."""
    conn = connect(work, m.header() + m.configuration() + m.command(m.OPEN_RETURN_PATH))
    conn.settimeout(1)
    with pytest.raises(TimeoutError):
        while True:
            conn.sendall(m.command(m.PING, m.be32(1)) * 1000)
    unread = struct.unpack('i', fcntl.ioctl(conn, termios.FIONREAD, bytes(4)))[0]
    return conn, unread // 8


def cut_by_yank(vm):
    vm.expected = {1}
    vm.cmd('yank', instances=[{'type': 'migration'}])
    assert vm.wait_exit() == 1
    assert 'cut by yank' in m.error_lines(vm)[0]


def test_answers_that_are_not_read_freeze_nothing(vmm, work):
    """The destination waits for room for its answers, its monitor does not, and yank ends the wait."""
    there = destination(vmm, work)
    conn, _ = asks_without_end(work)
    assert there.cmd('query-migrate')['status'] == 'active'
    cut_by_yank(there)
    conn.close()


def answers_that_fit(vmm, work):
    measured = destination(vmm, work)
    conn, room = asks_without_end(work)
    cut_by_yank(measured)
    conn.close()
    return room


def sends_all_and_reads_nothing(work, room):
    """The destination loads the guest, and then cannot say so."""
    conn = connect(work, m.header() + m.configuration() + m.command(m.OPEN_RETURN_PATH) +
                   m.command(m.PING, m.be32(1)) * room)
    pieces = {**m.base(), 'start': m.ram_start([('ram', 16 * ferry.MIB)])}
    conn.sendall(m.joined({name: piece for name, piece in pieces.items() if name not in ('header', 'configuration')}))
    return conn


@pytest.mark.parametrize('yank', [True, False])
def test_a_verdict_that_is_not_read_is_given_up(vmm, work, yank):
    """
    The answers fill the socket, then the whole guest comes: the monitor goes on, and the guest does not start, for its
    source cannot be told to let go of it.
    """
    room = answers_that_fit(vmm, work)
    there = destination(vmm, work)
    conn = sends_all_and_reads_nothing(work, room)
    m.wait_status(there, 'active')
    assert m.run_state(there) == 'inmigrate'
    if yank:
        cut_by_yank(there)
    else:
        there.expected = {1}
        assert there.wait_exit() == 1
        assert 'before it could be told' in m.error_lines(there)[0]
    conn.close()


@pytest.mark.parametrize('late', [True, False])
def test_cont_holds_until_the_guest_starts(vmm, work, late):
    """
    The destination has decided that the guest stays paused here (its disk shows it) and waits for the source to be told.
    """
    room = answers_that_fit(vmm, work)
    caps = ['late-block-activate'] if late else []
    there = destination(vmm, work, caps, args=['-S', '-blockdev', 'null-co,node-name=disk'])
    conn = sends_all_and_reads_nothing(work, room)
    guard = ferry.Guard(m.LIMIT_S)
    while not late and not there.cmd('query-named-block-nodes')[0]['active']:
        guard.left()
    m.wait_status(there, 'active')
    there.cmd('cont')
    assert m.run_state(there) == 'inmigrate'
    while conn.recv(65536):
        pass
    assert m.wait_over(there)['status'] == 'completed'
    assert m.run_state(there) == 'running'
    assert there.cmd('query-named-block-nodes')[0]['active']
    conn.close()
