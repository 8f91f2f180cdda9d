# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices as users make, list and remove them, on the machine of the tests (tests/devices)."""
import subprocess
from pathlib import Path

import pytest

import ferry
from ferry.migration import wait_status

TESTER = str(Path(ferry.binary()[-1]).resolve().parent / 'tests' / 'devices' / 'qemu-system-test')
MACHINE = ['-display', 'none', '-nodefaults', '-S', '-machine', 'ferry-test']
EJECT = 0xae08


@pytest.fixture
def guest(vmm, qtest, need):
    need.that(Path(TESTER).exists(), f'{TESTER} is not built')

    def start(*args, machine='ferry-test'):
        return vmm(*MACHINE[:-1], machine, *qtest.args, *args, command=[TESTER], defaults=False)
    return start


def run(*args):
    return subprocess.run([TESTER, *MACHINE, *args], capture_output=True, text=True, timeout=60)


def refused(vm, command, **arguments):
    with pytest.raises(ferry.QMPError) as error:
        vm.cmd(command, **arguments)
    return error.value


def port(qtest, command):
    return int(qtest.cmd(command), 0)


def test_the_machine_of_the_tests_is_in_no_list(guest):
    vm = guest()
    assert [m['name'] for m in vm.cmd('query-machines')] == ['none']
    assert 'ferry-test' not in run('-machine', 'help').stdout


def test_product_lists_its_devices_with_their_options():
    listed = subprocess.run([*ferry.binary(), '-device', 'help'], capture_output=True, text=True, timeout=60)
    assert listed.returncode == 0 and listed.stderr == ''
    assert 'Misc devices:\nname "isa-debug-exit", bus ISA\n' in listed.stdout
    assert 'name "pci-testdev", bus PCI, desc "PCI Test Device"\n' in listed.stdout
    options = subprocess.run([*ferry.binary(), '-device', 'isa-debugcon,help'], capture_output=True, text=True,
                             timeout=60)
    assert options.stdout == ('isa-debugcon options:\n'
                              '  chardev=<str>          - ID of a chardev to use as a backend\n'
                              '  iobase=<uint32>        -  (default: 233)\n'
                              '  readback=<uint32>      -  (default: 233)\n')
    unknown = subprocess.run([*ferry.binary(), '-device', 'nosuch,help'], capture_output=True, text=True, timeout=60)
    assert unknown.returncode == 0 and "Device 'nosuch' not found" in unknown.stderr


@pytest.mark.parametrize('value, status', [('outb 0x501 0', 1), ('outb 0x502 7', 15), ('outw 0x501 0x102', 5)])
def test_guest_ends_the_process_with_its_status(guest, qtest, value, status):
    vm = guest('-device', 'isa-debug-exit')
    vm.expected = {status}
    qtest.send_raw(value.encode() + b'\n')
    event = vm.wait('SHUTDOWN')
    assert event['data'] == {'guest': True, 'reason': 'guest-shutdown'}
    assert vm.process.wait(60) == status


def test_debug_console_writes_to_its_chardev(guest, qtest, work):
    path = work / 'console'
    vm = guest('-chardev', f'file,id=c,path={path}', '-device', 'isa-debugcon,id=con,chardev=c',
               '-global', 'isa-debugcon.readback=0x42')
    assert port(qtest, 'inb 0xe9') == 0x42
    for byte in b'hello\n':
        qtest.cmd(f'outb 0xe9 {byte}')
    assert vm.cmd('qom-get', path='/machine/peripheral/con', property='chardev') == 'c'
    assert 'in use' in run('-chardev', 'null,id=c', '-device', 'isa-debugcon,chardev=c',
                           '-device', 'isa-debugcon,chardev=c').stderr
    vm.quit()
    assert path.read_bytes() == b'hello\n'


@pytest.mark.parametrize('args, message', [
    (['-device', 'nosuch'], "-device nosuch: 'nosuch' is not a valid device model name"),
    (['-device', 'id=a'], "-device id=a: Parameter 'driver' is missing"),
    (['-device', 'pci-testdev,foo=1'], "Property 'pci-testdev.foo' not found"),
    (['-device', 'pci-testdev,addr=zz'], "Property 'pci-testdev.addr' doesn't take value 'zz'"),
    (['-device', 'isa-debug-exit,bus=pci.0'], "Device 'isa-debug-exit' can't go on PCI bus"),
    (['-device', '{"driver":"isa-debug-exit","iobase":"4"}'], "Parameter 'iobase' expects uint64"),
    (['-device', 'isa-debug-exit,iobase=-1'], "Parameter 'iobase' expects uint32_t"),
    (['-device', 'pci-testdev,id=a', '-device', 'pci-testdev,id=a'], "Duplicate ID 'a' for device"),
    (['-global', 'isa-debug-exit.iobase=x', '-device', 'isa-debug-exit'],
     "can't apply global isa-debug-exit.iobase=x: Parameter 'iobase' expects uint64"),
    (['-device', 'pci-testdev'] * 33, 'PCI: no slot/function available for pci-testdev, all in use or reserved'),
])
def test_mistakes_are_named_and_end_the_start(args, message):
    done = run(*args)
    assert done.returncode == 1
    assert message in done.stderr


def test_properties_are_listed_from_the_one_description(guest):
    vm = guest()
    assert vm.cmd('device-list-properties', typename='isa-debug-exit') == [
        {'name': 'iobase', 'type': 'uint32', 'default-value': 1281},
        {'name': 'iosize', 'type': 'uint32', 'default-value': 2}]
    listed = {p['name']: p for p in vm.cmd('device-list-properties', typename='pci-testdev')}
    assert listed['addr'] == {'name': 'addr', 'type': 'int32', 'default-value': -1,
                              'description': 'Slot and optional function number, example: 06.0 or 06'}
    assert listed['multifunction'] == {'name': 'multifunction', 'type': 'bool', 'default-value': False,
                                       'description': 'on/off'}
    names = [p['name'] for p in vm.cmd('qom-list-properties', typename='isa-debug-exit')]
    assert {'type', 'realized', 'parent_bus', 'iobase'} < set(names)
    assert {'name': 'isa-debug-exit', 'parent': 'isa-device'} in vm.cmd('qom-list-types', implements='isa-device')
    assert refused(vm, 'device-list-properties', typename='nosuch').cls == 'DeviceNotFound'


def test_devices_stand_in_the_trees(guest):
    vm = guest('-device', 'isa-debug-exit,id=ex', '-device', 'pci-testdev,addr=5')
    tree = vm.hmp('info qtree')
    assert 'bus: main-system-bus\n  type System\n' in tree.replace('\r', '')
    assert '      dev: isa-debug-exit, id "ex"\n        iobase = 1281 (0x501)\n        iosize = 2 (0x2)\n' in \
        tree.replace('\r', '')
    assert 'class Class 00ff, addr 00:05.0, pci id 1b36:0005 (sub 1af4:1100)' in tree
    assert 'bar 0: mem at 0xffffffffffffffff [0xffe]' in tree
    assert '/ex (isa-debug-exit)' in vm.hmp('info qom-tree /machine/peripheral')
    assert '/isa-debug-exit[0] (memory-region)' in vm.hmp('info qom-tree /machine/peripheral')
    assert vm.cmd('qom-get', path='/machine/peripheral/ex', property='iobase') == 1281
    assert vm.cmd('qom-get', path='/machine/peripheral-anon/device[0]', property='addr') == 5 << 3
    error = refused(vm, 'qom-set', path='/machine/peripheral/ex', property='iobase', value=5)
    assert error.desc == ("Attempt to set property 'iobase' on device 'ex' (type 'isa-debug-exit') "
                          "after it was realized")


def test_devices_come_and_go_with_the_guests_consent(guest, qtest):
    vm = guest()
    vm.cmd('device_add', driver='pci-testdev', id='p1', addr='07.0')
    assert refused(vm, 'device_add', driver='pci-testdev', id='p1').desc == "Duplicate device ID 'p1'"
    assert refused(vm, 'device_add', driver='isa-debug-exit').desc == "Bus 'isa.0' does not support hotplugging"
    assert refused(vm, 'device_add', id='p2').desc == "Parameter 'driver' is missing"
    assert vm.cmd('qom-get', path='/machine/peripheral/p1', property='hotplugged') is True
    assert port(qtest, f'inl {EJECT:#x}') == 0
    vm.cmd('device_del', id='p1')
    assert refused(vm, 'device_del', id='p1').desc == 'Device p1 is already in the process of unplug'
    assert port(qtest, f'inl {EJECT:#x}') == 1 << 7
    assert not vm.seen('DEVICE_DELETED')
    qtest.cmd(f'outl {EJECT:#x} {1 << 7}')
    assert vm.wait('DEVICE_DELETED')['data'] == {'device': 'p1', 'path': '/machine/peripheral/p1'}
    error = refused(vm, 'device_del', id='p1')
    assert (error.cls, error.desc) == ('DeviceNotFound', "Device 'p1' not found")
    vm.cmd('device_add', driver='pci-testdev', id='p1', addr='07.0')


def test_what_a_device_names_is_held_and_given_back(guest, work, qtest):
    disk = work / 'disk.raw'
    disk.write_bytes(bytes(1 << 16))
    vm = guest('-object', 'iothread,id=io0', '-blockdev', f'file,node-name=n0,filename={disk}',
               '-device', 'test-counter,id=d,iothread=io0,drive=n0')
    path = '/machine/peripheral/d'
    assert vm.cmd('qom-get', path=path, property='iothread') == '/objects/io0'
    assert vm.cmd('qom-get', path=path, property='drive') == 'n0'
    assert 'in use' in refused(vm, 'object-del', id='io0').desc
    assert refused(vm, 'blockdev-del', node_name='n0').desc
    assert refused(vm, 'qom-set', path=path, property='drive', value='').desc


def test_one_disk_serves_one_device(work):
    disk = work / 'disk.raw'
    disk.write_bytes(bytes(1 << 16))
    done = run('-drive', f'if=none,id=d,format=raw,file={disk}', '-device', 'test-counter,drive=d',
               '-device', 'test-counter,drive=d,iobase=0x320')
    assert done.returncode == 1
    assert "Drive 'd' is already in use by another device" in done.stderr


def test_machine_version_decides_what_a_guest_sees(guest):
    path = {'path': '/machine/peripheral/d', 'property': 'period'}
    assert guest('-device', 'test-counter,id=d', machine='ferry-test-1.0').cmd('qom-get', path) == 250


def test_global_changes_a_default_and_the_user_has_the_last_word(guest):
    vm = guest('-global', 'test-counter.period=77', '-device', 'test-counter,id=d',
               '-device', 'test-counter,id=e,period=88,iobase=0x320', machine='ferry-test-1.0')
    assert vm.cmd('qom-get', path='/machine/peripheral/d', property='period') == 77
    assert vm.cmd('qom-get', path='/machine/peripheral/e', property='period') == 88


def test_reset_waits_for_a_request_and_drops_its_result(guest, qtest):
    vm = guest('-device', 'test-counter,id=d')
    qtest.cmd('outb 0x309 1')
    vm.cmd('system_reset')
    vm.cmd('system_reset')
    assert port(qtest, 'inb 0x301') == 0x80
    assert port(qtest, 'inl 0x30c') == 0
    assert vm.cmd('query-status')['status'] == 'prelaunch'
    assert not vm.seen('RESET')
    qtest.cmd('outb 0x30a 1')
    assert vm.wait('RESET')
    assert port(qtest, 'inb 0x301') == 0
    assert port(qtest, 'inl 0x30c') == 0


# The device that does not end is never freed: a leak to the sanitizer.
@pytest.mark.once
def test_process_ends_although_a_request_does_not(guest, qtest):
    vm = guest('-device', 'test-counter,id=d')
    qtest.cmd('outb 0x309 1')
    vm.cmd('system_reset')
    vm.quit()
    assert 'd: 1 requests have not ended' in vm.stderr()


def test_interrupts_reach_qtest(guest, qtest):
    guest('-device', 'test-counter,id=d,irq=9')
    qtest.cmd('irq_intercept_in intc')
    qtest.cmd('outb 0x300 3')
    qtest.send_raw(b'clock_step 1000\n')
    assert qtest.answer() == 'IRQ raise 9'
    assert qtest.answer().startswith('OK')
    qtest.send_raw(b'outb 0x301 1\n')
    assert qtest.answer() == 'IRQ lower 9'


def test_state_of_a_device_travels_between_processes(guest, vmm, qtest, work):
    path, other = work / 'stream', ferry.QTest(work, 'other')
    source = guest('-device', 'test-counter')
    qtest.cmd('outb 0x300 3')
    qtest.cmd('clock_step 1000')
    source.cmd('migrate', uri=f'file:{path}')
    wait_status(source, 'completed')
    destination = vmm(*MACHINE, *other.args, '-device', 'test-counter', '-incoming', f'file:{path}',
                      command=[TESTER], defaults=False, name='destination')
    wait_status(destination, 'completed')
    assert port(other, 'inb 0x300') == 3
    assert port(other, 'inb 0x301') == 1
    assert port(other, 'inl 0x304') == 1
    other.close()
