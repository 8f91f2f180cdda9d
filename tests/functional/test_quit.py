# SPDX-License-Identifier: GPL-2.0-or-later
"""The process ends when it is told to, also when servers that hold its disks do not answer; whatever can be written is written."""
import os
import re
import signal
import socket

import pytest

import ferry

MIB = ferry.MIB
SIZE = 8 * MIB


nbd = pytest.importorskip('nbd', reason='python3-libnbd is not installed')


def write_unflushed(uri, byte):
    handle = ferry.nbd_connect(uri)
    handle.pwrite(byte * MIB, MIB)
    return handle


def given_up(vm):
    return sorted(re.findall(r"node '([^']*)' is given up: its server has not answered", vm.stderr()))


@pytest.mark.parametrize('reconnect_delay', [0, 10])
def test_connection_that_was_cut_comes_back_for_what_is_not_written_yet(vmm, work, qemu_nbd, reconnect_delay):
    """The metadata of an image is written at the end; its server takes connections again only after that began."""
    image = ferry.make_image(work / 'far.qcow2', SIZE, 'qcow2')
    os.truncate(image, 2 * SIZE)
    server = qemu_nbd(image)
    vm = vmm()
    vm.cmd('blockdev-add', {**server.node('far', reconnect_delay=reconnect_delay), 'driver': 'qcow2'})
    handle = write_unflushed(vm.export('far'), b'f')
    server.signal(signal.SIGSTOP)
    vm.cmd('yank', instances=[i for i in vm.cmd('query-yank') if i['type'] == 'block-node'])
    vm.send('quit')
    vm.wait('SHUTDOWN')
    server.signal(signal.SIGCONT)
    assert vm.wait_exit() == 0
    assert vm.stderr() == ''
    del handle
    server.close()
    assert ferry.read_raw(image, 'qcow2')[MIB:2 * MIB] == b'f' * MIB


def test_servers_that_do_not_answer_are_given_up_and_the_others_flushed(vmm, work, nbdkit, qemu_nbd):
    """One is gone, one hangs, one hangs below an image of another thread; one works; a fifth keeps an opening node waiting."""
    vm = vmm('-object', 'iothread,id=thread', '-qmp', f'unix:{work}/second.qmp,server=on,wait=off')
    layer = ferry.make_image(work / 'layer.qcow2', SIZE, 'qcow2')
    image = ferry.make_image(work / 'good.qcow2', SIZE, 'qcow2')
    for path in (layer, image):
        os.truncate(path, 2 * SIZE)             # room to allocate: a server's file keeps its length
    servers = {'gone': nbdkit('memory', str(SIZE)), 'hung': nbdkit('memory', str(SIZE)),
               'below': qemu_nbd(layer), 'good': qemu_nbd(image)}
    for name, server in servers.items():
        node = server.node(name, reconnect_delay=600)
        node['file']['node-name'] = f'{name}-nbd'
        if name in ('below', 'good'):
            node['driver'] = 'qcow2'
        vm.cmd('blockdev-add', node)
    uris = {name: vm.export(name, name) for name in ('gone', 'hung', 'good')}
    vm.cmd('block-export-add', type='nbd', id='below', node_name='below', writable=True, iothread='thread')
    uris['below'] = uris['gone'].replace('/gone?', '/below?')
    handles = {name: write_unflushed(uris[name], name[:1].encode()) for name in servers}
    servers['gone'].kill()
    servers['hung'].signal(signal.SIGSTOP)
    servers['below'].signal(signal.SIGSTOP)
    handles['hung'].aio_pwrite(nbd.Buffer.from_bytearray(bytearray(MIB)), 2 * MIB)
    handles['hung'].poll(0)
    opening = nbdkit('--filter=delay', 'file', str(image), 'rdelay=3600').node('opening')
    opening['file']['node-name'] = 'opening-nbd'
    vm.send('blockdev-add', {**opening, 'driver': 'qcow2'})
    ferry.QMPClient.connect(f'{work}/second.qmp').cmd('quit')
    vm.wait_exit(60)
    assert given_up(vm) == ['below-nbd', 'gone-nbd', 'hung-nbd']
    vm.close()
    for name in ('hung', 'below'):
        servers[name].signal(signal.SIGCONT)
    for server in servers.values():
        server.close()
    assert ferry.qemu_io(image, 'read -P 0x67 1M 1M', fmt='qcow2')
    ferry.check_qcow2(image)
    ferry.check_qcow2(layer, leaks=True)


def silent(work):
    """A server that takes connections and says nothing."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(f'{work}/silent')
    server.listen()
    return server, {'driver': 'nbd', 'server': {'type': 'unix', 'path': f'{work}/silent'}}


@pytest.mark.parametrize('where', ['greeting', 'greeting of many', 'connection', 'first block'])
def test_what_is_being_opened_is_not_waited_for(vmm, work, nbdkit, where):
    vm = vmm('-qmp', f'unix:{work}/second.qmp,server=on,wait=off')
    server, node = silent(work)
    if where == 'greeting of many':
        node['open-timeout'] = 600
    elif where == 'connection':
        server.close()
        node['open-timeout'] = 600
    elif where == 'first block':
        node = nbdkit('--filter=delay', 'memory', str(SIZE), 'rdelay=3600').node('disk')['file']
    sent = vm.send('blockdev-add', {'driver': 'qcow2', 'node-name': 'disk', 'file': node})
    ferry.QMPClient.connect(f'{work}/second.qmp').cmd('quit')
    with pytest.raises(ferry.QMPError):
        vm.reply(sent)
    vm.wait_exit(60)
    assert not given_up(vm)


def test_a_server_that_flushes_slowly_is_waited_for(vm, work, nbdkit):
    """It answers other requests meanwhile, so it is alive."""
    need_flush = f'touch {work}/asked; while [ ! -e {work}/go ]; do sleep 0.1; done'
    server = nbdkit('eval', f'get_size=echo {SIZE}', 'pread=dd if=/dev/zero count=$3 iflag=count_bytes status=none',
                    'pwrite=cat >/dev/null', 'can_write=exit 0', 'can_flush=exit 0', f'flush={need_flush}',
                    'thread_model=echo parallel')
    vm.cmd('blockdev-add', server.node('disk'))
    vm.qemu_io('disk', 'write 0 64k')
    vm.cmd('quit')
    guard = ferry.Guard(60)
    while 'is waited for: its server is alive' not in vm.stderr():
        assert vm.running()
        guard.left()
    (work / 'go').touch()
    vm.wait_exit(60)
    assert (work / 'asked').exists() and not given_up(vm)
