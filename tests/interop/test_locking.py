# SPDX-License-Identifier: GPL-2.0-or-later
"""Images in use are locked the way stock QEMU locks them: each refuses what the other is writing to."""
import subprocess

import pytest

import ferry

SIZE = ferry.MIB
LOCKED = r'Failed to get ("write"|shared "write"|"consistent read"|shared "consistent read"|"resize"|shared "resize") lock'


@pytest.fixture(params=['raw', 'qcow2'])
def image(request, work):
    path = ferry.make_image(work / 'disk', SIZE, request.param)
    return path, request.param


@pytest.fixture
def qcow2(work):
    """A format with metadata keeps other writers out by itself; a raw node leaves that to its users."""
    return ferry.make_image(work / 'disk', SIZE, 'qcow2'), 'qcow2'


def add(vm, image, file_options=None, **options):
    vm.add(image[1], 'disk', file={'driver': 'file', 'filename': str(image[0]), **(file_options or {})}, **options)


def stock_io(image, command, *options):
    done = subprocess.run(['timeout', '30', 'qemu-io', '-f', image[1], *options, '-c', command, image[0]],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return done.stdout + done.stderr


def test_tools_refuse_what_we_have_open(vm, qcow2):
    add(vm, qcow2)
    uri = vm.export('disk')
    for command, options in (('write 0 512', ()), ('read 0 512', ('-r',))):
        assert 'Is another process using the image' in stock_io(qcow2, command, *options)
    with pytest.raises(AssertionError, match='Failed to get shared "write" lock'):
        ferry.qemu_img('info', qcow2[0])
    with pytest.raises(AssertionError, match='lock'):
        ferry.qemu_img('resize', '-f', qcow2[1], qcow2[0], '2M')
    handle = ferry.nbd_connect(uri)
    handle.pwrite(b'x' * 512, 0)
    handle.shutdown()


def test_tools_may_look_if_they_insist(vm, image):
    add(vm, image)
    ferry.qemu_img('info', '-U', image[0])
    assert 'read 512/512' in stock_io(image, 'read 0 512', '-U', '-r')


def test_we_refuse_what_a_server_writes_to(vm, qcow2, qemu_nbd):
    server = qemu_nbd(qcow2[0], qcow2[1])
    handle = ferry.nbd_connect(server.uri)
    for options in ({}, {'read_only': True}):
        with pytest.raises(ferry.QMPError, match=LOCKED):
            add(vm, qcow2, **options)
    handle.shutdown()
    server.close()
    add(vm, qcow2)


def test_we_may_look_if_we_insist(vm, image, qemu_nbd):
    server = qemu_nbd(image[0], image[1])
    handle = ferry.nbd_connect(server.uri)
    handle.pwrite(b'x' * 512, 0)
    handle.flush()
    add(vm, image, read_only=True, force_share=True)
    assert 'read 512/512' in vm.qemu_io('disk', 'read 0 512')
    handle.shutdown()


def test_force_share_is_for_readers(vm, image):
    with pytest.raises(ferry.QMPError, match='force-share=on can only be used with read-only'):
        add(vm, image, force_share=True)


def test_readers_share(vm, image, qemu_nbd):
    server = qemu_nbd(image[0], image[1], '-r')
    handle = ferry.nbd_connect(server.uri)
    add(vm, image, read_only=True)
    assert 'read 512/512' in vm.qemu_io('disk', 'read 0 512')
    assert 'read 512/512' in stock_io(image, 'read 0 512', '-r')
    assert handle.pread(512, 0) == bytes(512)
    handle.shutdown()


def test_reader_keeps_writers_out(vm, qcow2):
    add(vm, qcow2, read_only=True)
    assert 'Is another process using the image' in stock_io(qcow2, 'write 0 512')


def test_locking_can_be_switched_off(vm, image):
    add(vm, image, {'locking': 'off'})
    assert 'wrote 512/512' in stock_io(image, 'write 0 512')


def test_locks_go_with_the_node_and_with_the_process(vmm, image):
    vm = vmm()
    add(vm, image)
    vm.cmd('blockdev-del', node_name='disk')
    assert 'wrote 512/512' in stock_io(image, 'write 0 512')
    add(vm, image)
    vm.kill()
    assert 'wrote 512/512' in stock_io(image, 'write 0 512')


def test_two_of_us_refuse_each_other(vmm, qcow2):
    one, two = vmm(), vmm()
    add(one, qcow2)
    with pytest.raises(ferry.QMPError, match=LOCKED):
        add(two, qcow2)
    add(two, qcow2, read_only=True, force_share=True)


def test_mirror_leaves_the_source_and_locks_the_copy(vm, work):
    source, copy = (ferry.make_image(work / name, SIZE, 'qcow2') for name in ('source', 'copy'))
    vm.add_file(source, 'qcow2', node_name='disk')
    vm.add_file(copy, 'qcow2', node_name='copy')
    vm.export('disk')
    vm.cmd('blockdev-mirror', job_id='j', device='disk', target='copy', sync='full')
    vm.wait('BLOCK_JOB_READY', device='j')
    for path in (source, copy):
        assert 'Is another process' in stock_io((path, 'qcow2'), 'write 0 512')
    vm.cmd('block-job-complete', device='j')
    vm.wait('BLOCK_JOB_COMPLETED', device='j')
    vm.cmd('blockdev-del', node_name='disk')
    assert 'wrote' in stock_io((source, 'qcow2'), 'write 0 512')
    assert 'Is another process' in stock_io((copy, 'qcow2'), 'write 0 512')
