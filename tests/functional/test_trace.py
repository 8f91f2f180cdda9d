# SPDX-License-Identifier: GPL-2.0-or-later
"""Trace points are switched over QMP while the process runs, and are there for SystemTap and bpftrace."""
import glob
import re
import subprocess

import pytest

import ferry


def states(vm, pattern):
    return {e['name']: e['state'] for e in vm.cmd('trace-event-get-state', name=pattern)}


def opened(vm):
    """Names of nodes whose opening was traced."""
    return re.findall(r'\bbdrv_open\b.*node (\S+)', vm.stderr())


def test_trace_point_is_switched_on_and_off(vm):
    assert states(vm, 'bdrv_open') == {'bdrv_open': 'disabled'}
    vm.add('null-co', 'before')
    vm.cmd('trace-event-set-state', name='bdrv_open', enable=True)
    assert states(vm, 'bdrv_open') == {'bdrv_open': 'enabled'}
    vm.add('null-co', 'during')
    vm.cmd('trace-event-set-state', name='bdrv_open', enable=False)
    vm.add('null-co', 'after')
    assert opened(vm) == ['during']


def test_pattern_switches_all_that_fit_and_no_others(vm):
    vm.cmd('trace-event-set-state', name='bdrv_d*', enable=True)
    everything = states(vm, '*')
    fitting = {name for name in everything if name.startswith('bdrv_d')}
    assert len(fitting) > 1
    assert {name for name, state in everything.items() if state == 'enabled'} == fitting
    vm.cmd('trace-event-set-state', name='*', enable=False)
    assert set(states(vm, '*').values()) == {'disabled'}


def test_unknown_trace_point_is_an_error_and_an_empty_pattern_none(vm):
    for command, more in (('trace-event-get-state', {}), ('trace-event-set-state', {'enable': True})):
        with pytest.raises(ferry.QMPError, match='nosuch'):
            vm.cmd(command, name='nosuch', **more)
    assert states(vm, 'nosuch*') == {}
    vm.cmd('trace-event-set-state', name='nosuch*', enable=True)
    vm.cmd('trace-event-set-state', name='bdrv_open', enable=True, ignore_unavailable=True)
    assert states(vm, 'bdrv_open') == {'bdrv_open': 'enabled'}


def test_command_line_and_qmp_switch_the_same(vmm):
    vm = vmm('-trace', 'bdrv_open')
    vm.add('null-co', 'first')
    vm.cmd('trace-event-set-state', name='bdrv_open', enable=False)
    vm.add('null-co', 'second')
    assert opened(vm) == ['first']


def test_every_trace_point_is_a_usdt_probe(vm, need):
    """Where sys/sdt.h exists the build has them."""
    need.tool('readelf')
    need.that(glob.glob('/usr/include/**/sys/sdt.h', recursive=True), 'sys/sdt.h is not installed')
    notes = subprocess.run(['readelf', '--notes', '--wide', f'/proc/{vm.pid}/exe'], capture_output=True, text=True,
                           check=True, timeout=60).stdout
    probes = set(re.findall(r'Provider: (\S+)\s+Name: (\S+)', notes))
    names = {name for _, name in probes}
    # What no code of this build reaches has left no probe behind.
    assert {'bdrv_open', 'bdrv_close', 'blk_co_preadv', 'blk_co_pwritev', 'bdrv_drained_begin'} <= names
    assert len({provider for provider, _ in probes}) == 1
    assert names <= set(states(vm, '*'))
