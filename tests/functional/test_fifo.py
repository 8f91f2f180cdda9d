# SPDX-License-Identifier: GPL-2.0-or-later
"""A user names a FIFO where a file is expected: a FIFO without another end holds up neither a monitor nor the end."""
import os

import pytest

import ferry
from ferry import migration as m

PASSWORD = b'correct horse'
COMMANDS = {
    'log of a chardev': ('chardev-add', {'id': 'c', 'backend': {'type': 'null', 'data': {'logfile': 'FIFO'}}}),
    'file of a chardev': ('chardev-add', {'id': 'c', 'backend': {'type': 'file', 'data': {'out': 'FIFO'}}}),
    'image': ('blockdev-add', {'driver': 'file', 'node-name': 'n', 'filename': 'FIFO', 'read-only': True}),
    'memory': ('object-add', {'qom-type': 'memory-backend-file', 'id': 'm', 'mem-path': 'FIFO', 'size': ferry.MIB,
                              'readonly': True}),
    'dump of memory': ('pmemsave', {'val': 0, 'size': 4096, 'filename': 'FIFO'}),
    'pattern of qemu-io': ('human-monitor-command', {'command-line': 'qemu-io disk "write -s FIFO 0 4k"'}),
}


@pytest.fixture
def fifo(work):
    path = work / 'fifo'
    os.mkfifo(path)
    return str(path)


@pytest.fixture
def disk(vm, work):
    vm.add_file(ferry.make_image(work / 'disk.raw', ferry.MIB), node_name='disk')


def filled(value, fifo):
    if isinstance(value, dict):
        return {name: filled(item, fifo) for name, item in value.items()}
    return value.replace('FIFO', fifo) if isinstance(value, str) else value


@pytest.mark.usefixtures('disk')
@pytest.mark.parametrize('use', COMMANDS)
def test_command_does_not_wait_for_the_other_end(vm, fifo, use):
    command, args = COMMANDS[use]
    if use == 'pattern of qemu-io':
        assert 'file is empty' in vm.hmp(filled(args, fifo)['command-line']) + vm.stderr()
        return
    with pytest.raises(ferry.QMPError):
        vm.cmd(command, filled(args, fifo))


def test_secret_of_a_silent_writer_holds_up_no_other_monitor(vmm, fifo, work):
    path = str(work / 'second')
    vm = vmm('-chardev', f'socket,id=c,path={path},server=on,wait=off', '-mon', 'chardev=c,mode=control')
    second = ferry.QMPClient.connect(path)
    sent = second.send('object-add', {'qom-type': 'secret', 'id': 's', 'file': fifo})
    with open(fifo, 'wb') as writer:
        for _ in range(3):
            vm.cmd('query-block')
        writer.write(PASSWORD)
    assert second.reply(sent) == {}


def test_log_that_is_not_read_holds_up_nothing(vmm, fifo):
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    vm = vmm('-chardev', f'ringbuf,id=c,logfile={fifo}', '-mon', 'chardev=c,mode=readline')
    for _ in range(40):                     # the pipe has room for 64 KiB
        vm.cmd('ringbuf-write', device='c', data='x' * 4096)
    os.close(reader)
    vm.quit()


def test_guest_arrives_through_a_fifo(vmm, vm, fifo):
    """The destination is there first, as with two commands of a shell; it waits for the source."""
    destination = vmm('-incoming', 'defer', name='destination')
    destination.cmd('migrate-incoming', uri=f'file:{fifo}')
    for _ in range(20):
        assert destination.cmd('query-migrate')['status'] == 'setup'
    vm.cmd('migrate', uri=f'file:{fifo}')
    m.wait_status(vm, 'completed')
    m.wait_status(destination, 'completed')


def test_migration_into_a_fifo_that_is_not_read_fails(vm, fifo):
    vm.cmd('migrate', uri=f'file:{fifo}')
    assert m.wait_status(vm, 'failed')
    assert 'No such device or address' in vm.cmd('query-migrate')['error-desc']


def test_destination_that_waits_at_a_fifo_ends(vmm, fifo):
    vm = vmm('-incoming', f'file:{fifo}')
    assert vm.cmd('query-status')['status'] == 'inmigrate'
    vm.quit()
