# SPDX-License-Identifier: GPL-2.0-or-later
"""isa-serial, on the machine of the tests (tests/devices)."""
import socket
import subprocess
from pathlib import Path

import pytest

import ferry
from ferry import migration as m

TESTER = str(Path(ferry.binary()[-1]).resolve().parent / 'tests' / 'devices' / 'qemu-system-test')
MACHINE = ['-display', 'none', '-nodefaults', '-machine', 'ferry-test', '-m', '16M']
COM = [0x3f8, 0x2f8, 0x3e8, 0x2e8]
DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
FCR = IIR
LOOP = 0x10


@pytest.fixture
def guest(vmm, qtest, need):
    need.that(Path(TESTER).exists(), f'{TESTER} is not built')

    def start(*args):
        return vmm(*MACHINE, *qtest.args, *args, command=[TESTER], defaults=False)
    return start


@pytest.fixture
def peer(work):
    """The other end of the chardev 's'."""
    sockets = []

    def connect(path):
        end = socket.socket(socket.AF_UNIX)
        sockets.append(end)
        end.settimeout(m.LIMIT_S)
        end.connect(str(path))
        return end
    yield connect
    for end in sockets:
        end.close()


def run(*args):
    return subprocess.run([TESTER, *MACHINE, '-S', *args], capture_output=True, text=True, timeout=60)


def inb(qtest, at, base=COM[0]):
    return int(qtest.cmd(f'inb {base + at:#x}'), 0)


def outb(qtest, at, value, base=COM[0]):
    qtest.cmd(f'outb {base + at:#x} {value}')


def wait_received(qtest, base=COM[0]):
    guard = ferry.Guard(m.LIMIT_S)
    while not inb(qtest, LSR, base) & 1:
        guard.left()
    return inb(qtest, DATA, base)


def chardev(work):
    return ['-chardev', f'socket,id=s,path={work}/s,server=on,wait=off']


def test_four_ports_have_the_places_of_a_pc(guest, qtest):
    vm = guest('-device', 'isa-serial,id=a', '-device', 'isa-serial', '-device', 'isa-serial', '-device', 'isa-serial,id=d')
    qtest.cmd('irq_intercept_in /machine/intc')
    for n, base in enumerate(COM):
        assert inb(qtest, LSR, base) == 0x60
        outb(qtest, SCR, 0xa0 + n, base)
    assert [inb(qtest, SCR, base) for base in COM] == [0xa0, 0xa1, 0xa2, 0xa3]
    for name, index, iobase, irq in (('a', 0, 0x3f8, 4), ('d', 3, 0x2e8, 3)):
        for prop, value in (('index', index), ('iobase', iobase), ('irq', irq), ('baudbase', 115200), ('wakeup', False)):
            assert vm.cmd('qom-get', path=f'/machine/peripheral/{name}', property=prop) == value
    for base, line in zip(COM, (4, 3, 4, 3)):
        qtest.send_raw(f'outb {base + IER:#x} 2\n'.encode())
        assert [qtest.answer(), qtest.answer()] == [f'IRQ raise {line}', 'OK']
        qtest.send_raw(f'inb {base + IIR:#x}\n'.encode())
        assert qtest.answer() == f'IRQ lower {line}'
        assert int(qtest.answer().split()[1], 0) == 2


def test_a_user_chooses_the_place(guest, qtest):
    guest('-device', 'isa-serial,iobase=0x1000,irq=7,index=2', '-device', 'isa-serial,index=2')
    assert inb(qtest, LSR, 0x1000) == 0x60
    assert inb(qtest, LSR, COM[2]) == 0x60


def test_bytes_go_to_the_chardev_and_come_from_it(guest, qtest, work, peer):
    guest(*chardev(work), '-device', 'isa-serial,chardev=s')
    other = peer(work / 's')
    other.sendall(b'in')
    assert wait_received(qtest) == ord('i')
    assert wait_received(qtest) == ord('n')
    for byte in b'out':
        outb(qtest, DATA, byte)
    assert other.recv(3, socket.MSG_WAITALL) == b'out'
    other.close()
    other = peer(work / 's')
    other.sendall(b'2')
    assert wait_received(qtest) == ord('2')
    outb(qtest, DATA, ord('3'))
    assert other.recv(1) == b'3'


def test_a_long_text_waits_outside_of_the_fifo(guest, qtest, work, peer):
    guest(*chardev(work), '-device', 'isa-serial,chardev=s')
    text = bytes(range(256)) * 4
    outb(qtest, FCR, 1)
    peer(work / 's').sendall(text)
    assert bytes(wait_received(qtest) for _ in text) == text
    assert inb(qtest, LSR) == 0x60


def test_a_reader_that_is_slow_loses_nothing(guest, qtest, work, peer):
    """The guest sees a full FIFO once the socket and the chardev are full; then everything arrives, in order."""
    guest(*chardev(work), '-device', 'isa-serial,chardev=s')
    other = peer(work / 's')
    outb(qtest, DATA, 0)
    assert other.recv(1) == b'\0'
    outb(qtest, FCR, 1)
    sent = 0
    guard = ferry.Guard(m.LIMIT_S)
    block = ''.join(f'outb {COM[0]:#x} {i}\n' for i in range(16)).encode()
    while inb(qtest, LSR) & 0x40:                   # each block begins with nothing in the chip
        qtest.send_raw(block)
        assert [qtest.answer() for _ in range(16)] == ['OK'] * 16
        sent += 16
        guard.left()
    assert sent > 64 * 1024
    got = bytearray()
    while len(got) < sent:
        got += other.recv(1 << 16)
    assert got == bytes(range(16)) * (sent // 16)
    while inb(qtest, LSR) != 0x60:
        guard.left()


def test_a_reset_gives_the_reset_values(guest, qtest):
    vm = guest('-device', 'isa-serial')
    qtest.cmd('irq_intercept_in /machine/intc')
    qtest.send_raw(f'outb {COM[0] + IER:#x} 15\n'.encode())
    assert [qtest.answer(), qtest.answer()] == ['IRQ raise 4', 'OK']
    vm.cmd('system_reset')
    vm.wait('RESET')
    assert qtest.answer() == 'IRQ lower 4'
    assert inb(qtest, IER) == 0


def test_a_port_goes_on_at_the_other_side(guest, qtest, work, vmm, peer):
    """Bytes in the FIFO, a line that is high and the peer of the new side: nothing is lost or doubled."""
    vm = guest(*chardev(work), '-device', 'isa-serial,chardev=s')
    outb(qtest, FCR, 0x81)
    outb(qtest, MCR, LOOP)
    for byte in b'kept':
        outb(qtest, DATA, byte)
    outb(qtest, MCR, 0x0b)
    outb(qtest, IER, 3)
    outb(qtest, SCR, 0x5a)
    vm.cmd('migrate', uri=f'file:{work}/stream')
    m.wait_status(vm, 'completed')
    peer(work / 's').sendall(b'lost')
    other = ferry.QTest(work, 'other')
    try:
        to = vmm(*MACHINE, *other.args, '-chardev', f'socket,id=s,path={work}/t,server=on,wait=off', '-device',
                 'isa-serial,chardev=s', '-incoming', f'file:{work}/stream', command=[TESTER], defaults=False,
                 name='destination')
        m.wait_status(to, 'completed')
        end = peer(work / 't')
        assert inb(other, SCR) == 0x5a
        assert inb(other, IIR) == 0xc2
        assert bytes(wait_received(other) for _ in range(4)) == b'kept'
        end.sendall(b'+')
        assert wait_received(other) == ord('+')
        outb(other, DATA, ord('!'))
        assert end.recv(1) == b'!'
    finally:
        other.close()


@pytest.mark.parametrize('args, message', [
    (['-device', 'isa-serial,chardev=nosuch'],
     "-device isa-serial,chardev=nosuch: Property 'serial.chardev' can't find value 'nosuch'"),
    (['-chardev', 'null,id=c', '-device', 'isa-serial,chardev=c', '-device', 'isa-serial,chardev=c'],
     "-device isa-serial,chardev=c: Property 'serial.chardev' can't take value 'c': Device 'c' is in use"),
    (['-device', 'isa-serial'] * 5, '-device isa-serial: Max. supported number of ISA serial ports is 4.'),
    (['-device', 'isa-serial,index=4'], '-device isa-serial,index=4: Max. supported number of ISA serial ports is 4.'),
    (['-device', 'isa-serial,irq=16'], 'Invalid ISA IRQ 16, which must be in range 0..15'),
    (['-device', 'isa-serial,iobase=0xfff9'], 'isa-serial: I/O ports 0xfff9..0x10000 are not within 0..0xffff'),
    (['-device', 'isa-serial,baudbase=0'], "Property 'baudbase' doesn't take value 0"),
])
def test_mistakes_are_named(args, message):
    done = run(*args)
    assert done.returncode == 1
    assert message in done.stderr


def test_properties_are_stocks(guest):
    vm = guest()
    listed = {p['name']: p for p in vm.cmd('device-list-properties', typename='isa-serial')}
    for name, default in (('index', 0xffffffff), ('iobase', 0xffffffff), ('irq', 0xffffffff), ('baudbase', 115200)):
        assert listed[name] == {'name': name, 'type': 'uint32', 'default-value': default}
    assert listed['chardev'] == {'name': 'chardev', 'type': 'str', 'description': 'ID of a chardev to use as a backend'}
    assert listed['wakeup'] == {'name': 'wakeup', 'type': 'bool', 'default-value': False, 'description': 'on/off'}
