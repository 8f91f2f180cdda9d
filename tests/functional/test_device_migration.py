# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices and a reset while a guest is on its way: what has been saved is what the guest has."""
from pathlib import Path

import pytest

import ferry
from ferry import migration as m

TESTER = str(Path(ferry.binary()[-1]).resolve().parent / 'tests' / 'devices' / 'qemu-system-test')
MACHINE = ['-display', 'none', '-nodefaults', '-machine', 'ferry-test', '-m', '16M']
EJECT = 0xae08
NOT_YET = pytest.mark.xfail(strict=True, reason='not refused yet')


@pytest.fixture
def guest(vmm, qtest, need):
    need.that(Path(TESTER).exists(), f'{TESTER} is not built')
    vm = vmm(*MACHINE, *qtest.args, '-device', 'test-counter,id=d', command=[TESTER], defaults=False)
    m.set_caps(vm, 'events', 'pause-before-switchover')
    return vm


def at_pre_switchover(vm, work):
    vm.cmd('migrate', uri=f'file:{work}/stream')
    m.wait_status(vm, 'pre-switchover')


@NOT_YET
def test_reset_that_was_begun_does_not_end_in_a_guest_that_is_taken(guest, qtest, work):
    qtest.cmd('outb 0x308 1')
    guest.cmd('system_reset')                       # waits for the request
    at_pre_switchover(guest, work)
    qtest.cmd('clock_step 100')
    guest.cmd('query-status')
    assert guest.seen('RESET') == []


@NOT_YET
def test_no_device_is_plugged_into_a_guest_that_is_taken(guest, work):
    at_pre_switchover(guest, work)
    with pytest.raises(ferry.QMPError):
        guest.cmd('device_add', driver='pci-testdev', id='p')


@NOT_YET
def test_a_request_in_flight_is_not_lost_on_the_way(guest, vmm, work, qtest):
    """A request that a device has begun ends at one of the two sides, and the guest sees its result."""
    other = ferry.QTest(work, 'other')
    m.set_caps(guest, pause_before_switchover=False)
    qtest.cmd('outb 0x308 1')
    guest.cmd('migrate', uri=f'file:{work}/stream')
    m.wait_status(guest, 'completed')
    destination = vmm(*MACHINE, *other.args, '-device', 'test-counter,id=d', '-incoming', f'file:{work}/stream',
                      command=[TESTER], defaults=False, name='destination')
    m.wait_status(destination, 'completed')
    other.cmd('clock_step 1000')
    assert int(other.cmd('inl 0x30c'), 0) == 1
    other.close()
