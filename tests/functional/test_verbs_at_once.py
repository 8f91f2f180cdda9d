# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of several monitors that wait for the same requests: whatever order they go on in, clients read what they wrote."""
import socket

import pytest

import ferry

MIB = ferry.MIB
SIZE = 4 * MIB
COMMANDS = {
    'snapshot-sync': lambda work: ('blockdev-snapshot-sync', {
        'node-name': 'disk', 'snapshot-file': f'{work}/new', 'snapshot-node-name': 'new', 'format': 'qcow2'}),
    'snapshot': lambda work: ('blockdev-snapshot', {'node': 'disk', 'overlay': 'overlay'}),
    'mirror': lambda work: ('blockdev-mirror', {'job-id': 'job', 'device': 'disk', 'target': 'copy', 'sync': 'full'}),
    'mirror to the overlay': lambda work: ('blockdev-mirror', {
        'job-id': 'job', 'device': 'disk', 'target': 'overlay', 'sync': 'full'}),
    'resize': lambda work: ('block_resize', {'node-name': 'disk', 'size': 2 * SIZE}),
}


@pytest.fixture
def scene(vmm, work):
    """A disk with an exported client, whose request hangs in blkdebug, and two further monitors."""
    sockets = [f'{work}/{number}.qmp' for number in range(2)]
    vm = vmm(*(word for path in sockets for word in ('-qmp', f'unix:{path},server=on,wait=off')))
    vm.cmd('blockdev-add', {'driver': 'raw', 'node-name': 'disk', 'file': {
        'driver': 'blkdebug', 'node-name': 'hangs',
        'image': {'driver': 'file', 'filename': str(ferry.make_image(work / 'disk.raw', SIZE, seed=1))}}})
    vm.add_file(ferry.make_image(work / 'copy.raw', SIZE), node_name='copy')
    vm.add_file(ferry.make_image(work / 'overlay.qcow2', SIZE, 'qcow2', backing=work / 'disk.raw'), 'qcow2', 'overlay', backing=None)
    vm.qemu_io('hangs', 'break write_aio A')
    vm.qemu_io('disk', 'aio_write -P 1 1M 64k')
    vm.qemu_io('hangs', 'wait_break A')
    others = [ferry.QMPClient.connect(path) for path in sockets]
    yield vm, others
    for one in others:
        one.close()


def outcome(monitor, sent):
    try:
        monitor.reply(sent)
    except ferry.QMPError as error:
        return error.desc
    return 'ok'


@pytest.mark.parametrize('first, second', [
    ('snapshot-sync', 'mirror'), ('mirror', 'snapshot-sync'), ('snapshot', 'mirror'), ('mirror', 'snapshot'),
    ('snapshot', 'mirror to the overlay'), ('mirror to the overlay', 'snapshot'), ('resize', 'mirror'), ('mirror', 'resize')])
def test_two_commands_that_exclude_each_other(scene, work, first, second):
    vm, others = scene
    sent = []
    for what, monitor in zip((first, second), others):
        sent.append(monitor.send(*COMMANDS[what](work)))
        vm.cmd('query-block')           # the commands' monitors have handed it over by then, or will do so soon
    vm.qemu_io('hangs', 'resume A')
    vm.qemu_io('disk', 'aio_flush')
    results = [outcome(*one) for one in zip(others, sent)]
    print(dict(zip((first, second), results)))
    assert 'ok' in results
    io = ferry.nbd_connect(vm.export(top(vm)))
    job = vm.job('job')
    model = bytearray(io.pread(SIZE, 0))
    for offset in range(0, SIZE, 512 * 1024):
        io.pwrite(bytes([7]) * 4096, offset)
        model[offset:offset + 4096] = bytes([7]) * 4096
    if job:
        vm.job_until('job', 'ready')
        vm.cmd('job-complete', id='job')
        vm.job_until('job', 'null')
    assert io.pread(SIZE, 0) == model


def top(vm):
    """The node above `disk` that clients would use."""
    name = 'disk'
    graph = vm.cmd('x-debug-query-block-graph')
    names = {node['id']: node for node in graph['nodes']}
    while True:
        here = next(n['id'] for n in graph['nodes'] if n['name'] == name and n['type'] == 'block-driver')
        above = [names[e['parent']] for e in graph['edges'] if e['child'] == here]
        above = [n['name'] for n in above if n['type'] == 'block-driver']
        if not above:
            return name
        name = above[0]


def test_a_node_that_is_still_being_opened_takes_no_commands(vmm, work):
    """Its server has not told its size yet."""
    path = f'{work}/opener.qmp'
    vm = vmm('-qmp', f'unix:{path},server=on,wait=off')
    vm.add_file(ferry.make_image(work / 'disk.raw', SIZE), node_name='disk')
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f'{work}/silent')
    listener.listen()
    opener = ferry.QMPClient.connect(path)
    opener.send('blockdev-add', {'driver': 'raw', 'node-name': 'late', 'file': {
        'driver': 'nbd', 'server': {'type': 'unix', 'path': f'{work}/silent'}}})
    peer = ferry.accept(listener, vm)
    for command, args in [('blockdev-mirror', {'job-id': 'job', 'device': 'disk', 'target': 'late', 'sync': 'full'}),
                          ('block_resize', {'node-name': 'late', 'size': MIB}),
                          ('block-dirty-bitmap-add', {'node': 'late', 'name': 'bitmap'})]:
        with pytest.raises(ferry.QMPError, match="Node 'late' is still being opened"):
            vm.cmd(command, args)
    with pytest.raises(ferry.QMPError, match="Duplicate nodes with node-name='late'"):
        vm.add('null-co', 'late')
    vm.quit()
    for one in (peer, listener):
        one.close()
    opener.close()


def two_monitors(vmm, work, *args):
    paths = [f'{work}/{number}.qmp' for number in range(2)]
    vm = vmm(*(word for path in paths for word in ('-qmp', f'unix:{path},server=on,wait=off')), *args)
    return vm, [ferry.QMPClient.connect(path) for path in paths]


def test_two_exports_do_not_get_one_id(vmm, work):
    """Each waits for its disk to be moved to an iothread."""
    vm, monitors = two_monitors(vmm, work, '-object', 'iothread,id=io')
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': f'{work}/nbd'}})
    for name in ('one', 'two'):
        vm.add_file(ferry.make_image(work / name, MIB), node_name=name)
    for _ in range(10):
        sent = [monitor.send('block-export-add', {'type': 'nbd', 'id': 'e', 'node-name': name, 'iothread': 'io'})
                for monitor, name in zip(monitors, ('one', 'two'))]
        results = [outcome(*one) for one in zip(monitors, sent)]
        assert sorted(results) == ["Block export id 'e' is already in use", 'ok']
        assert [export['id'] for export in vm.cmd('query-block-exports')] == ['e']
        vm.cmd('block-export-del', id='e')
        vm.wait('BLOCK_EXPORT_DELETED')


def test_nbd_server_that_is_stopped_while_it_starts_does_not_listen(vmm, work):
    """A start looks a name up; a stop meanwhile gives back the TLS credentials, without which it would serve any client."""
    vm, monitors = two_monitors(vmm, work, '-object', 'tls-creds-anon,id=tls,endpoint=server')
    for _ in range(60):
        with socket.create_server(('127.0.0.1', 0)) as free:
            port = free.getsockname()[1]
        address = {'type': 'inet', 'data': {'host': '127.0.0.1', 'port': str(port)}}
        sent = [monitors[0].send('nbd-server-start', {'addr': address, 'tls-creds': 'tls'}),
                monitors[1].send('nbd-server-stop')]
        for one in zip(monitors, sent):
            outcome(*one)
        outcome(vm.qmp, vm.qmp.send('nbd-server-stop'))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', port)).close()
