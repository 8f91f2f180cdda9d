# SPDX-License-Identifier: GPL-2.0-or-later
"""What QMP says about the machine, and its buttons."""
import pytest

import ferry


def test_machine_is_described(vm):
    assert vm.cmd('query-target') == {'arch': 'x86_64'}
    machines = vm.cmd('query-machines')
    none = next(m for m in machines if m['name'] == 'none')
    assert none['cpu-max'] == 1 and not none['hotpluggable-cpus'] and not none['deprecated']
    assert vm.cmd('query-current-machine') == {'wakeup-suspend-support': False}


def test_accelerator_is_what_there_is(vm):
    kvm = vm.cmd('query-kvm')
    assert set(kvm) == {'enabled', 'present'}
    accelerators = vm.cmd('query-accelerators')
    assert accelerators['enabled'] in accelerators['present']
    assert kvm['present'] == ('kvm' in accelerators['present'])


def test_reset_and_power_button_are_told(vm):
    vm.cmd('system_reset')
    assert vm.wait('RESET')['data'] == {'guest': False, 'reason': 'host-qmp-system-reset'}
    vm.cmd('system_powerdown')
    vm.wait('POWERDOWN')
    assert vm.cmd('query-status')['status'] == 'prelaunch'
    with pytest.raises(ferry.QMPError, match='wake-up from suspend is not supported'):
        vm.cmd('system_wakeup')


def test_reset_ends_the_process_where_that_was_asked_for(vm):
    vm.cmd('set-action', reboot='shutdown')
    vm.cmd('set-action', reboot='reset')
    vm.cmd('system_reset')
    vm.wait('RESET')
    vm.cmd('set-action', reboot='shutdown', shutdown='pause')
    vm.cmd('system_reset')
    assert vm.wait('SHUTDOWN')['data'] == {'guest': False, 'reason': 'host-qmp-system-reset'}


@pytest.mark.parametrize('args', [('-no-reboot',), ('-action', 'reboot=shutdown')])
def test_reset_ends_the_process_as_the_command_line_says(vmm, args):
    vm = vmm(*args)
    vm.cmd('system_reset')
    assert vm.wait('SHUTDOWN')['data']['reason'] == 'host-qmp-system-reset'


def test_unknown_action_is_refused(vm):
    with pytest.raises(ferry.QMPError):
        vm.cmd('set-action', reboot='explode')
