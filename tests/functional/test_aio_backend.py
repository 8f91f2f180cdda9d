# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks work without io_uring too, by epoll and threads, whether the kernel or a filter refuses it."""
import os
import sys

import pytest

import ferry

SIZE = 8 * ferry.MIB

# Runs the rest of the command line with io_uring_setup(2) answered by an error, as container managers do. It uses a
# seccomp filter of four instructions (load the number, compare, errno, allow).
REFUSE = '''
import ctypes, os, struct, sys
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
IO_URING_SETUP, RET_ERRNO, RET_ALLOW = 425, 0x50000, 0x7fff0000
code = b''.join(struct.pack('HBBI', *i) for i in (
    (0x20, 0, 0, 0), (0x15, 0, 1, IO_URING_SETUP), (0x06, 0, 0, RET_ERRNO | int(sys.argv[1])), (0x06, 0, 0, RET_ALLOW)))
text = ctypes.create_string_buffer(code)
program = struct.pack('HxxxxxxP', len(code) // 8, ctypes.addressof(text))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program):
    sys.exit(77)
os.execvp(sys.argv[2], sys.argv[2:])
'''


def rings(vm):
    """Descriptors of io_uring that the process has."""
    found = []
    for fd in os.listdir(f'/proc/{vm.pid}/fd'):
        try:
            found.append(os.readlink(f'/proc/{vm.pid}/fd/{fd}'))
        except FileNotFoundError:
            pass
    return sum('io_uring' in name for name in found)


def serve_and_copy(vm, work):
    """Clients write while a mirror runs; the copy is right."""
    source = ferry.make_image(work / 'source.raw', SIZE, seed=1, data=SIZE // 2)
    copy = ferry.make_image(work / 'copy.qcow2', SIZE, 'qcow2')
    model = ferry.Model(SIZE, source)
    vm.add_file(source, node_name='disk', discard='unmap')
    vm.add_file(copy, 'qcow2', node_name='copy')
    writers = ferry.run_writers(vm.export('disk'), model, seed=2, count=2, rate=20 * ferry.MIB)
    vm.cmd('blockdev-mirror', job_id='j', device='disk', target='copy', sync='full')
    vm.wait('BLOCK_JOB_READY', device='j')
    writers[0].wait_count(50)
    for writer in writers:
        writer.stop()
    vm.cmd('block-job-complete', device='j')
    vm.wait('BLOCK_JOB_COMPLETED', device='j', where=lambda data: 'error' not in data)


@pytest.mark.parametrize('number', [1, 38, 12], ids=['EPERM', 'ENOSYS', 'ENOMEM'])
def test_refused_io_uring_is_no_loss(vmm, work, number):
    vm = vmm(command=[sys.executable, '-c', REFUSE, str(number), *ferry.binary()])
    assert rings(vm) == 0
    serve_and_copy(vm, work)
    assert rings(vm) == 0
    vm.quit()
    ferry.compare(work / 'source.raw', work / 'copy.qcow2', b_fmt='qcow2')


def test_iothread_without_io_uring_serves_too(vmm, work):
    vm = vmm('-object', 'iothread,id=t', command=[sys.executable, '-c', REFUSE, '1', *ferry.binary()])
    source = ferry.make_image(work / 'source.raw', SIZE, seed=1, data=SIZE)
    vm.add_file(source, node_name='disk')
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(work / 'nbd')}})
    vm.cmd('block-export-add', type='nbd', id='e', node_name='disk', name='disk', writable=True, iothread='t')
    ferry.qemu_img('compare', '-f', 'raw', '-F', 'raw', source, f'nbd+unix:///disk?socket={work}/nbd')
    assert rings(vm) == 0


def test_back_end_is_chosen_by_the_environment(vmm, work):
    vm = vmm(env={'FERRY_AIO': 'epoll'})
    assert rings(vm) == 0
    serve_and_copy(vm, work)
    vm.quit()
    ferry.compare(work / 'source.raw', work / 'copy.qcow2', b_fmt='qcow2')


def test_io_uring_that_was_asked_for_and_refused_is_an_error(work):
    done = ferry.VMM(work, command=[sys.executable, '-c', REFUSE, '1', *ferry.binary()], env={'FERRY_AIO': 'io_uring'}, qmp=False)
    try:
        done.expected = {1}
        done.wait_exit()
        assert 'io_uring' in done.stderr()
    finally:
        done.close()


def test_iothread_polls_as_long_as_it_was_told(vmm):
    vm = vmm('-object', 'iothread,id=plain', '-object', 'iothread,id=told,poll-max-ns=5000,poll-grow=3,poll-shrink=4')

    def polling(name):
        info = next(t for t in vm.cmd('query-iothreads') if t['id'] == name)
        return info['poll-max-ns'], info['poll-grow'], info['poll-shrink']

    assert polling('plain') == (32768, 0, 0)
    assert polling('told') == (5000, 3, 4)
    vm.cmd('qom-set', path='/objects/plain', property='poll-max-ns', value=0)
    assert polling('plain') == (0, 0, 0)
    assert vm.cmd('qom-get', path='/objects/told', property='poll-grow') == 3
    for value, why in (-1, 'must be in range'), ('much', 'expected: integer'):
        with pytest.raises(ferry.QMPError, match=why):
            vm.cmd('qom-set', path='/objects/told', property='poll-shrink', value=value)
    with pytest.raises(ferry.QMPError, match='poll-max-ns value must be in range'):
        vm.cmd('object-add', qom_type='iothread', id='bad', poll_max_ns=-1)
    assert polling('told') == (5000, 3, 4)
