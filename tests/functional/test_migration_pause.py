# SPDX-License-Identifier: GPL-2.0-or-later
"""How the source paces itself before it stops the guest, and what ends the pause when the peer takes nothing."""
import signal
import threading
import time

import pytest

import ferry
from ferry import migration as m

RAM = 32 * ferry.MIB
MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults', '-m', f'{RAM // ferry.MIB}M']
WINDOW_S = 0.1


class Source:
    def __init__(self, vmm, work, *caps, **parameters):
        self.qtest = ferry.QTest(work, 'source')
        self.vm = vmm(*MACHINE, *self.qtest.args, defaults=False, name='source')
        m.set_caps(self.vm, 'events', *caps)
        if parameters:
            self.vm.cmd('migrate-set-parameters', {k.replace('_', '-'): v for k, v in parameters.items()})

    def syncs(self):
        return self.vm.cmd('query-migrate')['ram']['dirty-sync-count']


@pytest.fixture
def source(vmm, work):
    return lambda *caps, **parameters: Source(vmm, work, *caps, **parameters)


def test_the_log_is_read_once_a_window_while_the_destination_does_not_agree(source, work):
    one = source('return-path', 'switchover-ack')
    sink = m.Sink(work / 'sink')
    one.vm.cmd('migrate', uri=sink.uri)
    guard = ferry.Guard(m.LIMIT_S)
    while m.wait_status(one.vm, 'setup', 'active').get('remaining', 1):
        guard.left()
    began, first = time.monotonic(), one.syncs()
    for n in range(5000):
        one.qtest.write(n % 64 * m.PAGE, bytes([n % 255 + 1]) * 8)
    syncs = one.syncs() - first
    assert syncs <= (time.monotonic() - began) / WINDOW_S * 2 + 5
    sink.conn.sendall(bytes.fromhex('0007 0000'))
    assert m.wait_over(one.vm)['status'] == 'completed'


def test_auto_converge_reads_the_log_within_a_pass(source, work):
    one = source('auto-converge', max_bandwidth=ferry.MIB)
    for at in range(0, RAM, ferry.MIB):
        one.qtest.write(at, bytes(range(1, 256)) * (ferry.MIB // 255))
    sink = m.Sink(work / 'sink', stop_at=1 << 40)
    one.vm.cmd('migrate', uri=sink.uri)
    m.wait_status(one.vm, 'active')
    guard = ferry.Guard(m.LIMIT_S)
    while one.syncs() < 3:
        guard.left()
        time.sleep(0.05)
    assert one.vm.cmd('query-migrate')['ram']['normal'] < RAM // m.PAGE, 'the first pass was over'
    one.vm.cmd('migrate_cancel')
    m.wait_status(one.vm, 'cancelled')


class LazyPeer(m.Worker):
    """Reads everything until it is told to rest."""

    def __init__(self, path):
        super().__init__()
        self.listener = m.unix_listener(path)
        self.uri = f'unix:{path}'
        self.rests, self.ends = threading.Event(), threading.Event()
        self.start()

    def work(self):
        conn = self.listener.accept()[0]
        conn.settimeout(0.1)
        while not self.rests.is_set():
            try:
                conn.recv(1 << 20)
            except TimeoutError:
                pass
        self.ends.wait(m.LIMIT_S * 2)
        conn.close()


@pytest.mark.slow
def test_the_guest_runs_again_here_when_the_peer_takes_nothing_of_the_last_pass(source, work):
    one = source('pause-before-switchover')
    peer = LazyPeer(work / 'peer')
    one.vm.cmd('migrate', uri=peer.uri)
    m.wait_status(one.vm, 'pre-switchover')
    one.qtest.write(0, b'x' * (8 * ferry.MIB))
    peer.rests.set()
    one.vm.cmd('migrate-continue', state='pre-switchover')
    info = m.wait_over(one.vm, limit_s=2 * m.LIMIT_S)
    assert info['status'] == 'failed'
    assert 'took nothing for 30 s' in info['error-desc']
    assert m.run_state(one.vm) == 'running'
    peer.ends.set()
    peer.result()


@pytest.mark.slow
def test_a_destination_that_may_have_the_guest_is_waited_for_and_spoken_of(source, work):
    one = source('return-path')
    sink = m.Sink(work / 'sink', verdict=None, close=False)
    one.vm.cmd('migrate', uri=sink.uri)
    assert sink.read_all.wait(m.LIMIT_S)
    guard = ferry.Guard(2 * m.LIMIT_S)
    while 'has said nothing for 30 s' not in one.vm.stderr():
        assert m.run_state(one.vm) == 'finish-migrate'
        time.sleep(0.5)
        guard.left()
    sink.say(m.SHUT, m.be32(0))
    assert m.wait_over(one.vm)['status'] == 'completed'
    assert m.run_state(one.vm) == 'postmigrate'
    sink.drop()


@pytest.fixture
def disk_that_hangs(qemu_nbd, work):
    """An NBD server that takes requests and does not answer while it is stopped."""
    server = qemu_nbd(ferry.make_image(work / 'disk.raw', ferry.MIB), 'raw')
    yield server
    server.signal(signal.SIGCONT)


def migrates_until_the_flush_hangs(vm, work):
    vm.cmd('migrate', uri=f'file:{work}/stream')
    guard = ferry.Guard(m.LIMIT_S)
    while m.wait_status(vm, 'setup', 'active').get('ram', {}).get('dirty-sync-count', 0) < 5:
        guard.left()
    assert m.run_state(vm) == 'running'


def test_a_disk_that_hangs_before_the_pause_keeps_no_migration_from_being_cancelled(source, disk_that_hangs, work):
    """Disks are written back while the guest runs; a disk that does not end that holds up neither guest nor user."""
    vm = source().vm
    vm.cmd('blockdev-add', disk_that_hangs.node('disk'))
    vm.qemu_io('disk', 'write -P 1 0 64k')
    disk_that_hangs.signal(signal.SIGSTOP)
    for _ in range(3):      # the flush of the one before hangs still
        migrates_until_the_flush_hangs(vm, work)
        vm.cmd('migrate_cancel')
        m.wait_status(vm, 'cancelled')
        assert m.run_state(vm) == 'running'
    migrates_until_the_flush_hangs(vm, work)
    disk_that_hangs.signal(signal.SIGCONT)
    assert m.wait_over(vm)['status'] == 'completed'


@pytest.mark.slow
def test_a_process_ends_while_a_disk_hangs_before_the_pause(source, disk_that_hangs, work):
    vm = source().vm
    vm.cmd('blockdev-add', disk_that_hangs.node('disk'))
    vm.qemu_io('disk', 'write -P 1 0 64k')
    disk_that_hangs.signal(signal.SIGSTOP)
    migrates_until_the_flush_hangs(vm, work)
    vm.quit(limit_s=60)
