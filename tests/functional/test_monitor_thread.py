# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP answers what needs no main loop while the main thread stands, with the big lock, in a system call."""
import contextlib
import errno
import os
import socket
import time

import pytest

import ferry
from ferry.qmp import QMPClient


class Held:
    """The main thread waits, while the block runs, in read(2) of a FIFO that a secret comes from."""

    def __init__(self, vm, fifo):
        self.vm, self.fifo = vm, str(fifo)
        self.writer = None
        os.mkfifo(self.fifo)

    def __enter__(self):
        self.busy = self.vm.send('object-add', {'qom-type': 'secret', 'id': 'held', 'file': self.fifo})
        guard = ferry.Guard(60)
        while self.writer is None:
            try:
                self.writer = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:    # ENXIO: not yet open for reading
                assert error.errno == errno.ENXIO and guard.left()
                time.sleep(0.01)
        return self

    def release(self):
        if self.writer is not None:
            os.write(self.writer, b'word')
            os.close(self.writer)
            self.writer = None
            self.vm.reply(self.busy)

    def __exit__(self, *_):
        self.release()


@pytest.fixture
def vm(vmm):
    return vmm(capabilities=['oob'])


@pytest.fixture
def held(vm, work):
    with Held(vm, work / 'fifo') as held:
        yield held


ANSWER_S = 5                            # as docs/specification.md promises


def connect(path, **kwargs):
    return contextlib.closing(QMPClient.connect(path, **kwargs))


def second(work, vmm, *args):
    path = str(work / 'second.sock')
    return vmm('-qmp', f'unix:{path},server=on,wait=off', *args, capabilities=['oob']), path


def test_out_of_band_is_answered_in_the_session_that_waits(vm, held):
    vm.qmp.cmd('query-yank', oob=True, limit_s=ANSWER_S)


def test_yank_cuts_a_connection(vmm, work):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(work / 'peer.sock'))
    listener.listen()
    vm = vmm('-chardev', f'socket,id=c,path={work}/peer.sock', capabilities=['oob'])
    peer = listener.accept()[0]
    peer.settimeout(60)
    with Held(vm, work / 'fifo'):
        vm.cmd('yank', instances=[{'type': 'chardev', 'id': 'c'}], oob=True)
        assert peer.recv(1) == b''


@pytest.mark.parametrize('command', ['query-status', 'query-migrate', 'query-yank', 'query-version', 'query-commands'])
def test_in_band_of_another_session_is_answered(vmm, work, command):
    vm, path = second(work, vmm)
    with connect(path) as other:
        with Held(vm, work / 'fifo'):
            other.cmd(command, limit_s=ANSWER_S)


def test_in_band_of_one_session_keeps_its_order(vm, held):
    behind = vm.send('query-status')
    vm.cmd('query-yank', oob=True)
    held.release()
    assert vm.reply(behind)['status'] == 'prelaunch'


def test_a_client_comes_and_negotiates(vmm, work):
    vm, path = second(work, vmm)
    with Held(vm, work / 'fifo'):
        for _ in range(3):
            with connect(path) as other:
                assert other.cmd('query-status', limit_s=ANSWER_S)['status'] == 'prelaunch'


def test_a_migration_is_seen_and_cut(vmm, work):
    """The source's thread goes on while its main thread stands; the peer reads nothing."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(work / 'mig.sock'))
    listener.listen()
    vm, path = second(work, vmm, '-m', '64', '-machine', 'none')
    vm.cmd('migrate', uri=f'unix:{work}/mig.sock')
    peer = listener.accept()[0]
    with connect(path) as other:
        with Held(vm, work / 'fifo'):
            assert other.cmd('query-migrate')['status'] in ('setup', 'active', 'device', 'completed')
            if {'type': 'migration'} in other.cmd('query-yank'):
                other.cmd('yank', instances=[{'type': 'migration'}])
    peer.close()


def test_a_client_that_does_not_read_does_not_hold_up_another(vmm, work):
    vm, path = second(work, vmm)
    deaf = socket.socket(socket.AF_UNIX)
    deaf.connect(path)
    deaf.sendall(b'{"execute":"qmp_capabilities"}' + b'{"execute":"query-qmp-schema"}' * 64)
    with Held(vm, work / 'fifo'):
        vm.cmd('query-yank', oob=True)
    assert vm.cmd('query-status')['status'] == 'prelaunch'
    deaf.close()


def test_a_shared_chardev_serves_qmp_in_the_main_loop(vmm, work):
    path = str(work / 'mux.sock')
    vmm('-chardev', f'socket,id=m,path={path},server=on,wait=off,mux=on', '-mon', 'chardev=m,mode=control')
    with connect(path) as other:
        assert other.cmd('query-status')['status'] == 'prelaunch'


def test_quit_while_clients_talk(vmm, work):
    vm, path = second(work, vmm)
    with connect(path) as other:
        sent = [other.send('query-status') for _ in range(20)]
        vm.quit()
        assert len(sent) == 20
