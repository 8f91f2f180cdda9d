# SPDX-License-Identifier: GPL-2.0-or-later
"""The binary starts, says its name and version, and ends when told."""
import json
import signal
import subprocess

import pytest

import ferry


def run(*args):
    return subprocess.run([*ferry.binary(), *args], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
                          check=False)


@pytest.mark.parametrize('option', ['-version', '--version'])
def test_version_names_the_emulator(option):
    done = run(option)
    assert done.returncode == 0
    assert done.stdout.startswith('QEMU emulator version ')     # libvirt and others look for these words


@pytest.mark.parametrize('option', ['-h', '-help', '--help'])
def test_help_lists_options(option):
    done = run(option)
    assert done.returncode == 0
    for word in ('-blockdev', '-qmp', '-machine', '-chardev'):
        assert word in done.stdout


def test_unknown_option_is_an_error_that_names_it():
    done = run('-no-such-option')
    assert done.returncode == 1
    assert '-no-such-option' in done.stderr


def test_machine_help_lists_none():
    done = run('-machine', 'help')
    assert done.returncode == 0
    assert any(line.split()[0] == 'none' for line in done.stdout.splitlines() if line.strip())


def test_unknown_machine_is_an_error():
    done = run('-machine', 'bicycle')
    assert done.returncode == 1
    assert 'machine type' in done.stderr


def test_quit_ends_with_status_0(vm):
    assert vm.cmd('quit') == {}
    assert vm.wait_exit() == 0


def test_quit_announces_shutdown(vm):
    vm.cmd('quit')
    event = vm.wait('SHUTDOWN')
    assert event['data'] == {'guest': False, 'reason': 'host-qmp-quit'}


def test_a_running_guest_that_ends_is_not_reported_stopped(vm):
    vm.cmd('cont')
    vm.cmd('quit')
    assert vm.wait_exit() == 0
    assert [e['event'] for e in vm.events] == ['RESUME', 'SHUTDOWN']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_in_order(vm, number):
    vm.process.send_signal(number)
    event = vm.wait('SHUTDOWN')
    assert event['data'] == {'guest': False, 'reason': 'host-signal'}
    assert vm.wait_exit() == 0


def test_status_after_start_with_S(vm):
    status = vm.cmd('query-status')
    assert status['status'] == 'prelaunch'
    assert status['running'] is False


def test_pidfile_holds_the_pid(vmm, work):
    vm = vmm('-pidfile', work / 'pid')
    assert int((work / 'pid').read_text()) == vm.pid
    vm.quit()
    assert not (work / 'pid').exists()


def test_name_is_reported(vmm):
    vm = vmm('-name', 'guest=ferry-boat')
    assert vm.cmd('query-name') == {'name': 'ferry-boat'}


def test_uuid_is_reported(vmm):
    uuid = '9d3c5c9c-1e0b-4a5e-8a5c-1f1f4c5e6d7a'
    vm = vmm('-uuid', uuid)
    assert vm.cmd('query-uuid') == {'UUID': uuid}


def test_blockdev_on_the_command_line(vmm, work):
    ferry.make_image(work / 'a.raw', ferry.MIB)
    node = {'driver': 'raw', 'node-name': 'a', 'file': {'driver': 'file', 'filename': str(work / 'a.raw')}}
    vm = vmm('-blockdev', json.dumps(node), '-blockdev', 'driver=null-co,node-name=b,size=4096,read-zeroes=on')
    nodes = {n['node-name']: n for n in vm.cmd('query-named-block-nodes', flat=True)}
    assert nodes['a']['image']['virtual-size'] == ferry.MIB
    assert nodes['b']['image']['virtual-size'] == 4096


def test_missing_image_is_an_error_that_names_it(work):
    done = run('-machine', 'none', '-display', 'none', '-nodefaults',
               '-blockdev', f'driver=file,node-name=a,filename={work}/missing')
    assert done.returncode == 1
    assert f'{work}/missing' in done.stderr
    assert 'No such file' in done.stderr


@pytest.mark.parametrize('address', ['tcp:127.1:0', 'tcp:127.0.0.1:0', 'tcp::0'])
def test_the_first_command_finds_the_destination_listening(address):
    commands = [{'execute': name} for name in ('qmp_capabilities', 'query-migrate', 'quit')]
    for _ in range(5):
        done = subprocess.run([*ferry.binary(), '-machine', 'none', '-nodefaults', '-display', 'none', '-qmp', 'stdio',
                               '-incoming', address], input='\n'.join(map(json.dumps, commands)), capture_output=True,
                              text=True, timeout=60, check=True)
        info = json.loads(done.stdout.splitlines()[2])['return']
        assert info['status'] == 'setup'
        assert int(info['socket-address'][0]['port']) > 0
