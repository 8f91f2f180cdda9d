# SPDX-License-Identifier: GPL-2.0-or-later
"""What an NBD server may send at each step, legal and not: the client takes it or says what is wrong, and never hangs.

A row is the script of a server. "The NBD protocol" (doc/proto.md of the nbd project) says what is legal.
"""
import ssl
import struct

import pytest

import ferry
from ferry.tls import Authority
from ferry.nbd_script import (BLOCK_SIZE_REQD, DISCONNECT, HAS_FLAGS, INFO_BLOCK_SIZE, INVALID, MAGIC, OLD, OPTS, OPT_ABORT,
                              OPT_EXPORT_NAME, OPT_GO, OPT_SET_META, OPT_STARTTLS, OPT_STRUCTURED, PLATFORM, POLICY, READ_ONLY,
                              REP, REP_ACK, REP_INFO, REP_META, REP_SERVER, SHUTDOWN, SIZE, TLS_REQD, TOO_BIG, UNKNOWN, UNSUP,
                              blocks, export)

SILENCE_S = 1           # the open-timeout for a server that falls silent
SILENT = 'did not answer in time'


def go(*replies):
    return {OPT_GO: list(replies)}


HALF = SIZE // 2
CONSENT = struct.pack('>QIII', REP, OPT_STARTTLS, REP_ACK, 0)

# What the server does, and what blockdev-add says (None: it succeeds and all of the export can be read).
HANDSHAKE = {
    'as usual': ({}, None),
    'silence': ({'greeting': b''}, SILENT),
    'other magic': ({'greeting': b'HTTP/1.1 400 Bad Request\r\n'}, 'Bad initial magic received'),
    'other second magic': ({'greeting': struct.pack('>QQH', MAGIC, 1, 3)}, 'Bad server magic received'),
    'no fixed newstyle': ({'greeting': struct.pack('>QQH', MAGIC, OPTS, 0),
                           OPT_EXPORT_NAME: struct.pack('>QH', SIZE, HAS_FLAGS) + bytes(124), OPT_STRUCTURED: [(UNSUP, b'')]}, None),
    'unknown greeting flags': ({'greeting': struct.pack('>QQH', MAGIC, OPTS, 0xffff)}, None),
    'no structured replies': ({OPT_STRUCTURED: [(UNSUP, b'')]}, None),
    'structured refused by policy': ({OPT_STRUCTURED: [(POLICY, b'never')]}, None),
    'structured with a payload': ({OPT_STRUCTURED: [(REP_ACK, b'x')]}, "unexpected reply to option 'structured reply'"),
    'wants TLS': ({OPT_STRUCTURED: [(TLS_REQD, b'')]}, 'the server requires TLS'),
    'reply magic': ({OPT_STRUCTURED: bytes(20)}, 'Unexpected option reply magic'),
    'another option': ({OPT_STRUCTURED: struct.pack('>QIII', REP, OPT_GO, REP_ACK, 0)}, 'Server answered option 7 where 8'),
    'long reply': ({OPT_STRUCTURED: struct.pack('>QIII', REP, OPT_STRUCTURED, UNSUP, 0xffffffff)}, 'too many'),
    'no contexts': ({OPT_SET_META: [(UNSUP, b'')]}, None),
    'none of the contexts': ({OPT_SET_META: [(REP_ACK, b'')]}, None),
    'another context': ({OPT_SET_META: [(REP_META, b'\0\0\0\1other:x'), (REP_ACK, b'')]}, 'a metadata context that was not asked for'),
    'a context twice': ({OPT_SET_META: [(REP_META, b'\0\0\0\1base:allocation')] * 2 + [(REP_ACK, b'')]}, 'not asked for'),
    'a short context': ({OPT_SET_META: [(REP_META, b'\0\0')]}, 'not asked for'),
    'unknown export': (go((UNKNOWN, b'no such thing')), 'Requested export not available: no such thing'),
    'refusal in no language': (go((UNKNOWN, b'\xff\xfe\0')), 'Requested export not available'),
    'refused by policy': (go((POLICY, b'')), "denied by the server's policy"),
    'found invalid': (go((INVALID, b'')), 'found it invalid'),
    'wrong platform': (go((PLATFORM, b'')), 'platform'),
    'shutting down': (go((SHUTDOWN, b'')), 'shutting down'),
    'wants block sizes': (go((BLOCK_SIZE_REQD, b'')), 'block size'),
    'too big': (go((TOO_BIG, b'')), 'too big'),
    'refusal of an unknown kind': (go((1 << 31 | 99, b'')), 'unknown error'),
    'no GO': (go((UNSUP, b'')), None),
    'ACK and no size': (go((REP_ACK, b'')), 'did not say how large'),
    'ACK with a payload': (go((REP_INFO, export()), (REP_ACK, b'x')), 'did not say how large'),
    'an unknown reply to GO': (go((77, b'')), "unexpected reply to option 'go'"),
    'information of one byte': (go((REP_INFO, b'x')), 'too short'),
    'a short size': (go((REP_INFO, export()[:-1])), 'wrong length'),
    'a long size': (go((REP_INFO, export() + b'x')), 'wrong length'),
    'names and descriptions': (go((REP_INFO, b'\0\1name'), (REP_INFO, b'\0\2' + b'd' * 4096), (REP_INFO, b'\x12\x34'),
                                  (REP_INFO, export()), (REP_ACK, b'')), None),
    'the size twice': (go((REP_INFO, export(HALF)), (REP_INFO, export()), (REP_ACK, b'')), None),
    'an empty export': (go((REP_INFO, export(0)), (REP_ACK, b'')), None),
    'an odd size': (go((REP_INFO, export(SIZE - 1)), (REP_ACK, b'')), None),
    'the largest size': (go((REP_INFO, export(1 << 64 - 1)), (REP_ACK, b'')), 'too large'),
    'no transmission flags': (go((REP_INFO, export(SIZE, 0)), (REP_ACK, b'')), None),
    'all transmission flags': (go((REP_INFO, export(SIZE, 0xffff & ~READ_ONLY)), (REP_ACK, b'')), None),
    'blocks of 512': ({OPT_GO: blocks(512, 4096, 1 << 25)}, None),
    'blocks of 64 KiB': ({OPT_GO: blocks(65536, 65536, 65536)}, None),
    'no largest block': ({OPT_GO: blocks(1, 4096, 0xffffffff)}, None),
    'blocks of nothing': ({OPT_GO: blocks(0, 4096, 1 << 25)}, 'invalid minimum block size of 0'),
    'blocks of no power of two': ({OPT_GO: blocks(3, 4096, 1 << 25)}, 'invalid minimum block size of 3'),
    'large blocks': ({OPT_GO: blocks(1 << 17, 1 << 17, 1 << 25)}, 'invalid minimum block size of 131072'),
    'a preferred block below the least': ({OPT_GO: blocks(4096, 512, 1 << 25)}, 'invalid preferred block size of 512'),
    'a largest block below the least': ({OPT_GO: blocks(4096, 4096, 512)}, 'invalid maximum block size of 512'),
    'short block sizes': (go((REP_INFO, struct.pack('>HII', INFO_BLOCK_SIZE, 1, 1))), 'wrong length'),
    'silence after the greeting': ({OPT_STRUCTURED: None}, SILENT),
    'silence after contexts': ({OPT_SET_META: None}, SILENT),
    'silence after GO': ({OPT_GO: None}, SILENT),
    'half a reply': ({OPT_GO: struct.pack('>QII', REP, OPT_GO, REP_ACK)}, '.'),
    # --- no fixed newstyle ---
    'oldstyle': ({'greeting': struct.pack('>QQQI', MAGIC, OLD, SIZE, HAS_FLAGS) + bytes(124), 'oldstyle': True}, None),
    'half an oldstyle greeting': ({'greeting': struct.pack('>QQQ', MAGIC, OLD, SIZE), 'leave': True}, 'end-of-file'),
    # --- what belongs to other options ---
    'an export in a list': (go((REP_SERVER, struct.pack('>I', 1) + b'x'), (REP_ACK, b'')), "unexpected reply to option 'go'"),
    'a context for GO': (go((REP_META, b'\0\0\0\1base:allocation'), (REP_ACK, b'')), "unexpected reply to option 'go'"),
    'information for structured replies': ({OPT_STRUCTURED: [(REP_INFO, export())]}, "unexpected reply to option 'structured reply'"),
    'information for a context': ({OPT_SET_META: [(REP_INFO, export())]}, 'not asked for'),
    'a context after the last': ({OPT_SET_META: [(REP_ACK, b''), (REP_META, b'\0\0\0\1base:allocation')]},
                                 'Server answered option 10 where 7'),
    'contexts end with a payload': ({OPT_SET_META: [(REP_ACK, b'x')]}, "unexpected reply to option 'set meta context'"),
    'a context of no name': ({OPT_SET_META: [(REP_META, b'\0\0\0\1'), (REP_ACK, b'')]}, 'not asked for'),
    'contexts refused': ({OPT_SET_META: [(POLICY, b'')]}, None),
    'contexts want TLS': ({OPT_SET_META: [(TLS_REQD, b'')]}, 'the server requires TLS'),
    'contexts and a shutdown': ({OPT_SET_META: [(SHUTDOWN, b'')]}, 'shutting down'),
    'structured replies and a shutdown': ({OPT_STRUCTURED: [(SHUTDOWN, b'')]}, 'shutting down'),
    'GO wants TLS': (go((TLS_REQD, b'get a certificate')), 'the server requires TLS: get a certificate'),
    'a size that is no multiple of a block': ({OPT_GO: [(REP_INFO, export(SIZE - 512)), *blocks(4096, 4096, 1 << 25)[1:]]}, None),
}

# The same for a client that wants TLS.
TLS = {
    'no fixed newstyle': ({'greeting': struct.pack('>QQH', MAGIC, OPTS, 0)}, 'does not support fixed newstyle'),
    'oldstyle': ({'greeting': struct.pack('>QQQI', MAGIC, OLD, SIZE, HAS_FLAGS) + bytes(124), 'oldstyle': True}, 'support STARTTLS'),
    'unsupported': ({}, "refused option 'starttls'.*does not support it"),
    'by policy': ({OPT_STARTTLS: [(POLICY, b'not for you')]}, "denied by the server's policy: not for you"),
    'found invalid': ({OPT_STARTTLS: [(INVALID, b'')]}, 'found it invalid'),
    'requires what it refuses': ({OPT_STARTTLS: [(TLS_REQD, b'')]}, 'the server requires TLS'),
    'consent with a payload': ({OPT_STARTTLS: [(REP_ACK, b'x')]}, "unexpected reply to option 'starttls'"),
    'information': ({OPT_STARTTLS: [(REP_INFO, export())]}, "unexpected reply to option 'starttls'"),
    'another option': ({OPT_STARTTLS: struct.pack('>QIII', REP, OPT_GO, REP_ACK, 0)}, 'Server answered option 7 where 5'),
    'hang-up for consent': ({OPT_STARTTLS: b''}, 'end-of-file'),
    'hang-up after consent': ({OPT_STARTTLS: CONSENT}, 'TLS|end-of-file'),
    'garbage after consent': ({OPT_STARTTLS: CONSENT + b'\xff' * 64}, 'TLS'),
    'the next reply in the clear': ({OPT_STARTTLS: CONSENT + struct.pack('>QIII', REP, OPT_STRUCTURED, REP_ACK, 0)}, 'TLS'),
    'an alert after consent': ({OPT_STARTTLS: CONSENT + b'\x15\3\3\0\2\2\x28'}, 'TLS'),
    'silence': ({OPT_STARTTLS: None}, SILENT),
    'silence after consent': ({OPT_STARTTLS: [(REP_ACK, b'')]}, SILENT),
}


def read_all(vm):
    """What qemu-io says when it reads all that the node has."""
    size = next(n for n in vm.cmd('query-named-block-nodes', flat=True) if n['node-name'] == 'disk')['image']['virtual-size']
    return vm.qemu_io('disk', f'read -P 0 0 {size}') if size else ''


def refused(vm, address, why, **options):
    if why == SILENT:
        options['open_timeout'] = SILENCE_S
    with pytest.raises(ferry.QMPError, match=why):
        vm.add('nbd', 'disk', server=address, **options)
    vm.quit()


@pytest.mark.parametrize('what', HANDSHAKE)
def test_handshake(vm, odd_server, what):
    script, why = HANDSHAKE[what]
    if why:
        refused(vm, odd_server(script).address, why)
    else:
        vm.add('nbd', 'disk', server=odd_server(script).address)
        assert 'failed' not in read_all(vm)
        vm.quit()


@pytest.mark.parametrize('what', TLS)
def test_handshake_with_tls(vm, odd_server, what):
    script, why = TLS[what]
    vm.cmd('object-add', {'qom-type': 'tls-creds-anon', 'id': 'creds', 'endpoint': 'client'})
    refused(vm, odd_server(script).address, why, tls_creds='creds')


@pytest.mark.parametrize('option', [OPT_STRUCTURED, OPT_SET_META, OPT_GO])
def test_tls_that_is_wanted_after_tls_was_made_ends_the_handshake(vm, odd_server, work, need, option):
    need.tool('certtool')
    authority = Authority(work / 'ca')
    authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work / 'ca/server.pem', work / 'ca/server.key')
    vm.cmd('object-add', {'qom-type': 'tls-creds-x509', 'id': 'creds', 'dir': str(authority.creds()), 'endpoint': 'client'})
    script = {OPT_STARTTLS: [(REP_ACK, b'')], 'tls': context}
    vm.add('nbd', 'works', server=odd_server(script).address, tls_creds='creds', tls_hostname='localhost')
    refused(vm, odd_server({**script, option: [(TLS_REQD, b'')]}).address, 'the server requires TLS', tls_creds='creds',
            tls_hostname='localhost')


def test_context_that_the_user_asked_for_must_be_there(vm, odd_server):
    refused(vm, odd_server({OPT_SET_META: [(REP_ACK, b'')]}).address, 'x-dirty-bitmap b not found', x_dirty_bitmap='b')


@pytest.mark.parametrize('script', [go((POLICY, b'')), go((SHUTDOWN, b'')), {OPT_STRUCTURED: [(TLS_REQD, b'')]},
                                    {OPT_SET_META: [(SHUTDOWN, b'')]}])
def test_client_says_that_it_leaves_after_a_refusal(vm, odd_server, script):
    server = odd_server(script)
    with pytest.raises(ferry.QMPError):
        vm.add('nbd', 'disk', server=server.address)
    assert server.over.get(timeout=60 * ferry.time_scale())[-1] == ('option', OPT_ABORT)


@pytest.mark.parametrize('script,options', [
    ({'flags': HAS_FLAGS | READ_ONLY}, {'read_only': False}),
    (go((REP_INFO, export(1 << 63)), (REP_ACK, b'')), {}),
    ({OPT_SET_META: [(REP_ACK, b'')]}, {'x_dirty_bitmap': 'b'}),
])
def test_client_says_that_it_leaves_an_export_that_it_cannot_use(vm, odd_server, script, options):
    server = odd_server(script)
    with pytest.raises(ferry.QMPError):
        vm.add('nbd', 'disk', server=server.address, **options)
    assert server.over.get(timeout=60 * ferry.time_scale())[-1] == ('command', DISCONNECT, 0, 0, 0)


def test_tries_within_the_timeout_do_not_hide_the_reason(vm, odd_server):
    refused(vm, odd_server(go((UNKNOWN, b'no such thing'))).address, 'no such thing', open_timeout=SILENCE_S)
