# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt 9.0 and 11.3 ask when they look at a new binary is answered in a way they can live with."""
import os
import subprocess

import pytest

import ferry


@pytest.fixture(params=['kvm:tcg', 'tcg'])
def probed(request, work):
    """Started with the options of the probe; a connected client."""
    path, pidfile = str(work / 'qmp'), work / 'pid'
    subprocess.run([*ferry.binary(), '-S', '-no-user-config', '-nodefaults', '-nographic', '-machine',
                    f'none,accel={request.param}', '-qmp', f'unix:{path},server=on,wait=off', '-pidfile', pidfile,
                    '-daemonize'], check=True, timeout=60, stdin=subprocess.DEVNULL)
    pid = int(pidfile.read_text())
    client = ferry.QMPClient.connect(path)
    yield client
    os.kill(pid, 15)
    client.wait_closed()
    client.close()


@pytest.mark.parametrize('command, members', [
    ('query-version', {'qemu', 'package'}), ('query-target', {'arch'}), ('query-kvm', {'enabled', 'present'}),
    ('query-qmp-schema', None), ('query-commands', None), ('qom-list-types', None), ('query-machines', None),
    ('query-command-line-options', None),
])
def test_what_has_to_succeed_does(probed, command, members):
    answer = probed.cmd(command)
    assert answer and (members is None or members <= set(answer))


def test_types_that_do_not_exist_are_told_apart_from_failures(probed):
    assert isinstance(probed.cmd('device-list-properties', typename='isa-serial'), list)
    for name in ('virtio-blk-pci', 'virtio-net-pci'):
        with pytest.raises(ferry.QMPError) as error:
            probed.cmd('device-list-properties', typename=name)
        assert error.value.cls == 'DeviceNotFound'
    for name in ('memory-backend-file', 'memory-backend-memfd', 'max-x86_64-cpu', 'none-machine', 'generic-pc-machine'):
        assert isinstance(probed.cmd('qom-list-properties', typename=name), list)


def test_commands_that_may_be_missing_say_so(probed):
    offered = {c['name'] for c in probed.cmd('query-commands')}
    for name in ('query-tpm-models', 'query-tpm-types'):
        assert name not in offered
        with pytest.raises(ferry.QMPError) as error:
            probed.cmd(name)
        assert error.value.cls == 'CommandNotFound'
