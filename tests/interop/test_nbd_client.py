# SPDX-License-Identifier: GPL-2.0-or-later
"""The NBD client gets along with every server, and with its death; what it holds is exported again and judged by libnbd."""
import errno
import os
import re
import signal
import socket
import struct
import threading

import pytest

import ferry

SIZE = 16 * ferry.MIB
nbd = pytest.importorskip('nbd', reason='python3-libnbd is not installed')


def through(vm, server, **options):
    """A libnbd handle on an export of a node over the server."""
    vm.cmd('blockdev-add', server.node('disk', **options))
    return ferry.nbd_connect(vm.export('disk'), 'base:allocation', strict=False)


def exercise(handle):
    """Writes, zeroes, discards, reads back."""
    handle.pwrite(b'a' * 100000, 1000)
    handle.pwrite(b'b' * ferry.MIB, 2 * ferry.MIB, nbd.CMD_FLAG_FUA if handle.can_fua() else 0)
    handle.zero(ferry.MIB // 2, 2 * ferry.MIB)
    handle.trim(65536, 4 * ferry.MIB)
    handle.flush()
    assert handle.pread(102000, 0) == bytes(1000) + b'a' * 100000 + bytes(1000)
    assert handle.pread(ferry.MIB, 2 * ferry.MIB) == bytes(ferry.MIB // 2) + b'b' * (ferry.MIB // 2)
    assert handle.pread(12 * ferry.MIB, 4 * ferry.MIB) == bytes(12 * ferry.MIB)


# --- servers ---

def test_qemu_nbd_holds_what_was_written(vm, work, qemu_nbd):
    path = ferry.make_image(work / 'd.qcow2', SIZE, 'qcow2')
    server = qemu_nbd(path, 'qcow2')
    handle = through(vm, server)
    exercise(handle)
    handle.shutdown()
    vm.quit()
    server.close()
    ferry.check_qcow2(path)
    assert ferry.qemu_io(path, 'read -P 98 2621440 512k', fmt='qcow2')


@pytest.mark.parametrize('args', [
    (),
    ('--filter=fua', 'fuamode=force'),
    ('--filter=fua', 'fuamode=emulate'),
    ('--filter=nozero',),
    ('--filter=noextents',),
    ('--filter=noparallel',),
    ('--filter=multi-conn', 'multi-conn-mode=disable'),
    ('--filter=delay', 'rdelay=1ms'),
    ('--filter=blocksize-policy', 'blocksize-minimum=4096', 'blocksize-preferred=65536', 'blocksize-maximum=1M',
     'blocksize-error-policy=error'),
    ('--no-sr',),
    ('--mask-handshake=0',),
    ('--filter=cow',),
], ids=lambda args: '-'.join(args).replace('--filter=', '') or 'plain')
def test_nbdkit_in_many_forms(vm, nbdkit, args):
    flags = [a for a in args if a.startswith('-')]
    params = [a for a in args if not a.startswith('-')]
    exercise(through(vm, nbdkit(*flags, 'memory', str(SIZE), *params)))


def test_oldstyle_server_is_read(vm, nbdkit):
    vm.cmd('blockdev-add', {'driver': 'nbd', 'node-name': 'disk', 'read-only': True,
                            'server': nbdkit('-o', 'pattern', str(SIZE)).address})
    handle = ferry.nbd_connect(vm.export('disk', writable=False))
    assert handle.pread(512, 4096)[:16] == struct.pack('>QQ', 4096, 4104)


def test_server_without_the_export_is_an_error(vm, work, qemu_nbd):
    server = qemu_nbd(ferry.make_image(work / 'd.raw', SIZE), export='real')
    with pytest.raises(ferry.QMPError, match='[Rr]equested export not available'):
        vm.add('nbd', server=server.address, export='imaginary')
    vm.add('nbd', server=server.address, export='real')


def test_no_server_is_an_error_with_the_address(vm, work):
    with pytest.raises(ferry.QMPError, match='nosuch.sock'):
        vm.add('nbd', server={'type': 'unix', 'path': str(work / 'nosuch.sock')})


def test_read_only_server_refuses_writers_and_serves_auto_read_only(vm, work, qemu_nbd):
    server = qemu_nbd(ferry.make_image(work / 'd.raw', SIZE), 'raw', '-r')
    with pytest.raises(ferry.QMPError, match='denied|read-only|write permission'):
        vm.add('nbd', server=server.address)
    node = vm.add('nbd', server=server.address, auto_read_only=True)
    assert ferry.nbd_connect(vm.export(node, writable=False)).is_read_only()


def test_tcp_server(vm, work):
    from ferry import peers
    server = peers.nbdkit(work, 'memory', str(SIZE), tcp=True)
    try:
        exercise(through(vm, server))
    finally:
        vm.quit()       # the server ends when its client has left
        server.close()


@pytest.mark.parametrize('name', ['nbd+unix:///exp?socket={path}', 'nbd:unix:{path}:exportname=exp'])
def test_names_lead_to_the_export(vmm, work, qemu_nbd, name):
    path = ferry.make_image(work / 'd.raw', SIZE, seed=1)
    server = qemu_nbd(path, export='exp')
    vm = vmm('-drive', f'if=none,id=d,format=raw,file={name.format(path=server.path)}')
    info = vm.cmd('query-block')[0]['inserted']
    assert info['image']['virtual-size'] == SIZE
    assert 'exp' in info['file'] and info['file'].startswith('nbd')


def test_server_errors_arrive_as_they_are(vm, nbdkit, work):
    trigger = work / 'fail'
    handle = through(vm, nbdkit('--filter=error', 'memory', str(SIZE), 'error=ENOSPC', 'error-rate=100%',
                                f'error-file={trigger}'))
    handle.pwrite(b'x' * 512, 0)
    trigger.touch()
    assert ferry.nbd_failure(handle.pwrite, b'x' * 512, 0) == errno.ENOSPC
    trigger.unlink()
    handle.pwrite(b'x' * 512, 0)


def test_holes_of_the_server_are_holes_here(vm, nbdkit):
    handle = through(vm, nbdkit('memory', str(SIZE)))
    handle.pwrite(b'x' * 65536, ferry.MIB)
    extents = []
    handle.block_status(SIZE, 0, lambda name, off, entries, err: extents.extend(entries) or 0)
    assert extents == [ferry.MIB, 3, 65536, 0, SIZE - ferry.MIB - 65536, 3]


# --- several connections ---

# --- what requests the server sees ---

def logged(nbdkit, work, *args):
    """A server that notes each request, and what it has noted: (name, bytes, whole line)."""
    log = work / 'requests'
    server = nbdkit('--filter=log', *args, f'logfile={log}')

    def requests():
        # "TIME connection=1 Zero id=4 offset=0x0 count=0x10000 trim=0 fua=0 fast=1 ...": the answer has no offset
        found = [re.search(r' (\w+) id=\d+ offset=\S+ count=(0x[0-9a-f]+).*', line) for line in log.read_text().splitlines()]
        return [(m[1], int(m[2], 16), m[0]) for m in found if m]
    return server, requests


def test_requests_of_32_mib_go_in_one_piece_and_larger_ones_in_several(vm, nbdkit, work, need):
    need.tool('nbdkit')
    server, requests = logged(nbdkit, work, 'memory', '128M')
    vm.cmd('blockdev-add', server.node('disk'))
    assert 'wrote 33554432/33554432' in vm.qemu_io('disk', 'write -P 5 1M 32M')
    assert 'wrote 50331648/50331648' in vm.qemu_io('disk', 'write -P 6 64M 48M')
    out = vm.qemu_io('disk', 'read -P 5 1M 32M') + vm.qemu_io('disk', 'read -P 6 64M 48M')
    assert 'verification failed' not in out and 'read 50331648/50331648' in out
    for name in ('Write', 'Read'):
        sizes = [size for kind, size, _ in requests() if kind == name and size >= 65536]
        assert sizes[0] == 32 << 20 and max(sizes) == 32 << 20, sizes
        assert sum(sizes) == 80 << 20


def test_server_with_a_smaller_maximum_gets_no_larger_request(vm, nbdkit, work, need):
    need.tool('nbdkit')
    log = work / 'requests'
    server = nbdkit('--filter=blocksize-policy', '--filter=log', 'memory', '64M', 'blocksize-minimum=512',
                    'blocksize-preferred=4096', 'blocksize-maximum=1M', 'blocksize-error-policy=error', f'logfile={log}')
    vm.cmd('blockdev-add', server.node('disk'))
    assert 'wrote 33554432/33554432' in vm.qemu_io('disk', 'write -P 5 1M 32M')
    assert 'verification failed' not in vm.qemu_io('disk', 'read -P 5 1M 32M')


def test_fast_zero_is_asked_for_where_only_that_will_do(vm, nbdkit, work, need):
    need.tool('nbdkit')
    server, requests = logged(nbdkit, work, 'memory', '16M')
    vm.cmd('blockdev-add', server.node('disk'))
    assert 'wrote 65536/65536' in vm.qemu_io('disk', 'write -z -n 0 64k')
    assert 'wrote 65536/65536' in vm.qemu_io('disk', 'write -z 1M 64k')
    lines = [line for kind, _, line in requests() if kind == 'Zero']
    assert ['fast=1' in line for line in lines] == [True, False], lines


@pytest.mark.parametrize('args', [('--filter=nozero', 'memory', '16M'),
                                  ('--filter=nozero', 'memory', '16M', 'zeromode=emulate', 'fastzeromode=slow')],
                         ids=['no zeroes', 'only slow ones'])
def test_zero_that_must_be_fast_fails_where_it_would_be_slow(vm, nbdkit, work, need, args):
    need.tool('nbdkit')
    server = nbdkit(*args)
    vm.cmd('blockdev-add', server.node('disk'))
    vm.qemu_io('disk', 'write -P 9 0 64k')
    assert 'not supported' in vm.qemu_io('disk', 'write -z -n 0 64k')
    assert 'verification failed' not in vm.qemu_io('disk', 'read -P 9 0 64k')
    assert 'wrote 65536/65536' in vm.qemu_io('disk', 'write -z 0 64k')
    assert 'verification failed' not in vm.qemu_io('disk', 'read -P 0 0 64k')


def test_several_connections_agree(vm, work, qemu_nbd):
    path = ferry.make_image(work / 'd.raw', SIZE, seed=1)
    server = qemu_nbd(path)
    model = ferry.Model(SIZE, path)
    vm.cmd('blockdev-add', server.node('disk', connections=4))
    writers = ferry.run_writers(vm.export('disk'), model, seed=2, count=3, limit=300)
    for writer in writers:
        writer.finish()
    vm.quit()
    server.close()
    model.check(path)


# --- servers that die ---

def test_killed_server_comes_back_and_no_request_fails(vm, work, qemu_nbd):
    path = ferry.make_image(work / 'd.raw', SIZE, seed=1)
    server = qemu_nbd(path)
    model = ferry.Model(SIZE, path)
    vm.cmd('blockdev-add', server.node('disk', reconnect_delay=60))
    writers = ferry.run_writers(vm.export('disk'), model, seed=3, count=2)
    for _ in range(4):
        writers[0].wait_count(20)
        server.kill()
        server.start()
    writers[0].wait_count(20)
    for writer in writers:
        writer.stop()
    vm.quit()
    server.close()
    model.check(path)


def test_dead_server_fails_requests_at_once_without_reconnect_delay(vm, nbdkit):
    server = nbdkit('memory', str(SIZE))
    handle = through(vm, server)
    handle.pwrite(b'x' * 512, 0)
    server.kill()
    assert ferry.nbd_failure(handle.pread, 512, 0) == errno.EIO
    server.start()
    while True:
        try:
            assert handle.pread(512, 0) == bytes(512)
            break
        except nbd.Error:
            pass


def test_reconnect_delay_ends(vm, nbdkit):
    server = nbdkit('memory', str(SIZE))
    handle = through(vm, server, reconnect_delay=1)
    server.kill()
    assert ferry.nbd_failure(handle.pread, 512, 0) == errno.EIO


def test_node_over_a_dead_server_can_be_removed(vm, nbdkit):
    server = nbdkit('memory', str(SIZE))
    vm.cmd('blockdev-add', server.node('disk', reconnect_delay=300))
    server.kill()
    vm.cmd('blockdev-del', node_name='disk')
    assert vm.cmd('query-named-block-nodes', flat=True) == []


def test_quit_does_not_wait_for_a_dead_server(vm, nbdkit):
    server = nbdkit('memory', str(SIZE))
    vm.cmd('blockdev-add', server.node('disk', reconnect_delay=300))
    server.kill()
    vm.quit()


def test_open_timeout_waits_for_a_server_that_is_late(vm, work, nbdkit):
    server = nbdkit('memory', str(SIZE))
    server.kill()
    os.unlink(server.path)
    sent = vm.send('blockdev-add', {'driver': 'nbd', 'node-name': 'disk', 'server': server.address, 'open-timeout': 60})
    server.start()
    vm.reply(sent)


def test_changed_size_after_a_restart_is_not_accepted(vm, work, nbdkit):
    server = nbdkit('memory', str(SIZE))
    handle = through(vm, server, reconnect_delay=1)
    server.kill()
    server.command = [str(SIZE // 2) if word == str(SIZE) else word for word in server.command]
    server.start()
    assert ferry.nbd_failure(handle.pread, 512, 0) == errno.EIO


def test_force_cancel_of_a_mirror_to_a_hung_server_is_immediate(vm, work, nbdkit):
    ferry.make_image(work / 's.raw', SIZE, seed=1)
    vm.add_file(work / 's.raw', node_name='source')
    server = nbdkit('--filter=delay', 'memory', str(SIZE), 'wdelay=3600')
    vm.cmd('blockdev-add', server.node('target'))
    vm.cmd('blockdev-mirror', job_id='j', device='source', target='target', sync='full')
    vm.cmd('block-job-cancel', device='j', force=True)
    vm.wait('BLOCK_JOB_CANCELLED', device='j')
    server.kill()


# --- servers that lie ---

MAGIC = 0x49484156454f5054
REP = 0x3e889045565a9
GREETING = struct.pack('>QQH', 0x4e42444d41474943, MAGIC, 3)


def rep(option, kind, data=b''):
    return struct.pack('>QIII', REP, option, kind, len(data)) + data


def info(size=SIZE, flags=0x6d, blocks=(1, 4096, 32 << 20)):
    sizes = rep(7, 3, struct.pack('>HIII', 3, *blocks)) if blocks else b''
    return rep(7, 3, struct.pack('>HQH', 0, size, flags)) + sizes + rep(7, 1)


STRUCTURED = rep(8, 1) + rep(10, 4, struct.pack('>I', 1) + b'base:allocation') + rep(10, 1)
PLAIN = rep(8, 0x80000001)


class Liar:
    """Serves one connection after another: says its piece, then calls answer(cookie, length, command) for each request."""

    def __init__(self, work, speech, answer=None):
        self.path = str(work / 'liar.sock')
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.speech = speech
        self.answer = answer
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def address(self):
        return {'type': 'unix', 'path': self.path}

    def _run(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            try:
                self._serve(conn)
            except OSError:
                pass
            conn.close()

    def _serve(self, conn):
        conn.sendall(self.speech)
        pending = b''
        while True:
            data = conn.recv(1 << 20)
            if not data:
                return
            pending += data
            at = pending.find(struct.pack('>I', 0x25609513))
            while self.answer and at >= 0 and len(pending) >= at + 28:
                _, _, command, cookie, _, length = struct.unpack('>IHHQQI', pending[at:at + 28])
                pending = pending[at + 28:]
                conn.sendall(self.answer(cookie, length, command))
                at = pending.find(struct.pack('>I', 0x25609513))

    def close(self):
        self.listener.close()


@pytest.mark.parametrize('speech', [
    b'SSH-2.0-OpenSSH_9.2p1 Debian\r\n',
    struct.pack('>QQH', 0x4e42444d41474943, 0x1122334455667788, 3),
    GREETING + struct.pack('>QIII', 0x1234, 8, 1, 0),
    GREETING + rep(99, 1),
    GREETING + struct.pack('>QIII', REP, 8, 1, 0xffffffff),
    GREETING + rep(8, 1, b'x'),
    GREETING + rep(8, 1) + rep(10, 4, struct.pack('>I', 1) + b'other:context') + rep(10, 1),
    GREETING + rep(8, 1) + rep(10, 4, b'xx'),
    GREETING + PLAIN + rep(7, 1),
    GREETING + PLAIN + rep(7, 3, b'x'),
    GREETING + PLAIN + rep(7, 3, struct.pack('>HQ', 0, SIZE)) + rep(7, 1),
    GREETING + PLAIN + info(size=1 << 63),
    GREETING + PLAIN + info(size=(1 << 64) - 1),
    GREETING + PLAIN + info(blocks=(3, 4096, 1 << 20)),
    GREETING + PLAIN + info(blocks=(0, 0, 0)),
    GREETING + PLAIN + info(blocks=(4096, 512, 1 << 20)),
    GREETING + PLAIN + info(blocks=(1 << 20, 1 << 20, 1 << 20)),
    GREETING + PLAIN + info(blocks=(4096, 4096, 512)),
    GREETING + PLAIN + rep(7, 0x80000006, b'\xff\xfe not text \0' * 10),
], ids=['ssh', 'magic', 'reply-magic', 'option', 'length', 'ack-data', 'context', 'context-short', 'no-export', 'short-info',
        'short-export', 'negative', 'huge', 'block-3', 'block-0', 'preferred', 'block-1M', 'maximum', 'text'])
def test_lying_handshake_is_an_error(vm, work, speech):
    liar = Liar(work, speech)
    with pytest.raises(ferry.QMPError):
        vm.add('nbd', server=liar.address)
    liar.close()
    assert vm.cmd('query-named-block-nodes', flat=True) == []


def simple(cookie, error=0):
    return struct.pack('>IIQ', 0x67446698, error, cookie)


def chunk(cookie, kind, data=b'', flags=1):
    return struct.pack('>IHHQI', 0x668e33ef, flags, kind, cookie, len(data)) + data


def data_at(offset, length):
    return struct.pack('>Q', offset) + b'd' * length


@pytest.mark.parametrize('structured,answer', [
    (False, lambda cookie, length, command: simple(cookie ^ 1)),
    (False, lambda cookie, length, command: simple(cookie ^ 1 << 40)),
    (False, lambda cookie, length, command: b'\0' * 16),
    (False, lambda cookie, length, command: chunk(cookie, 0)),
    (True, lambda cookie, length, command: simple(cookie) + b'd' * length),
    (True, lambda cookie, length, command: chunk(cookie, 0)),
    (True, lambda cookie, length, command: chunk(cookie, 0, b'x')),
    (True, lambda cookie, length, command: chunk(cookie, 1, b'short')),
    (True, lambda cookie, length, command: chunk(cookie, 1, data_at(0, length - 1))),
    (True, lambda cookie, length, command: chunk(cookie, 1, data_at(0, length + 1))),
    (True, lambda cookie, length, command: chunk(cookie, 1, data_at(1 << 63, length))),
    (True, lambda cookie, length, command: chunk(cookie, 1, data_at(0, 512), 0) + chunk(cookie, 1, data_at(0, length - 512))),
    (True, lambda cookie, length, command: chunk(cookie, 2, struct.pack('>QI', 0, 0))),
    (True, lambda cookie, length, command: chunk(cookie, 2, struct.pack('>QI', 512, length))),
    (True, lambda cookie, length, command: chunk(cookie, 2, struct.pack('>QI', 0, 0xffffffff))),
    (True, lambda cookie, length, command: chunk(cookie, 5, struct.pack('>III', 1, length, 0))),
    (True, lambda cookie, length, command: chunk(cookie, 77)),
    (True, lambda cookie, length, command: chunk(cookie, 0x8001, struct.pack('>IH', 0, 0))),
    (True, lambda cookie, length, command: chunk(cookie, 0x8001, struct.pack('>IH', 5, 100))),
    (True, lambda cookie, length, command: struct.pack('>IHHQI', 0x668e33ef, 1, 0x8001, cookie, 0xffffffff)),
    (True, lambda cookie, length, command: struct.pack('>IHHQI', 0x668e33ef, 1, 1, cookie, 0xffffffff)),
], ids=['other-cookie', 'old-cookie', 'magic', 'chunk', 'simple', 'nothing', 'none-data', 'short', 'less', 'more', 'outside',
        'twice', 'hole-0', 'hole-shifted', 'hole-4G', 'status', 'unknown', 'error-0', 'error-text', 'error-4G', 'data-4G'])
def test_lying_reply_is_an_io_error_and_no_more(vm, work, structured, answer):
    liar = Liar(work, GREETING + (STRUCTURED if structured else PLAIN) + info(), answer)
    vm.add('nbd', 'lies', server=liar.address)
    handle = ferry.nbd_connect(vm.export('lies'), strict=False)
    assert ferry.nbd_failure(handle.pread, 4096, 0) == errno.EIO
    vm.add('null-co', 'n0', size=ferry.MIB)     # still alive
    liar.close()


def test_unknown_error_chunk_fails_only_its_request(vm, work):
    answers = iter([lambda c, n: chunk(c, 0x8077, struct.pack('>IH', 22, 2) + b'no' + b'extra'),
                    lambda c, n: chunk(c, 1, data_at(0, n))])
    liar = Liar(work, GREETING + STRUCTURED + info(), lambda c, n, command: next(answers)(c, n) if command == 0 else simple(c))
    vm.add('nbd', 'lies', server=liar.address)
    handle = ferry.nbd_connect(vm.export('lies'), strict=False)
    assert ferry.nbd_failure(handle.pread, 4096, 0) == errno.EINVAL
    assert handle.pread(4096, 0) == b'd' * 4096
    liar.close()


def test_server_that_stops_answering_is_given_up_on_kill(vm, work, nbdkit):
    """SIGSTOP: the connection stays; force-cancel and removal do not wait for it."""
    server = nbdkit('memory', str(SIZE))
    ferry.make_image(work / 's.raw', SIZE, seed=1)
    vm.add_file(work / 's.raw', node_name='source')
    vm.cmd('blockdev-add', server.node('target'))
    server.signal(signal.SIGSTOP)
    vm.cmd('blockdev-mirror', job_id='j', device='source', target='target', sync='full')
    vm.cmd('block-job-cancel', device='j', force=True)
    vm.wait('BLOCK_JOB_CANCELLED', device='j')
    server.signal(signal.SIGCONT)


def extents(vm, uri, size):
    """What an export of ours tells about its node: (length, flags) of each extent."""
    client = ferry.nbd_connect(uri, 'base:allocation')
    found = []

    def note(_context, _offset, entries, _error):
        found.extend(zip(entries[::2], entries[1::2]))
        return 0
    offset = 0
    while offset < size:
        client.block_status(size - offset, offset, note)
        offset = sum(length for length, _ in found)
    client.shutdown()
    return found


def test_one_question_brings_many_extents(vm, work, nbdkit, need):
    need.tool('nbdkit')
    size = 64 * ferry.MIB
    log = work / 'nbdkit.log'
    server = nbdkit('memory', str(size), '--filter=log', f'logfile={log}')
    vm.cmd('blockdev-add', {**server.node('disk'), 'node-name': 'disk'})
    uri = vm.export('disk')
    writer = ferry.nbd_connect(uri)
    for i in range(0, 64, 2):
        writer.pwrite(b'x' * 65536, i * ferry.MIB)
    asked = log.read_text().count(' Extents ')
    first = extents(vm, uri, size)
    assert len(first) == 64
    assert 1 <= log.read_text().count(' Extents ') - asked <= 4
    writer.pwrite(b'x' * 65536, ferry.MIB)
    assert extents(vm, uri, size) != first
    writer.shutdown()


def test_write_between_two_questions_is_seen(vm, work, nbdkit):
    server = nbdkit('memory', '8M')
    vm.cmd('blockdev-add', {**server.node('disk'), 'node-name': 'disk'})
    client = ferry.nbd_connect(vm.export('disk'), 'base:allocation')
    client.pwrite(b'x' * 65536, 0)

    def state(offset):
        found = []
        client.block_status(4 * ferry.MIB, offset, lambda _c, _o, e, _err: found.extend(e) or 0, nbd.CMD_FLAG_REQ_ONE)
        return found[1]
    assert state(0) == 0
    client.pwrite(b'x' * 65536, 65536)
    assert state(65536) == 0
    client.shutdown()


def test_server_that_accepts_and_is_silent_is_given_up(vm, work):
    path = work / 'silent'
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with pytest.raises(ferry.QMPError, match='did not answer in time'):
        vm.cmd('blockdev-add', driver='nbd', node_name='disk', server={'type': 'unix', 'path': str(path)}, open_timeout=1)
    vm.cmd('query-status')
    listener.close()


@pytest.mark.parametrize('cid, port, bad', [('x', '9000', "cid 'x'"), ('1', '99999999999', "port '99999999999'")])
def test_bad_vsock_addresses_are_named(vm, cid, port, bad):
    for call in (lambda: vm.cmd('blockdev-add', driver='nbd', node_name='n',
                                server={'type': 'vsock', 'cid': cid, 'port': port}),
                 lambda: vm.cmd('nbd-server-start', addr={'type': 'vsock', 'data': {'cid': cid, 'port': port}})):
        with pytest.raises(ferry.QMPError, match=f'Failed to parse vsock {bad}'):
            call()
