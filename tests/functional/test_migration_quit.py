# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that is told to end does so in every status of a migration, on both sides, with status 0."""
import signal
import socket

import pytest

import ferry
from ferry import migration as m

MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults', '-m', '16M']
RAM = 16 * ferry.MIB
HOW = ['quit', 'SIGTERM', 'SIGINT']
BLOCKS = [('ram', RAM)]


def end(vm, how):
    """It ends by itself and says nothing but what it must."""
    if how == 'quit':
        vm.quit()
    else:
        vm.process.send_signal(getattr(signal, how))
    assert vm.wait_exit() == 0, vm.describe()
    vm.close()


def handshake(channel):
    return m.be32(0x11223344) + m.be32(1) + bytes(16) + bytes([channel]) + bytes(39)


def sync_packet():
    return m.be32(0x11223344) + m.be32(1) + m.be32(1) + bytes(1344 - 12)


class Waiting:
    """A destination, and connections to it that stay open."""

    def __init__(self, vmm, work, caps=(), listen=True):
        self.vm = vmm(*MACHINE, '-incoming', 'defer', defaults=False, name='destination')
        self.path = f'{work}/in'
        self.conns = []
        m.set_caps(self.vm, *caps)
        if listen:
            self.vm.cmd('migrate-incoming', {'uri': f'unix:{self.path}', 'exit-on-error': False})

    def connect(self, said=b''):
        conn = socket.socket(socket.AF_UNIX)
        conn.connect(self.path)
        conn.sendall(said)
        self.conns.append(conn)
        return conn

    def read_so_far(self):
        """What was sent has been read: the answer to a PING."""
        conn = self.conns[0]
        conn.sendall(m.command(m.PING, m.be32(7)))
        conn.settimeout(m.LIMIT_S)
        while b'\0\0\0\x07' not in conn.recv(64):
            pass


START = m.header() + m.configuration()
OPEN = m.command(m.OPEN_RETURN_PATH)


def dst_none(vmm, work):
    return Waiting(vmm, work, listen=False)


def dst_setup(vmm, work):
    return Waiting(vmm, work)


def dst_setup_with_silent_peers(vmm, work):
    one = Waiting(vmm, work)
    for said in (b'', b'QE', m.be32(0x11223344)):
        one.connect(said)
    return one


def dst_setup_with_some_channels(vmm, work):
    one = Waiting(vmm, work, ['multifd'])
    one.connect(m.header())
    one.connect(handshake(1))
    return one


def dst_active(vmm, work):
    one = Waiting(vmm, work)
    one.connect(START + OPEN)
    one.read_so_far()
    return one


def dst_active_in_memory(vmm, work):
    one = dst_active(vmm, work)
    one.conns[0].sendall(m.ram_start(BLOCKS) + b'\x02' + m.be32(7) + m.page(0, b'\1' * m.PAGE, 'ram')[:1000])
    m.wait_status(one.vm, 'active')
    return one


def dst_active_without_return_path(vmm, work):
    one = Waiting(vmm, work)
    one.connect(START)
    m.wait_status(one.vm, 'active')
    return one


def dst_active_at_a_barrier(vmm, work):
    """One channel has met it, the other one has not."""
    one = Waiting(vmm, work, ['multifd'])
    one.connect(START + OPEN)
    one.connect(handshake(0) + sync_packet())
    one.connect(handshake(1))
    one.read_so_far()
    one.conns[0].sendall(m.ram_start(BLOCKS))
    return one


def dst_active_with_an_unread_return_path(vmm, work):
    """The destination waits for room to answer."""
    one = Waiting(vmm, work)
    one.connect(START + OPEN)
    flood(one.conns[0])
    m.wait_status(one.vm, 'active')
    return one


def flood(conn):
    """PINGs until no more of them are read, because the answers are not."""
    conn.settimeout(1)
    try:
        while True:
            conn.sendall(m.command(m.PING, m.be32(1)) * 1000)
    except TimeoutError:
        pass


def dst_failed(vmm, work):
    one = Waiting(vmm, work)
    one.connect(m.header(version=9))
    m.wait_status(one.vm, 'failed')
    return one


def dst_completed(vmm, work):
    one = Waiting(vmm, work)
    pieces = m.base()
    pieces['start'] = m.ram_start(BLOCKS)
    one.connect(m.joined(pieces))
    m.wait_status(one.vm, 'completed')
    return one


DESTINATIONS = [dst_none, dst_setup, dst_setup_with_silent_peers, dst_setup_with_some_channels, dst_active,
                dst_active_in_memory, dst_active_without_return_path, dst_active_at_a_barrier,
                dst_active_with_an_unread_return_path, dst_failed, dst_completed]


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('status', DESTINATIONS, ids=lambda f: f.__name__)
def test_a_destination_ends_when_it_is_told_to(vmm, work, status, how):
    one = status(vmm, work)
    end(one.vm, how)
    assert not [line for line in m.error_lines(one.vm) if 'terminating on signal' not in line] or status is dst_failed


# The source

def leaving(vmm, caps=(), **params):
    vm = vmm(*MACHINE, '-accel', 'qtest', defaults=False, name='source')
    m.set_caps(vm, 'events', *caps)
    vm.cmd('migrate-set-parameters', {'zero-page-detection': 'none', 'max-bandwidth': 0, **params})
    return vm


def source_connects(vmm, work):
    """A listener whose queue is full."""
    listener = m.unix_listener(f'{work}/full')
    listener.listen(0)
    queued = []
    while True:
        conn = socket.socket(socket.AF_UNIX)
        conn.setblocking(False)
        queued.append(conn)
        if conn.connect_ex(f'{work}/full'):
            break
    vm = leaving(vmm)
    vm.cmd('migrate', uri=f'unix:{work}/full')
    m.wait_status(vm, 'setup')
    return vm, [listener, *queued]


def source_sends(vmm, work):
    listener = m.unix_listener(f'{work}/deaf')
    vm = leaving(vmm)
    vm.cmd('migrate', uri=f'unix:{work}/deaf')
    m.wait_status(vm, 'active')
    return vm, listener


def source_pauses(vmm, work):
    sink = m.Sink(work / 'sink')
    vm = leaving(vmm, ['pause-before-switchover'])
    vm.cmd('migrate', uri=sink.uri)
    m.wait_status(vm, 'pre-switchover')
    return vm, sink


def source_awaits_the_verdict(vmm, work):
    sink = m.Sink(work / 'sink', verdict=None, close=False)
    vm = leaving(vmm, ['return-path'])
    vm.cmd('migrate', uri=sink.uri)
    assert sink.read_all.wait(m.LIMIT_S)
    m.wait_status(vm, 'device')
    return vm, sink


def source_has_left(vmm, work):
    sink = m.Sink(work / 'sink')
    vm = leaving(vmm)
    vm.cmd('migrate', uri=sink.uri)
    m.wait_status(vm, 'completed')
    return vm, sink


def source_has_failed(vmm, work):
    vm = leaving(vmm)
    vm.cmd('migrate', uri=f'unix:{work}/none')
    m.wait_status(vm, 'failed')
    return vm, None


def source_was_cancelled(vmm, work):
    vm, listener = source_sends(vmm, work)
    vm.cmd('migrate_cancel')
    m.wait_status(vm, 'cancelled')
    return vm, listener


def source_is_cancelled(vmm, work):
    vm, listener = source_sends(vmm, work)
    vm.send('migrate_cancel')
    return vm, listener


SOURCES = [source_connects, source_sends, source_pauses, source_awaits_the_verdict, source_has_left, source_has_failed,
           source_was_cancelled, source_is_cancelled]


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('status', SOURCES, ids=lambda f: f.__name__)
def test_a_source_ends_when_it_is_told_to(vmm, work, status, how):
    vm, peer = status(vmm, work)
    end(vm, how)
    del peer


# What is asked for while the process ends

@pytest.mark.parametrize('command, args', [
    ('migrate-incoming', {'uri': 'unix:{work}/late'}), ('migrate', {'uri': 'unix:{work}/late'}),
    ('calc-dirty-rate', {'calc-time': 1}), ('query-migrate', {}), ('migrate_cancel', {})], ids=lambda x: str(x)[:20])
def test_nothing_begins_while_the_process_ends(vmm, work, command, args):
    listener = m.unix_listener(work / 'late') if command == 'migrate' else None
    args = {k: v.format(work=work) if isinstance(v, str) else v for k, v in args.items()}
    incoming = ['-incoming', 'defer'] if command == 'migrate-incoming' else []
    vm = vmm(*MACHINE, '-accel', 'qtest', *incoming, defaults=False)
    vm.send('quit')
    try:
        for _ in range(20):
            vm.send(command, args)
    except (OSError, ferry.QMPClosed):
        pass
    assert vm.wait_exit() == 0, vm.describe()
    del listener
