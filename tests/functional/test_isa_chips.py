# SPDX-License-Identifier: GPL-2.0-or-later
"""The interrupt controllers, the timer and the clock of a PC work together (tests/devices/test-pc.h)."""
import calendar
import subprocess
import time
from pathlib import Path

import pytest

import ferry
from ferry import migration as m

TESTER = str(Path(ferry.binary()[-1]).resolve().parent / 'tests' / 'devices' / 'qemu-system-test')
MACHINE = ['-display', 'none', '-nodefaults', '-machine', 'ferry-test-pc', '-m', '16M']
MASTER, SLAVE, ACKNOWLEDGE, INT = 0x20, 0xa0, 0xae10, 0xae11
PIT_HZ = 1193182
SECOND = 10**9


class Chips:
    """A guest's view of the ports."""

    def __init__(self, qtest):
        self.qtest = qtest

    def out(self, port, *values):
        for value in values:
            self.qtest.cmd('outb', port, value)

    def read(self, port):
        return self.qtest.value('inb', port)

    def program(self):
        """As firmware does: vectors 8 and 0x70, all inputs open."""
        self.out(MASTER, 0x11)
        self.out(MASTER + 1, 0x08, 0x04, 0x01, 0x00)
        self.out(SLAVE, 0x11)
        self.out(SLAVE + 1, 0x70, 0x02, 0x01, 0x00)

    def interrupts(self):
        return bool(self.read(INT))

    def vector(self):
        return self.read(ACKNOWLEDGE)

    def end_of_interrupt(self):
        self.out(SLAVE, 0x20)
        self.out(MASTER, 0x20)

    def cmos(self, index, value=None):
        self.out(0x70, index)
        if value is None:
            return self.read(0x71)
        return self.out(0x71, value)

    def time(self):
        """Seconds since the epoch; the clock is in BCD."""
        while True:
            first = [self.cmos(i) for i in (0x32, 9, 8, 7, 4, 2, 0)]
            if first == [self.cmos(i) for i in (0x32, 9, 8, 7, 4, 2, 0)]:
                century, year, *rest = (int(f'{b:02x}') for b in first)
                return calendar.timegm((century * 100 + year, *rest))


@pytest.fixture
def guest(vmm, qtest, need):
    need.that(Path(TESTER).exists(), f'{TESTER} is not built')
    return vmm(*MACHINE, '-global', 'mc146818rtc.base_year=0', *qtest.args, command=[TESTER], defaults=False)


@pytest.fixture
def chips(guest, qtest):
    chips = Chips(qtest)
    chips.program()
    while chips.interrupts():       # what the timer had sent before
        chips.vector()
        chips.end_of_interrupt()
    return chips


@pytest.fixture
def arrives(vmm, work):
    others = []

    def start():
        other = ferry.QTest(work, 'other')
        others.append(other)
        vm = vmm(*MACHINE, '-global', 'mc146818rtc.base_year=0', *other.args, '-incoming', f'file:{work}/stream',
                 command=[TESTER], defaults=False, name='destination')
        m.wait_status(vm, 'completed')
        return Chips(other)
    yield start
    for other in others:
        other.close()


def one_shot(chips, count):
    chips.out(0x43, 0x30)
    chips.out(0x40, count & 0xff, count >> 8)


def test_timer_interrupts_the_cpu_with_its_vector(chips, qtest):
    one_shot(chips, 1000)
    qtest.clock_step(SECOND * 999 // PIT_HZ)
    assert not chips.interrupts()
    qtest.clock_step(SECOND // PIT_HZ + 1)
    assert chips.interrupts()
    assert chips.vector() == 8
    assert not chips.interrupts()
    chips.end_of_interrupt()
    assert chips.vector() == 15     # spurious


def test_speaker_port_follows_the_timer(chips, qtest):
    chips.out(0x43, 0xb6)
    chips.out(0x42, 0x00, 0x10)
    chips.out(0x61, 0x01)
    assert chips.read(0x61) & 0x21 == 0x21
    qtest.clock_step(SECOND * 0x900 // PIT_HZ)
    assert chips.read(0x61) & 0x21 == 0x01


def test_clock_shows_the_time_of_the_host(chips):
    before = int(time.time())
    assert before - 1 <= chips.time() <= int(time.time()) + 1


def test_clock_interrupts_through_the_slave(chips):
    """The host's clock drives it, so the interrupt comes by itself."""
    chips.cmos(0x0b, 0x12)
    guard = ferry.Guard(60)
    while not chips.interrupts():
        guard.left()
    assert chips.vector() == 0x70
    assert chips.cmos(0x0c) & 0x90 == 0x90


def test_clock_that_the_guest_sets_is_told(guest, chips):
    year = chips.cmos(9)
    chips.cmos(9, year - 1)
    event = guest.wait('RTC_CHANGE')
    assert event['data']['offset'] in (-365 * 86400, -366 * 86400)
    assert guest.cmd('qom-get', path=event['data']['qom-path'], property='type') == 'mc146818rtc'


def test_chips_travel_with_the_guest(guest, chips, qtest, work, arrives):
    chips.cmos(0x40, 0x5a)
    chips.out(MASTER + 1, 0xfe)
    one_shot(chips, 50000)
    qtest.clock_step(SECOND * 20000 // PIT_HZ)
    guest.cmd('migrate', uri=f'file:{work}/stream')
    m.wait_status(guest, 'completed')
    there = arrives()
    assert there.cmos(0x40) == 0x5a
    assert there.read(MASTER + 1) == 0xfe
    assert not there.interrupts()
    there.qtest.clock_step(SECOND * 29999 // PIT_HZ)
    assert not there.interrupts()
    there.qtest.clock_step(2 * SECOND // PIT_HZ)
    assert there.vector() == 8


def test_reset_ends_what_the_chips_were_doing(guest, chips):
    one_shot(chips, 1000)
    chips.cmos(0x0b, 0x72)
    chips.cmos(0x40, 0x5a)
    guest.cmd('system_reset')
    guest.wait('RESET')
    assert chips.cmos(0x0b) == 0x02
    assert chips.cmos(0x40) == 0x5a
    assert chips.read(MASTER + 1) == 0


def test_parts_of_the_board_are_not_for_users(guest):
    for driver in 'isa-pit', 'isa-i8259':
        with pytest.raises(ferry.QMPError, match='expects a pluggable device type'):
            guest.cmd('device_add', driver=driver)


@pytest.mark.parametrize('args, message', [
    ('lost_tick_policy=delay', 'lost_tick_policy is discard or slew'),
    ('lost_tick_policy=foo', "does not accept value 'foo'"),
    ('irq=16', 'Invalid ISA IRQ 16'),
    ('base_year=foo', "Parameter 'base_year' expects integer"),
])
def test_mistakes_about_the_clock_are_named(args, message):
    done = subprocess.run([TESTER, '-display', 'none', '-nodefaults', '-S', '-machine', 'ferry-test',
                           '-device', f'mc146818rtc,{args}'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert message in done.stderr


def test_properties_are_those_of_stock(guest):
    listed = {p['name']: (p['type'], p.get('default-value'))
              for p in guest.cmd('device-list-properties', typename='mc146818rtc')}
    assert listed == {'base_year': ('int32', 1980), 'iobase': ('uint16', 112), 'irq': ('uint8', 8),
                      'lost_tick_policy': ('LostTickPolicy', 'discard')}
    listed = {p['name']: (p['type'], p.get('default-value'))
              for p in guest.cmd('device-list-properties', typename='isa-i8259')}
    assert listed == {'iobase': ('uint32', 2**32 - 1), 'elcr_addr': ('uint32', 2**32 - 1), 'elcr_mask': ('uint8', 255),
                      'master': ('bool', False)}
