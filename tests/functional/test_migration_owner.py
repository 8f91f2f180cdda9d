# SPDX-License-Identifier: GPL-2.0-or-later
"""The run state belongs to the migration from the stop of the guest until it is settled where the guest is. Commands
in between neither start the guest on two sides nor end the process. A stop holds wherever the guest goes on."""
import socket

import pytest

import ferry
from ferry import migration as m

MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults', '-m', '16M']
PAUSE = ('events', 'return-path', 'pause-before-switchover')


@pytest.fixture
def source(vmm):
    def start(*args, caps=PAUSE):
        vm = vmm(*MACHINE, *args, defaults=False, name='source')
        m.set_caps(vm, *caps)
        return vm
    return start


@pytest.fixture
def destination(vmm, work):
    vm = vmm(*MACHINE, '-incoming', 'defer', defaults=False, name='destination')
    m.set_caps(vm, 'events', 'return-path')
    vm.cmd('migrate-incoming', uri=f'unix:{work}/in', exit_on_error=False)
    return vm


def at_pre_switchover(vm, uri):
    vm.cmd('migrate', uri=uri)
    m.wait_status(vm, 'pre-switchover')


def refused(vm, command, *words):
    with pytest.raises(ferry.QMPError) as error:
        vm.cmd(command)
    for word in words:
        assert word in str(error.value)


def states(vm):
    return [e['event'] for e in vm.events if e['event'] in ('STOP', 'RESUME')]


def test_a_guest_stopped_at_pre_switchover_does_not_run_on_either_side(source, destination, work):
    vm = source()
    at_pre_switchover(vm, f'unix:{work}/in')
    vm.cmd('stop')
    assert m.run_state(vm) == 'finish-migrate'
    refused(vm, 'cont', 'Migration is not finalized yet')
    vm.cmd('migrate-continue', state='pre-switchover')
    assert m.wait_over(vm)['status'] == 'completed'
    assert m.wait_over(destination)['status'] == 'completed'
    assert m.run_state(vm) == 'postmigrate'
    assert m.run_state(destination) == 'paused'
    destination.cmd('cont')
    assert m.run_state(destination) == 'running'


@pytest.mark.parametrize('args, stop, expected', [([], False, 'running'), ([], True, 'paused'),
                                                  (['-S'], False, 'prelaunch'), (['-S'], True, 'paused')])
def test_a_guest_given_back_is_as_it_was_or_as_it_was_told_meanwhile(source, destination, work, args, stop, expected):
    vm = source(*args)
    at_pre_switchover(vm, f'unix:{work}/in')
    if stop:
        vm.cmd('stop')
    refused(vm, 'cont')
    vm.cmd('migrate_cancel')
    assert m.wait_status(vm, 'cancelled')
    assert m.run_state(vm) == expected
    vm.cmd('cont')
    assert m.run_state(vm) == 'running'
    assert states(vm)[-1] == 'RESUME'


def test_stop_and_cont_while_the_destination_has_not_answered(source, work):
    vm = source(caps=('events', 'return-path'))
    sink = m.Sink(work / 'sink', verdict=None, close=False)
    vm.cmd('migrate', uri=sink.uri)
    assert sink.read_all.wait(m.LIMIT_S)
    vm.cmd('stop')
    refused(vm, 'cont', 'Migration is not finalized yet')
    assert m.run_state(vm) == 'finish-migrate'
    sink.say(m.SHUT, m.be32(0))
    assert m.wait_over(vm)['status'] == 'completed'
    assert m.run_state(vm) == 'postmigrate'
    sink.drop()


def test_a_guest_that_the_destination_refuses_stays_stopped_when_it_was_told_to(source, work):
    vm = source(caps=('events', 'return-path'))
    sink = m.Sink(work / 'sink', verdict=None, close=False)
    vm.cmd('migrate', uri=sink.uri)
    assert sink.read_all.wait(m.LIMIT_S)
    vm.cmd('stop')
    sink.say(m.SHUT, m.be32(1))
    assert m.wait_over(vm)['status'] == 'failed'
    assert m.run_state(vm) == 'paused'
    sink.drop()


def test_a_reset_is_refused_while_the_guest_is_on_its_way(source, destination, work):
    vm = source()
    at_pre_switchover(vm, f'unix:{work}/in')
    refused(vm, 'system_reset', 'Migration is not finalized yet')
    assert vm.seen('RESET') == []
    vm.cmd('migrate_cancel')
    assert m.wait_status(vm, 'cancelled')
    vm.cmd('system_reset')
    assert len(vm.seen('RESET')) == 1
    assert m.run_state(vm) == 'running'


def test_disks_of_a_guest_on_its_way_are_the_migrations(source, destination, work):
    vm = source()
    vm.cmd('blockdev-add', driver='null-co', node_name='disk', size=ferry.MIB)
    at_pre_switchover(vm, f'unix:{work}/in')
    for active in (False, True):
        with pytest.raises(ferry.QMPError, match='Migration is not finalized yet'):
            vm.cmd('blockdev-set-active', node_name='disk', active=active)
    vm.cmd('migrate_cancel')
    assert m.wait_status(vm, 'cancelled')
    vm.cmd('blockdev-set-active', node_name='disk', active=False)


def test_an_export_does_not_take_the_disk_of_a_guest_that_has_left(source, work):
    vm = source(caps=('events', 'return-path'))
    vm.cmd('blockdev-add', driver='null-co', node_name='disk', size=ferry.MIB)
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': f'{work}/nbd'}})
    sink = m.Sink(work / 'sink', verdict=None, close=False)
    vm.cmd('migrate', uri=sink.uri)
    assert sink.read_all.wait(m.LIMIT_S)
    with pytest.raises(ferry.QMPError, match='Migration is not finalized yet'):
        vm.cmd('block-export-add', type='nbd', id='e', node_name='disk')
    assert not vm.cmd('query-named-block-nodes')[0]['active']
    sink.say(m.SHUT, m.be32(1))
    assert m.wait_over(vm)['status'] == 'failed'
    vm.cmd('block-export-add', type='nbd', id='e', node_name='disk')
    sink.drop()


def stream(pieces, *names):
    return b''.join(pieces[name] for name in pieces if name in names)


def test_a_reset_is_refused_while_the_guest_is_loaded(destination, work):
    """What was loaded stays as the source says."""
    destination.cmd('system_reset')
    pieces = {**m.base(), 'start': m.ram_start([('ram', 16 * ferry.MIB)])}
    conn = socket.socket(socket.AF_UNIX)
    conn.connect(f'{work}/in')
    conn.sendall(stream(pieces, 'header', 'configuration', 'start'))
    m.wait_status(destination, 'active')
    refused(destination, 'system_reset', 'being loaded')
    conn.sendall(stream(pieces, 'end', 'devices', 'globalstate', 'eof', 'description'))
    assert m.wait_over(destination)['status'] == 'completed'
    destination.cmd('system_reset')
    assert m.run_state(destination) == 'running'
    conn.close()


def test_a_guest_stopped_before_its_migration_stops_is_stopped_at_the_destination(source, destination, work):
    vm = source(caps=('events', 'return-path'))
    vm.cmd('stop')
    vm.cmd('migrate', uri=f'unix:{work}/in')
    assert m.wait_over(vm)['status'] == 'completed'
    assert m.wait_over(destination)['status'] == 'completed'
    assert m.run_state(destination) == 'paused'


@pytest.mark.parametrize('command', ['quit', 'migrate_cancel'])
def test_the_process_ends_in_order_from_pre_switchover(source, destination, work, command):
    vm = source('-S')
    at_pre_switchover(vm, f'unix:{work}/in')
    vm.cmd('stop')
    vm.cmd(command)
    if command != 'quit':
        vm.cmd('quit')
    assert vm.wait_exit() == 0
