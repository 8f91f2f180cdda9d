# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of a few instructions under the host's KVM on the machine microvm: start, end, stop, reset; broken kernels."""
import socket
import struct
import subprocess

import pytest

import ferry

MACHINE = ['-machine', 'microvm', '-m', '64', '-nodefaults', '-display', 'none']
EXIT_PORT = ['-device', 'isa-debug-exit,iobase=0xf4,iosize=4']
COUNTER, WISH = 0x200000, 0x200004


@pytest.fixture(scope='session')
def guest(tmp_path_factory):
    """guest(name): the ELF file of tests/guests/multiboot-NAME.S."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = ferry.build_guest(name, tmp_path_factory.mktemp('guest'))
        return made[name]
    return make


@pytest.fixture(autouse=True)
def kvm():
    try:
        with open('/dev/kvm', 'r+b', buffering=0):
            pass
    except OSError as error:
        pytest.skip(f'no KVM here: {error}')


def run(*args):
    return subprocess.run([*ferry.binary(), *MACHINE, *args], capture_output=True, timeout=60 * ferry.time_scale(), check=False,
                          stdin=subprocess.DEVNULL, text=True)


def refused(*args):
    done = run(*args)
    assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
    return done.stderr


def test_guest_gets_its_command_line_and_modules_and_ends_the_process(guest, work):
    kernel = guest('hello')
    for name in 'one', 'two':
        (work / name).write_text(f'module {name}\nnot printed')
    done = run('-kernel', kernel, '-append', 'a=1 b', '-initrd', f'{work}/one x,{work}/two', '-smp', '2', *EXIT_PORT,
               '-chardev', 'stdio,id=c', '-device', 'isa-debugcon,chardev=c')
    assert done.stdout == f'{kernel} a=1 b\nmodule one\nmodule two\n'
    assert (done.returncode, done.stderr) == (1, '')


class Beat:
    """A guest that counts."""

    def __init__(self, vmm, kernel, work, *args):
        self.out = work / 'out'
        self.vm = vmm(*MACHINE, '-kernel', kernel, *EXIT_PORT, '-chardev', f'file,id=c,path={self.out}',
                      '-device', 'isa-debugcon,chardev=c', *args, defaults=False)
        self.work = work

    def counter(self):
        path = self.work / 'memory'
        self.vm.cmd('pmemsave', val=COUNTER, size=4, filename=str(path))
        return struct.unpack('<I', path.read_bytes())[0]

    def counts(self):
        before = self.counter()
        guard = ferry.Guard(30)
        while self.counter() == before:
            guard.left()

    def ups(self):
        return self.out.read_text().count('up\n')


def test_stopped_guest_stands_and_goes_on(vmm, guest, work):
    beat = Beat(vmm, guest('beat'), work)
    for _ in range(5):
        beat.counts()
        beat.vm.cmd('stop')
        before = beat.counter()
        assert beat.vm.cmd('query-status') == {'running': False, 'status': 'paused'}
        assert beat.counter() == before
        beat.vm.cmd('cont')
    beat.counts()


def test_guest_that_waits_for_cont_has_executed_nothing(vmm, guest, work):
    beat = Beat(vmm, guest('beat'), work, '-S')
    assert beat.counter() == 0 and beat.ups() == 0
    beat.vm.cmd('cont')
    beat.counts()


def test_queries_say_that_kvm_runs_it(vmm, guest, work):
    beat = Beat(vmm, guest('beat'), work)
    assert beat.vm.cmd('query-kvm') == {'enabled': True, 'present': True}
    assert beat.vm.cmd('query-accelerators')['enabled'] == 'kvm'


def test_reset_starts_the_kernel_again(vmm, guest, work):
    beat = Beat(vmm, guest('beat'), work, '-smp', '2')
    for n in range(1, 4):
        beat.counts()
        assert beat.ups() == n
        beat.vm.cmd('system_reset')
        assert beat.vm.wait('RESET')['data'] == {'guest': False, 'reason': 'host-qmp-system-reset'}


def test_reset_of_a_stopped_guest_leaves_it_stopped(vmm, guest, work):
    beat = Beat(vmm, guest('beat'), work)
    beat.counts()
    beat.vm.cmd('stop')
    beat.vm.cmd('system_reset')
    beat.vm.wait('RESET')
    before = beat.counter()
    assert beat.vm.cmd('query-status') == {'running': False, 'status': 'paused'}
    assert beat.counter() == before and beat.ups() == 1
    beat.vm.cmd('cont')
    beat.counts()
    assert beat.ups() == 2


def read_until(sock, words):
    sock.settimeout(30 * ferry.time_scale())
    got = b''
    while not got.endswith(words):
        got += sock.recv(1) or pytest.fail(f'the end of {got}')
    return got


def test_guest_talks_over_its_serial_port(vmm, guest, work):
    path = str(work / 'serial')
    vm = vmm(*MACHINE, '-kernel', guest('serial'), *EXIT_PORT, '-chardev', f'socket,id=c,path={path},server=on,wait=off',
             '-device', 'isa-serial,chardev=c', '-S', defaults=False)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    vm.cmd('cont')
    assert read_until(sock, b'ready\n') == b'ready\n'
    for text, answer in (b'a', b'b'), (b'0123456789', b'123456789:'), (bytes(range(97, 113)) * 4, bytes(range(98, 114)) * 4):
        sock.sendall(text)
        assert read_until(sock, answer) == answer
    vm.cmd('stop')
    sock.sendall(b'xy')
    vm.cmd('cont')
    assert read_until(sock, b'yz') == b'yz'
    vm.cmd('system_reset')
    assert read_until(sock, b'ready\n') == b'ready\n'
    vm.expected.add(1)      # what the guest says at its end
    sock.sendall(b'Q')
    assert vm.wait_exit() == 1
    sock.close()


def test_guest_whose_registers_do_not_travel_stays(vmm, guest, work):
    beat = Beat(vmm, guest('beat'), work)
    with pytest.raises(ferry.QMPError, match='registers of the guest.s CPUs do not travel yet'):
        beat.vm.cmd('migrate', uri=f'file:{work}/stream')
    beat.counts()


def test_triple_fault_reboots_the_guest(vmm, guest, work):
    beat = Beat(vmm, guest('beat'), work, '-append', '!')
    for _ in range(3):
        assert beat.vm.wait('RESET')['data'] == {'guest': True, 'reason': 'guest-reset'}
    assert beat.ups() >= 3
    assert beat.vm.cmd('query-status') == {'running': True, 'status': 'running'}


def test_triple_fault_ends_a_process_that_must_not_reboot(vmm, guest, work):
    beat = Beat(vmm, guest('beat'), work, '-append', '!', '-no-reboot', '-S')
    beat.vm.cmd('cont')
    assert beat.vm.wait('SHUTDOWN')['data'] == {'guest': True, 'reason': 'guest-reset'}
    assert beat.vm.wait_exit() == 0
    assert beat.ups() == 1


def test_kernels_that_are_broken_are_refused(guest, work):
    good = bytearray(open(guest('hello'), 'rb').read())
    phoff, = struct.unpack_from('<I', good, 28)

    def broken(change):
        image = bytearray(good)
        change(image)
        path = work / 'broken'
        path.write_bytes(image)
        return refused('-kernel', str(path))

    assert 'could not load kernel' in refused('-kernel', '/nonexistent') and '/nonexistent' in refused('-kernel', '/nonexistent')
    assert 'no Multiboot header' in refused('-kernel', '/dev/null')
    assert 'firmware is not built yet' in refused()
    assert 'its ELF header is broken' in broken(lambda i: struct.pack_into('<H', i, 44, 0xffff))
    assert 'outside of the file' in broken(lambda i: struct.pack_into('<I', i, phoff + 4, 0xfffffff0))
    assert 'outside of the file' in broken(lambda i: struct.pack_into('<I', i, phoff + 16, 0xffffffff))
    assert 'does not fit' in broken(lambda i: struct.pack_into('<I', i, phoff + 12, 0xfffff000))
    assert 'does not fit' in broken(lambda i: struct.pack_into('<I', i, phoff + 20, 0xfffffff0))
    assert 'does not fit' in broken(lambda i: struct.pack_into('<I', i, phoff + 12, 0x9000))
    assert 'nor is it a 32-bit ELF file' in broken(lambda i: i.__setitem__(4, 2))
    assert 'Unable to read' in refused('-kernel', guest('hello'), '-initrd', '/nonexistent')
    assert '-append only allowed with -kernel option' in refused('-append', 'x')


def test_more_cpus_than_the_machine_has_are_refused(guest):
    assert 'Invalid SMP CPUs 289' in refused('-kernel', guest('hello'), '-smp', '289')


def test_tcg_is_refused_alone_and_passed_over_in_a_list(guest):
    assert 'TCG is not built' in refused('-kernel', guest('hello'), '-accel', 'tcg')
    assert run('-kernel', guest('hello'), '-accel', 'tcg:kvm', *EXIT_PORT).returncode == 1
