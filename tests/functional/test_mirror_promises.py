# SPDX-License-Identifier: GPL-2.0-or-later
"""What the mirror promises beyond a right copy: thin targets, bounded memory, progress that adds up, verbs while the target hangs."""
import signal
import threading
from pathlib import Path

import pytest

import ferry

MIB = ferry.MIB
SIZE = 16 * MIB
METADATA = 512 * 1024       # of a qcow2 image, or of a file system's extents


def start(vm, **args):
    vm.cmd('blockdev-mirror', {'job-id': 'm', 'device': 'disk', 'target': 'copy', 'sync': 'full',
                               **{k.replace('_', '-'): v for k, v in args.items()}})


def end(vm, verb='cancel'):
    vm.cmd(f'block-job-{verb}', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)


# --- thin stays thin ---

def thin_target(vm, work, qemu_nbd, kind, dirty):
    """Node `copy` of 64 MiB; path and format of the file behind it."""
    server, fmt = kind.split(':') if ':' in kind else (None, kind)
    old = {'seed': 6, 'data': 64 * MIB} if dirty else {}
    path = ferry.make_image(work / f'copy.{fmt}', 64 * MIB, fmt, **old)
    if server == 'qemu-nbd':
        vm.cmd('blockdev-add', {**qemu_nbd(path, fmt).node('copy'), 'discard': 'unmap'})
    else:
        vm.add_file(path, fmt, node_name='copy', discard='unmap')
    return path, fmt


@pytest.mark.parametrize('dirty', [False, True], ids=['new', 'used'])
@pytest.mark.parametrize('mode', ['background', 'write-blocking'])
@pytest.mark.parametrize('kind', ['raw', 'qcow2', 'qemu-nbd:raw', 'qemu-nbd:qcow2'])
@pytest.mark.parametrize('source_fmt', ['raw', 'qcow2'])
def test_copy_takes_no_more_room_than_its_source(vm, work, qemu_nbd, source_fmt, kind, mode, dirty):
    source = ferry.make_image(work / f'source.{source_fmt}', 64 * MIB, source_fmt, seed=5, data=4 * MIB)
    path, fmt = thin_target(vm, work, qemu_nbd, kind, dirty)
    vm.add_file(source, source_fmt, node_name='disk', discard='unmap')
    io = ferry.nbd_connect(vm.export('disk'))
    start(vm, copy_mode=mode)
    vm.wait('BLOCK_JOB_READY', device='m')
    for i in range(8):
        io.pwrite(bytes([i + 1]) * 65536, 48 * MIB + i * 256 * 1024)
    io.zero(MIB, 0)
    io.trim(MIB, MIB)
    io.shutdown()
    end(vm)
    vm.quit()
    ferry.compare(source, path, source_fmt, fmt)
    if dirty and fmt == 'qcow2':
        pytest.skip('freed clusters of a qcow2 file are used again, the file keeps its length')
    assert ferry.allocated(path) <= ferry.allocated(source) + METADATA


def test_trims_reach_the_source_while_it_is_mirrored(vm, work):
    source = ferry.make_image(work / 'source.raw', SIZE, seed=5)
    vm.add_file(source, node_name='disk', discard='unmap')
    vm.add_file(ferry.make_image(work / 'copy.raw', SIZE), node_name='copy', discard='unmap')
    io = ferry.nbd_connect(vm.export('disk'))
    start(vm)
    vm.wait('BLOCK_JOB_READY', device='m')
    io.trim(SIZE // 2, 0)
    assert ferry.allocated(source) == SIZE // 2
    io.zero(SIZE // 4, SIZE // 2)
    assert ferry.allocated(source) == SIZE // 4
    io.shutdown()
    end(vm)
    vm.quit()
    ferry.compare(source, work / 'copy.raw')
    assert ferry.allocated(work / 'copy.raw') == SIZE // 4


# --- memory ---

@pytest.mark.parametrize('source', ['null-co', 'file'])
@pytest.mark.parametrize('buf_size', [64 * 1024, MIB, 32 * MIB])
def test_memory_stays_within_the_buffers(vmm, work, source, buf_size):
    """A first job takes what any job takes, once; the second one shows what buf-size adds."""
    vm = vmm()
    if vm.sanitized():
        pytest.skip('a sanitizer keeps memory of its own')
    size = 512 * MIB
    if source == 'null-co':
        vm.add('null-co', 'disk', size=size, read_zeroes=False)
        vm.add('null-co', 'copy', size=size)
    else:
        vm.add_file(ferry.make_image(work / 'source.raw', size // 4, seed=1), node_name='disk')
        vm.add_file(ferry.make_image(work / 'copy.raw', size // 4), node_name='copy')
    vm.cmd('query-block-jobs')
    before = vm.memory_kib('VmHWM')
    start(vm, buf_size=buf_size)
    vm.wait('BLOCK_JOB_READY', device='m')
    grown = (vm.memory_kib('VmHWM') - before) * 1024
    end(vm)
    assert grown <= buf_size + 4 * MIB


# --- write-blocking ---

def test_a_long_write_reaches_source_and_target_as_one(vm, work):
    """Its parts are on their way to both sides at the same time: the guest waits for the slower side, once."""
    for name in ('disk', 'copy'):
        vm.add('raw', name, file={'driver': 'blkdebug', 'node-name': f'{name}-hook', 'image': {
            'driver': 'file', 'filename': str(ferry.make_image(work / f'{name}.raw', SIZE))}})
    io = ferry.nbd_connect(vm.export('disk'))
    start(vm, copy_mode='write-blocking')
    vm.wait('BLOCK_JOB_READY', device='m')
    held = [(side, f'{side}{i}') for side in ('disk', 'copy') for i in range(4)]
    for side, tag in held:
        vm.qemu_io(f'{side}-hook', f'break write_aio {tag}')
    guest = threading.Thread(target=io.pwrite, args=(b'\x5a' * 4 * MIB, MIB), daemon=True)
    guest.start()
    for side, tag in held:
        vm.qemu_io(f'{side}-hook', f'wait_break {tag}')
    for side, tag in reversed(held):
        vm.qemu_io(f'{side}-hook', f'resume {tag}')
    guest.join(60)
    assert not guest.is_alive()
    io.shutdown()
    end(vm)
    vm.quit()
    ferry.compare(work / 'disk.raw', work / 'copy.raw')


# --- progress ---

def test_ready_says_that_all_is_copied_although_guests_wrote_meanwhile(vm, work):
    vm.add_file(ferry.make_image(work / 'source.raw', SIZE, seed=1, data=MIB), node_name='disk')
    vm.add('raw', 'copy', file={'driver': 'blkdebug', 'node-name': 'hook', 'image': {
        'driver': 'file', 'filename': str(ferry.make_image(work / 'copy.raw', SIZE))}})
    io = ferry.nbd_connect(vm.export('disk'))
    vm.qemu_io('hook', 'break flush_to_disk here')
    start(vm)
    vm.qemu_io('hook', 'wait_break here')
    io.pwrite(b'\1' * MIB, 4 * MIB)
    vm.qemu_io('hook', 'resume here')
    ready = vm.wait('BLOCK_JOB_READY', device='m')['data']
    assert ready['offset'] == ready['len']
    io.shutdown()
    end(vm)
    vm.quit()
    ferry.compare(work / 'source.raw', work / 'copy.raw')


# --- a target that hangs ---

@pytest.fixture
def vm(vmm, work):
    """With a second monitor: commands of one are done one after the other, so one that waits holds up the rest of its own."""
    one = vmm('-qmp', f'unix:{work}/second.qmp,server=on,wait=off', '-trace', 'nbd_client_request')
    one.second = ferry.QMPClient.connect(f'{work}/second.qmp')
    yield one
    one.second.close()


@pytest.fixture
def hung(vm, work, qemu_nbd):
    """A mirror to a server that stopped answering, requests under way; (server, client of the disk)."""
    source = ferry.make_image(work / 'source.raw', SIZE, seed=1)
    server = qemu_nbd(ferry.make_image(work / 'copy.raw', SIZE), 'raw')
    vm.add('file', 'protocol', filename=str(source))
    vm.add('raw', 'disk', file='protocol')
    vm.cmd('blockdev-add', server.node('copy', reconnect_delay=600))
    io = ferry.nbd_connect(vm.export('disk'))
    server.signal(signal.SIGSTOP)
    while 'State:\tT' not in Path(f'/proc/{server.process.pid}/status').read_text():
        pass                                        # stopping takes a moment
    start(vm, on_target_error='stop')
    while 'command 1 ' not in vm.stderr():          # a write is on its way
        vm.cmd('query-status')
    yield server, io
    server.signal(signal.SIGCONT)


def drainers(work):
    return [('blockdev-snapshot-sync', {'node-name': 'disk', 'snapshot-file': str(work / 'overlay.qcow2'), 'format': 'qcow2',
                                        'snapshot-node-name': 'overlay'}),
            ('blockdev-reopen', {'options': [{'driver': 'raw', 'node-name': 'disk', 'file': 'protocol'}]})]


@pytest.mark.parametrize('which', [0, 1], ids=['snapshot', 'reopen'])
def test_forced_cancel_frees_all_that_wait_for_a_hung_target(vm, hung, work, which):
    sent = vm.send(*drainers(work)[which])
    vm.second.cmd('block-job-cancel', device='m', force=True)
    vm.wait('BLOCK_JOB_CANCELLED', device='m')
    try:
        vm.reply(sent)
    except ferry.QMPError:
        pass                                        # refused is an answer too
    hung[1].pwrite(b'\1' * 512, 0)


def test_a_command_does_not_wait_for_ever_for_a_hung_target(vm, hung, work):
    """No other monitor, no cancel: it is refused, and guest, job and monitor go on."""
    with pytest.raises(ferry.QMPError, match="did not become idle in time; still waiting for: .*mirror job 'm' is busy"):
        vm.cmd(*drainers(work)[1])
    hung[1].pwrite(b'\1' * SIZE, 0)
    hung[0].signal(signal.SIGCONT)
    vm.wait('BLOCK_JOB_READY', device='m')
    hung[1].shutdown()
    end(vm)
    vm.quit()
    ferry.compare(work / 'source.raw', work / 'copy.raw')


def test_quit_does_not_wait_for_a_hung_target(vm, hung):
    vm.quit()


@pytest.mark.parametrize('which', [0, 1], ids=['snapshot', 'reopen'])
def test_quit_does_not_wait_for_a_drain_over_a_hung_target(vm, hung, work, which):
    vm.send(*drainers(work)[which])
    vm.second.cmd('quit')
    vm.wait_exit()


def test_forced_cancel_does_not_wait_for_a_server_that_takes_zeroes_slowly(vm, work, nbdkit):
    """Each request for zeroes takes an hour, and so would each of those that were to follow."""
    server = nbdkit('--filter=delay', '--filter=nozero', 'memory', '1G', 'wdelay=3600', 'delay-zero=3600', 'zeromode=notrim')
    vm.add('null-co', 'disk', size=1 << 30, read_zeroes=True)
    vm.cmd('blockdev-add', server.node('copy', reconnect_delay=600))
    start(vm)
    vm.cmd('block-job-cancel', device='m', force=True)
    vm.wait('BLOCK_JOB_CANCELLED', device='m')
    server.kill()


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_what_reaches_the_target_after_it_was_given_up_does_not_hang(vmm, work, nbdkit, fmt):
    """A read of the source is held until the cancel is under way; the server takes an hour for a write."""
    vm = vmm('-trace', 'mirror_give_up')
    vm.add('raw', 'disk', file={'driver': 'blkdebug', 'node-name': 'hook', 'image': {
        'driver': 'file', 'filename': str(ferry.make_image(work / 'source.raw', 4 * MIB, seed=1))}})
    image = ferry.make_image(work / f'copy.{fmt}', 4 * MIB, fmt)
    server = nbdkit('--filter=delay', 'file', str(image), 'wdelay=3600')
    vm.cmd('blockdev-add', {**server.node('copy', reconnect_delay=600), 'driver': fmt})
    vm.qemu_io('hook', 'break read_aio here')
    start(vm)
    vm.qemu_io('hook', 'wait_break here')
    vm.cmd('block-job-cancel', device='m', force=True)
    vm.qemu_io('hook', 'resume here')
    vm.wait('BLOCK_JOB_CANCELLED', device='m')
    assert vm.stderr().count('mirror_give_up') == 1
    vm.kill()           # which need not wait for the server


# --- how a job ends ---

@pytest.mark.parametrize('command,args,when,event,error', [
    ('block-job-cancel', {'device': 'm'}, 'running', 'BLOCK_JOB_CANCELLED', None),
    ('block-job-cancel', {'device': 'm', 'force': True}, 'running', 'BLOCK_JOB_CANCELLED', None),
    ('job-cancel', {'id': 'm'}, 'running', 'BLOCK_JOB_CANCELLED', None),
    ('block-job-cancel', {'device': 'm'}, 'ready', 'BLOCK_JOB_COMPLETED', None),
    ('block-job-cancel', {'device': 'm', 'force': True}, 'ready', 'BLOCK_JOB_CANCELLED', None),
    ('job-cancel', {'id': 'm'}, 'ready', 'BLOCK_JOB_CANCELLED', None),
    ('block-job-complete', {'device': 'm'}, 'ready', 'BLOCK_JOB_COMPLETED', None),
    ('job-complete', {'id': 'm'}, 'ready', 'BLOCK_JOB_COMPLETED', None),
])
def test_every_end_has_its_event(vm, work, command, args, when, event, error):
    vm.add_file(ferry.make_image(work / 'source.raw', SIZE, seed=1), node_name='disk')
    vm.add_file(ferry.make_image(work / 'copy.raw', SIZE), node_name='copy')
    start(vm, speed=MIB if when == 'running' else 0)
    if when == 'ready':
        vm.wait('BLOCK_JOB_READY', device='m')
    vm.cmd(command, args)
    data = vm.wait(event, device='m')['data']
    assert data.get('error') == error
    other = {'BLOCK_JOB_CANCELLED', 'BLOCK_JOB_COMPLETED'} - {event}
    assert not vm.seen(other.pop())
    vm.quit()
    if event == 'BLOCK_JOB_COMPLETED':
        ferry.compare(work / 'source.raw', work / 'copy.raw')


# --- nothing passes the tracker ---

@pytest.mark.parametrize('mode', ['background', 'write-blocking'])
@pytest.mark.parametrize('ending', ['cancel', 'complete'])
def test_writers_that_join_below_the_filter_are_in_the_copy(vm, work, mode, ending):
    source = ferry.make_image(work / 'source.raw', SIZE, seed=1, data=SIZE // 2)
    target = ferry.make_image(work / 'copy.raw', SIZE)
    model = ferry.Model(SIZE, source)
    vm.add_file(source, node_name='disk')
    vm.add_file(target, node_name='copy')
    above = vm.export('disk', name='above')         # before the job: above its filter
    start(vm, copy_mode=mode, auto_finalize=False, speed=8 * MIB)
    below = vm.export('disk', name='below')         # by now `disk` is below it
    writers = [ferry.Writer(uri, model, 9, index, 2, rate=8 * MIB) for index, uri in enumerate((above, below))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.wait_count(10)
    vm.cmd('block-job-set-speed', device='m', speed=0)
    vm.wait('BLOCK_JOB_READY', device='m')
    for change in ('background', 'write-blocking', mode):
        vm.cmd('block-job-change', {'id': 'm', 'type': 'mirror', 'copy-mode': change})
        for writer in writers:
            writer.wait_count(10)
    if ending == 'cancel':
        for writer in writers:
            writer.stop()
    vm.cmd(f'block-job-{ending}', device='m')
    vm.wait('BLOCK_JOB_PENDING', id='m')
    if ending == 'complete':
        for writer in writers:
            writer.wait_count(10)
    vm.cmd('job-finalize', id='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)
    if ending == 'complete':
        for writer in writers:
            writer.wait_count(10)                   # on the copy
    for writer in writers:
        writer.stop()
    vm.quit()
    model.check(target)
