# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices and a reset while a guest is on its way: what has been saved is what the guest has, and no request is lost."""
import socket
from pathlib import Path

import pytest

import ferry
from ferry import migration as m

TESTER = str(Path(ferry.binary()[-1]).resolve().parent / 'tests' / 'devices' / 'qemu-system-test')
MACHINE = ['-display', 'none', '-nodefaults', '-machine', 'ferry-test', '-m', '16M']
KICK, ASK, ANSWER, DONE = 0x308, 0x309, 0x30a, 0x30c
EJECT = 0xae08


@pytest.fixture
def guest(vmm, qtest, need):
    need.that(Path(TESTER).exists(), f'{TESTER} is not built')
    vm = vmm(*MACHINE, *qtest.args, '-device', 'test-counter,id=d', command=[TESTER], defaults=False)
    m.set_caps(vm, 'events', 'pause-before-switchover')
    return vm


@pytest.fixture
def arrives(vmm, work):
    """Starts a destination that reads the stream; returns its qtest once the guest is there."""
    others = []

    def start(*args):
        other = ferry.QTest(work, f'other{len(others)}')
        others.append(other)
        vm = vmm(*MACHINE, *other.args, '-device', 'test-counter,id=d', *args, '-incoming', f'file:{work}/stream',
                 command=[TESTER], defaults=False, name='destination')
        m.wait_status(vm, 'completed')
        return other
    yield start
    for other in others:
        other.close()


def out(qtest, port, value=1):
    qtest.cmd(f'outb {port:#x} {value}')


def done(qtest):
    return int(qtest.cmd(f'inl {DONE:#x}'), 0)


def at_pre_switchover(vm, work):
    vm.cmd('migrate', uri=f'file:{work}/stream')
    m.wait_status(vm, 'pre-switchover')


def refused(vm, command, **args):
    with pytest.raises(ferry.QMPError) as caught:
        vm.cmd(command, **args)
    return caught.value.desc


def waits_for_the_pause(vm):
    """The log is read once a window while something keeps the guest from being stopped."""
    guard = ferry.Guard(m.LIMIT_S)
    while vm.cmd('query-migrate').get('ram', {}).get('dirty-sync-count', 0) < 5:
        guard.left()
    assert m.wait_status(vm, 'active')
    assert m.run_state(vm) == 'running'


# A reset

def test_reset_that_was_begun_does_not_end_in_a_guest_that_is_taken(guest, qtest, work):
    """The guest runs until the reset is over, and is taken as the reset has left it."""
    out(qtest, ASK)
    guest.cmd('system_reset')                       # waits for the request
    guest.cmd('migrate', uri=f'file:{work}/stream')
    waits_for_the_pause(guest)
    assert guest.seen('RESET') == []
    out(qtest, ANSWER)
    m.wait_status(guest, 'pre-switchover')
    names = [event['event'] for event in guest.events if event['event'] in ('RESET', 'STOP')]
    assert names == ['RESET', 'STOP']
    assert 'Migration is not finalized yet' in refused(guest, 'system_reset')


@pytest.mark.parametrize('how', ['cancel', 'quit'])
def test_a_reset_that_does_not_end_keeps_no_migration_from_ending(guest, qtest, work, how):
    out(qtest, ASK)
    guest.cmd('system_reset')
    guest.cmd('migrate', uri=f'file:{work}/stream')
    waits_for_the_pause(guest)
    if how == 'cancel':
        guest.cmd('migrate_cancel')
        m.wait_status(guest, 'cancelled')
        out(qtest, ANSWER)
        assert guest.wait('RESET')
        at_pre_switchover(guest, work)
    else:
        out(qtest, ANSWER)
        guest.quit()


# Plugging. Stock refuses it in the same words and the same order, from `migrate` on.

@pytest.mark.parametrize('status', ['active', 'pre-switchover'])
def test_no_device_is_plugged_or_unplugged_while_a_guest_is_on_its_way(guest, qtest, work, status):
    guest.cmd('device_add', driver='pci-testdev', id='old')
    if status == 'active':
        out(qtest, ASK)
        guest.cmd('system_reset')
        guest.cmd('migrate', uri=f'file:{work}/stream')
        waits_for_the_pause(guest)
    else:
        at_pre_switchover(guest, work)
    assert refused(guest, 'device_add', driver='pci-testdev', id='p') == 'device_add not allowed while migrating'
    assert refused(guest, 'device_add', driver='pci-testdev', id='old') == 'device_add not allowed while migrating'
    assert refused(guest, 'device_add', driver='isa-debug-exit') == "Bus 'isa.0' does not support hotplugging"
    assert refused(guest, 'device_add', driver='nonsense') == "'nonsense' is not a valid device model name"
    assert refused(guest, 'device_del', id='old') == 'device_del not allowed while migrating'
    assert refused(guest, 'device_del', id='d') == "Bus 'isa.0' does not support hotplugging"
    assert refused(guest, 'device_del', id='nonsense') == "Device 'nonsense' not found"
    out(qtest, ANSWER)
    guest.cmd('migrate_cancel')
    m.wait_status(guest, 'cancelled')
    guest.cmd('device_add', driver='pci-testdev', id='p')
    guest.cmd('device_del', id='old')


def test_no_device_is_plugged_into_a_guest_that_is_taken(guest, work):
    at_pre_switchover(guest, work)
    with pytest.raises(ferry.QMPError):
        guest.cmd('device_add', driver='pci-testdev', id='p')


def test_no_device_is_plugged_or_unplugged_while_a_guest_is_loaded(vmm, work, need):
    need.that(Path(TESTER).exists(), f'{TESTER} is not built')
    vm = vmm(*MACHINE, '-device', 'pci-testdev,id=old', '-incoming', 'defer', command=[TESTER], defaults=False)
    vm.cmd('migrate-incoming', {'uri': f'unix:{work}/in', 'exit-on-error': False})
    vm.cmd('device_add', driver='pci-testdev', id='early')      # as stock allows
    source = socket.socket(socket.AF_UNIX)
    source.connect(f'{work}/in')
    source.sendall(m.header())
    m.wait_status(vm, 'active')
    for command, args in (('device_add', {'driver': 'pci-testdev', 'id': 'p'}), ('device_del', {'id': 'old'})):
        assert 'The guest is being loaded' in refused(vm, command, **args)
    source.close()
    m.wait_status(vm, 'failed')
    vm.cmd('device_add', driver='pci-testdev', id='p')


@pytest.mark.parametrize('goes_on', [True, False])
def test_a_device_that_the_guest_ejects_while_it_is_taken_leaves_afterwards(guest, qtest, arrives, work, goes_on):
    """The guest had been asked before; what was saved has the device."""
    guest.cmd('device_add', driver='pci-testdev', id='p', addr='7')
    guest.cmd('device_del', id='p')
    at_pre_switchover(guest, work)
    qtest.cmd(f'outl {EJECT:#x} {1 << 7}')
    guest.cmd('query-status')
    assert guest.seen('DEVICE_DELETED') == []
    if goes_on:
        guest.cmd('migrate-continue', state='pre-switchover')
        m.wait_status(guest, 'completed')
    else:
        guest.cmd('migrate_cancel')
        m.wait_status(guest, 'cancelled')
    assert guest.wait('DEVICE_DELETED')['data']['device'] == 'p'
    if goes_on:
        other = arrives('-device', 'pci-testdev,id=p,addr=7')
        other.cmd(f'outl 0xcf8 {0x80000000 | 7 << 11:#x}')
        assert int(other.cmd('inl 0xcfc'), 0) != 0xffffffff


def test_the_process_ends_while_a_device_waits_to_leave(guest, qtest, work):
    guest.cmd('device_add', driver='pci-testdev', id='p', addr='7')
    guest.cmd('device_del', id='p')
    at_pre_switchover(guest, work)
    qtest.cmd(f'outl {EJECT:#x} {1 << 7}')
    guest.quit()


# Requests

def test_a_request_in_flight_is_not_lost_on_the_way(guest, qtest, arrives, work):
    """
    A request that a device has begun ends at one of the two sides, and the guest sees its result. This one ends at a
    time of the guest, which stands meanwhile.
    """
    m.set_caps(guest, pause_before_switchover=False)
    out(qtest, KICK)
    guest.cmd('migrate', uri=f'file:{work}/stream')
    m.wait_status(guest, 'completed')
    other = arrives()
    assert done(other) == 0
    other.cmd('clock_step 1000')
    assert done(other) == 1


def test_a_guest_is_saved_when_its_devices_requests_have_ended(guest, qtest, arrives, work):
    m.set_caps(guest, pause_before_switchover=False)
    out(qtest, ASK)
    guest.cmd('migrate', uri=f'file:{work}/stream')
    m.wait_run_state(guest, 'finish-migrate')
    assert guest.cmd('query-migrate')['status'] == 'active'
    out(qtest, ANSWER)
    m.wait_status(guest, 'completed')
    assert done(arrives()) == 1


def test_a_guest_whose_requests_do_not_end_stays(guest, qtest, work):
    out(qtest, ASK)
    guest.cmd('migrate', uri=f'file:{work}/stream')
    info = m.wait_status(guest, 'failed')
    assert info['error-desc'] == "device 'd' waits for 1 requests that do not end"
    assert m.run_state(guest) == 'running'
    out(qtest, ANSWER)
    assert done(qtest) == 1
    at_pre_switchover(guest, work)
