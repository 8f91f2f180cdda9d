# SPDX-License-Identifier: GPL-2.0-or-later
"""What an NBD server may answer to each request, legal and not: the request ends as the server says, or the connection breaks with
the reason. No answer hangs the node.

A row is the answer of a server. "The NBD protocol" (doc/proto.md of the nbd project) says what is legal.
"""
import struct

import pytest

import ferry
from ferry.nbd_script import (DATA, DISCONNECT, DONE, ERROR, ERROR_OFFSET, EXTENDED, EXTENTS, FLUSH, HAS_FLAGS, HOLE, NONE,
                              OPT_STRUCTURED, READ, REQUEST, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_ZEROES, SIZE, STATUS, TRIM,
                              UNSUP, WRITE, ZEROES, chunk, data, extents, failure, hole, simple)


def reads(*make):
    """The parts of a reply to READ, of each a function of cookie, offset and length."""
    return {('command', READ): lambda c, o, n: [part(c, o, n) for part in make]}


def statuses(make):
    return {('command', STATUS): lambda c, o, n: [make(c, o, n)]}


# What the server sends for a request, and why the client breaks the connection (None: the read succeeds; '': it fails by itself).
REPLIES = {
    'in two chunks': (reads(lambda c, o, n: data(c, o, bytes(n // 2), 0), lambda c, o, n: data(c, o + n // 2, bytes(n - n // 2))), None),
    'backwards': (reads(lambda c, o, n: data(c, o + n // 2, bytes(n - n // 2), 0), lambda c, o, n: data(c, o, bytes(n // 2))), None),
    'a hole': (reads(lambda c, o, n: hole(c, o, n)), None),
    'data, a hole and a final chunk': (reads(lambda c, o, n: data(c, o, bytes(n // 2), 0),
                                             lambda c, o, n: hole(c, o + n // 2, n - n // 2, 0), lambda c, o, n: chunk(c, NONE)), None),
    'unknown chunk flags': (reads(lambda c, o, n: hole(c, o, n, 0xffff)), None),
    'an error': (reads(lambda c, o, n: failure(c)), ''),
    'an error with a text': (reads(lambda c, o, n: failure(c, text=b'the disk is on fire')), ''),
    'an error after data': (reads(lambda c, o, n: data(c, o, bytes(n), 0), lambda c, o, n: failure(c)), ''),
    'an error and data after it': (reads(lambda c, o, n: failure(c, flags=0), lambda c, o, n: data(c, o, bytes(n))), ''),
    'an error at an offset': (reads(lambda c, o, n: chunk(c, ERROR_OFFSET, struct.pack('>IHQ', 5, 0, o))), ''),
    'an unknown kind of error': (reads(lambda c, o, n: failure(c, kind=0x9999)), ''),
    'an unknown number of an error': (reads(lambda c, o, n: failure(c, error=0xffffffff)), ''),
    'an error of number 0': (reads(lambda c, o, n: failure(c, error=0)), 'inconsistent error'),
    'an error whose text ends behind it': (reads(lambda c, o, n: failure(c, length=99)), 'inconsistent error'),
    'a short error': (reads(lambda c, o, n: chunk(c, ERROR, b'\0\0\0\5')), 'error of a wrong length'),
    'an endless error': (reads(lambda c, o, n: chunk(c, ERROR, length=0xffffffff)), 'error of a wrong length'),
    'nothing of the data': (reads(lambda c, o, n: chunk(c, NONE)), 'left out part of a read'),
    'half of the data': (reads(lambda c, o, n: data(c, o, bytes(n // 2))), 'left out part of a read'),
    'the data twice': (reads(lambda c, o, n: data(c, o, bytes(n), 0), lambda c, o, n: data(c, o, bytes(n))), 'twice'),
    'data before the request': (reads(lambda c, o, n: data(c, (o - 1) % (1 << 64), bytes(n))), 'outside of the read'),
    'data behind the request': (reads(lambda c, o, n: data(c, o + 1, bytes(n))), 'outside of the read'),
    'too much data': (reads(lambda c, o, n: data(c, o, bytes(n + 1))), 'data chunk of a wrong length'),
    'no data in a data chunk': (reads(lambda c, o, n: data(c, o, b'')), 'data chunk of a wrong length'),
    'a data chunk of four bytes': (reads(lambda c, o, n: chunk(c, DATA, bytes(4))), 'data chunk of a wrong length'),
    'a hole of nothing': (reads(lambda c, o, n: hole(c, o, 0)), 'outside of the read'),
    'a hole that is too long': (reads(lambda c, o, n: hole(c, o, 0xffffffff)), 'outside of the read'),
    'a short hole': (reads(lambda c, o, n: chunk(c, HOLE, bytes(8))), 'hole chunk of a wrong length'),
    'a final chunk with a payload': (reads(lambda c, o, n: chunk(c, NONE, b'x')), 'invalid final chunk'),
    'an empty chunk that is not final': (reads(lambda c, o, n: chunk(c, NONE, flags=0)), 'invalid final chunk'),
    'an unknown chunk': (reads(lambda c, o, n: chunk(c, 99, b'x')), 'chunk of unknown type'),
    'extents for a read': (reads(lambda c, o, n: extents(c, (n, 0))), 'invalid block status'),
    'another cookie': (reads(lambda c, o, n: data(c + 1, o, bytes(n))), 'a request that was not made'),
    'a simple reply': (reads(lambda c, o, n: simple(c)), 'a simple reply where a structured one was agreed'),
    'a reply of no magic': (reads(lambda c, o, n: b'\0' * 32), 'invalid reply magic'),
    'a structured reply that was not agreed': ({OPT_STRUCTURED: [(UNSUP, b'')], **reads(lambda c, o, n: data(c, o, bytes(n)))},
                                               'structured reply that was not negotiated'),
    'a simple error': ({OPT_STRUCTURED: [(UNSUP, b'')], **reads(lambda c, o, n: simple(c, 28))}, ''),
}

# The same for block status; what a read of it shows does not depend on it.
STATUSES = {
    'flags that are not known': (lambda c, o, n: extents(c, (n, 0xfffffffc)), None),
    'more than was asked for': (lambda c, o, n: extents(c, (SIZE * 4, 3)), None),
    'an error': (lambda c, o, n: failure(c), None),
    'another context': (lambda c, o, n: extents(c, (n, 0), context=8), 'block status that was not asked for'),
    'no extent': (lambda c, o, n: extents(c), 'invalid block status'),
    'half an extent': (lambda c, o, n: chunk(c, EXTENTS, struct.pack('>III', 7, n, 0) + bytes(4)), 'invalid block status'),
    'an extent of nothing': (lambda c, o, n: extents(c, (0, 0)), 'extent of no length'),
    'nothing behind an extent': (lambda c, o, n: extents(c, (n // 2, 0), (0, 0)), 'extent of no length'),
    'nothing at all': (lambda c, o, n: chunk(c, NONE), 'left out the block status'),
    'data': (lambda c, o, n: data(c, o, bytes(8)), 'outside of the read|wrong length'),
    'a simple success': (lambda c, o, n: simple(c), 'a simple reply where a structured one was agreed'),
    'in two chunks': (lambda c, o, n: extents(c, (n // 2, 0), flags=0) + extents(c, (n - n // 2, 0)), 'that was not asked for'),
    'two contexts': (lambda c, o, n: extents(c, (n, 0), flags=0) + extents(c, (n, 0), context=8), 'that was not asked for'),
    'extents and a final chunk': (lambda c, o, n: extents(c, (n, 0), flags=0) + chunk(c, NONE), None),
    'extents and an error': (lambda c, o, n: extents(c, (n, 3), flags=0) + failure(c), None),
    'an error and extents': (lambda c, o, n: failure(c, flags=0) + extents(c, (n, 3)), None),
    'a simple error': (lambda c, o, n: simple(c, 5), None),
    'an extent behind the request': (lambda c, o, n: extents(c, (n, 0), (n, 3)), None),
    'an extent of all there is': (lambda c, o, n: extents(c, (0xffffffff, 3)), None),
    'extents of one byte': (lambda c, o, n: extents(c, *[(1, 0)] * min(n, 4096)), None),
    'more extents than bytes': (lambda c, o, n: extents(c, *[(1, 0)] * 70000), None),
    'a hole that is not zero': (lambda c, o, n: extents(c, (n, 1)), None),
    'an endless list': (lambda c, o, n: chunk(c, EXTENTS, struct.pack('>III', 7, n, 0), length=0x7ffffffc), 'invalid block status'),
    'only a context': (lambda c, o, n: chunk(c, EXTENTS, struct.pack('>I', 7)), 'invalid block status'),
    'less than a context': (lambda c, o, n: chunk(c, EXTENTS, b'\0'), 'invalid block status'),
    'an extended header': (lambda c, o, n: struct.pack('>IHHQQQ', EXTENDED, DONE, NONE, c, o, 0), 'invalid reply magic'),
    'a final error of number 0': (lambda c, o, n: failure(c, 0), 'inconsistent error'),
}

# Requests that change the disk or flush it: what qemu-io is told, and the number of the command.
CHANGES = {
    'plain': ('write -P 0 0 64k', WRITE),
    'FUA': ('write -f 0 64k', WRITE),
    'flush': ('flush', FLUSH),
    'trim': ('discard 0 64k', TRIM),
    'zeroes': ('write -z -u 0 64k', ZEROES),
}
ALL_FLAGS = HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_ZEROES

# Numbers of errors and how they reach the user. All others are an I/O error.
ERRORS = {1: 'Operation not permitted', 5: 'Input/output error', 12: 'Cannot allocate memory', 22: 'Invalid argument',
          28: 'No space left on device', 75: 'Value too large for defined data type', 2: 'Input/output error',
          0x7fffffff: 'Input/output error', 0xffffffff: 'Input/output error', 0x80000000: 'Input/output error'}

# Answers to any of these requests, and why the connection breaks (None: the request succeeds; '': it fails by itself).
CHANGE_REPLIES = {
    'a simple success': (lambda c, o, n: [simple(c)], None),
    'a structured success': (lambda c, o, n: [chunk(c, NONE)], None),
    'unknown chunk flags': (lambda c, o, n: [chunk(c, NONE, flags=0xffff)], None),
    'a simple error': (lambda c, o, n: [simple(c, 28)], ''),
    'an error': (lambda c, o, n: [failure(c, 28)], ''),
    'an error with a text': (lambda c, o, n: [failure(c, 28, b'full')], ''),
    'an error with a text in no language': (lambda c, o, n: [failure(c, 28, b'\xff\0')], ''),
    'an error of the longest text': (lambda c, o, n: [failure(c, 28, b'x' * 4096)], ''),
    'an error and a final chunk': (lambda c, o, n: [failure(c, 28, flags=0), chunk(c, NONE)], ''),
    'two errors': (lambda c, o, n: [failure(c, 28, flags=0), failure(c, 5)], ''),
    'an error at an offset': (lambda c, o, n: [chunk(c, ERROR_OFFSET, struct.pack('>IHQ', 28, 0, o))], ''),
    'an unknown kind of error': (lambda c, o, n: [failure(c, 28, kind=0xffff)], ''),
    'an unknown kind of error and more of it': (lambda c, o, n: [chunk(c, 0x8765, struct.pack('>IH', 28, 0) + bytes(99))], ''),
    'an error of number 0': (lambda c, o, n: [failure(c, 0)], 'inconsistent error'),
    'an error whose text ends behind it': (lambda c, o, n: [failure(c, 5, length=1)], 'inconsistent error'),
    'an error of five bytes': (lambda c, o, n: [chunk(c, ERROR, bytes(5))], 'error of a wrong length'),
    'an endless error': (lambda c, o, n: [chunk(c, ERROR, length=0xffffffff)], 'error of a wrong length'),
    'an error at an offset of eight bytes': (lambda c, o, n: [chunk(c, ERROR_OFFSET, struct.pack('>IHH', 5, 0, 0))],
                                             'error of a wrong length'),
    'an error at an offset whose text ends behind it': (lambda c, o, n: [chunk(c, ERROR_OFFSET, struct.pack('>IHQ', 5, 8, o))],
                                                        'inconsistent error'),
    'another cookie': (lambda c, o, n: [simple(c + 1)], 'a request that was not made'),
    'another cookie for the same slot': (lambda c, o, n: [simple(c + 64)], 'a request that was not made'),
    'the largest cookie': (lambda c, o, n: [simple(0xffffffffffffffff)], 'a request that was not made'),
    'another cookie in a chunk': (lambda c, o, n: [chunk(c + 1, NONE)], 'a request that was not made'),
    'an error for another cookie': (lambda c, o, n: [failure(c + 1)], 'a request that was not made'),
    'data': (lambda c, o, n: [data(c, o, bytes(9))], 'outside of the read|data chunk of a wrong length'),
    'a hole': (lambda c, o, n: [hole(c, o, 9)], 'outside of the read'),
    'extents': (lambda c, o, n: [extents(c, (9, 0))], 'invalid block status'),
    'an unknown chunk': (lambda c, o, n: [chunk(c, 3)], 'chunk of unknown type'),
    'an empty chunk that is not final': (lambda c, o, n: [chunk(c, NONE, flags=0), chunk(c, NONE)], 'invalid final chunk'),
    'a final chunk with a payload': (lambda c, o, n: [chunk(c, NONE, b'x')], 'invalid final chunk'),
    'an extended header': (lambda c, o, n: [struct.pack('>IHHQQQ', EXTENDED, DONE, NONE, c, o, 0)], 'invalid reply magic'),
    'a request': (lambda c, o, n: [struct.pack('>IHHQQI', REQUEST, 0, WRITE, c, o, n)], 'invalid reply magic'),
    'half a reply and the end': (lambda c, o, n: [simple(c)[:8], None], 'server closed the connection'),
    'an error without a final chunk and the end': (lambda c, o, n: [failure(c, flags=0), None], 'server closed the connection'),
}

# The same where no structured replies were agreed.
SIMPLE_REPLIES = {
    'a success': (lambda c, o, n: [simple(c)], None),
    'an error': (lambda c, o, n: [simple(c, 28)], ''),
    'a structured success': (lambda c, o, n: [chunk(c, NONE)], 'structured reply that was not negotiated'),
    'a structured error': (lambda c, o, n: [failure(c)], 'structured reply that was not negotiated'),
}


@pytest.fixture
def vm(vmm):
    return vmm('-trace', 'nbd_client_broken')


@pytest.fixture
def connect(vm, odd_server):
    def add(script, node_name='disk', **options):
        server = odd_server(script)
        vm.add('nbd', node_name, server=server.address, discard='unmap', **options)
        return server
    return add


def broke(said, why):
    """Whether the connection broke, and for this reason (alternatives are divided by |)."""
    return 'nbd_client_broken' in said and any(part in said for part in why.split('|'))


def check(text, said, why):
    """As REPLIES and CHANGE_REPLIES say; `text` is what qemu-io printed, `said` the trace."""
    assert ('failed' in text) == (why is not None), text
    assert broke(said, why) if why else 'nbd_client_broken' not in said


@pytest.mark.parametrize('what', REPLIES)
def test_reply_to_a_read(vm, connect, what):
    script, why = REPLIES[what]
    connect(script)
    text = vm.qemu_io('disk', f'read -P 0 0 {SIZE}')
    check(text, vm.stderr(), why)


def change(vm, request, node='disk'):
    """What qemu-io says to a request; something was written before a flush, which would not be sent otherwise."""
    if request == 'flush':
        vm.qemu_io(node, 'write 0 512')
    return vm.qemu_io(node, CHANGES[request][0])


@pytest.mark.parametrize('what', CHANGE_REPLIES)
def test_reply_to_a_change(vm, connect, what):
    make, why = CHANGE_REPLIES[what]
    for request, (_, command) in CHANGES.items():
        before = len(vm.stderr())
        connect({'flags': ALL_FLAGS, ('command', command): make}, node_name=request)
        check(change(vm, request, request), vm.stderr()[before:], why)


@pytest.mark.parametrize('what', SIMPLE_REPLIES)
def test_reply_to_a_change_without_structured_replies(vm, connect, what):
    make, why = SIMPLE_REPLIES[what]
    for request, (_, command) in CHANGES.items():
        before = len(vm.stderr())
        connect({'flags': ALL_FLAGS, OPT_STRUCTURED: [(UNSUP, b'')], ('command', command): make}, node_name=request)
        check(change(vm, request, request), vm.stderr()[before:], why)


@pytest.mark.parametrize('request_', ['read', *CHANGES])
@pytest.mark.parametrize('structured', [False, True])
def test_numbers_of_errors_arrive_as_they_are(vm, connect, request_, structured):
    numbers = iter(ERRORS)
    line, command = CHANGES.get(request_, ('read 0 64k', READ))
    connect({'flags': ALL_FLAGS, **({} if structured else {OPT_STRUCTURED: [(UNSUP, b'')]}),
             ('command', command): lambda c, o, n: [(failure if structured else simple)(c, next(numbers))]})
    if request_ == 'flush':
        vm.qemu_io('disk', 'write 0 512')
    for number, text in ERRORS.items():
        assert f'failed: {text}' in vm.qemu_io('disk', line), number
    assert 'nbd_client_broken' not in vm.stderr()


def test_zeroes_that_are_not_supported_are_written(vm, connect):
    server = connect({'flags': ALL_FLAGS, ('command', ZEROES): lambda c, o, n: [failure(c, 95)]})
    assert 'failed' not in vm.qemu_io('disk', 'write -z 0 64k')
    vm.quit()
    assert ('command', WRITE, 0, 0, 65536) in server.over.get(timeout=60 * ferry.time_scale())


def test_trim_that_is_not_supported_is_no_error(vm, connect):
    connect({'flags': ALL_FLAGS, ('command', TRIM): lambda c, o, n: [failure(c, 95)]})
    assert 'failed' not in vm.qemu_io('disk', 'discard 0 64k')


def test_requests_are_not_sent_that_the_export_does_not_know(vm, connect):
    server = connect({})
    for request, (line, _) in CHANGES.items():
        assert 'failed' not in vm.qemu_io('disk', line), request
    vm.quit()
    sent = {entry[1:3] for entry in server.over.get(timeout=60 * ferry.time_scale()) if entry[0] == 'command'}
    assert sent == {(WRITE, 0), (DISCONNECT, 0)}


@pytest.mark.parametrize('structured', [False, True])
@pytest.mark.parametrize('request_', CHANGES)
def test_server_that_shuts_down_is_left_and_the_request_goes_to_its_successor(vm, connect, request_, structured):
    shut = ('command', CHANGES[request_][1])
    server = connect({'flags': ALL_FLAGS, shut: lambda c, o, n: [(failure if structured else simple)(c, 108)],
                      'later': {'flags': ALL_FLAGS}}, reconnect_delay=60)
    assert 'failed' not in change(vm, request_)
    first = server.over.get(timeout=60 * ferry.time_scale())
    vm.quit()
    second = server.over.get(timeout=60 * ferry.time_scale())
    assert first[-1] == ('command', DISCONNECT, 0, 0, 0)
    assert next(entry for entry in second if entry[0] == 'command')[1] == shut[1]


def test_server_that_shuts_down_fails_requests_without_reconnect_delay(vm, connect):
    connect({'flags': ALL_FLAGS, ('command', WRITE): lambda c, o, n: [failure(c, 108)]})
    assert 'failed: Cannot send after transport endpoint shutdown' in vm.qemu_io('disk', 'write 0 64k')


@pytest.mark.parametrize('what', STATUSES)
def test_block_status(vm, connect, work, what):
    make, why = STATUSES[what]
    connect(statuses(make), reconnect_delay=60)
    vm.add_file(ferry.make_image(work / 'copy.raw', SIZE), node_name='copy')
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full')
    vm.wait('BLOCK_JOB_READY', device='m')
    assert broke(vm.stderr(), why) if why else 'nbd_client_broken' not in vm.stderr(), vm.stderr()
