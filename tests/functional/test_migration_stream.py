# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams made by hand: what a destination accepts and refuses, and how a source takes what its peer does."""
import signal
import socket

import pytest

import ferry
from ferry import migration as m

RAM = 16 * ferry.MIB


class Destination:
    """A binary that waits for a stream at a socket."""

    def __init__(self, vmm, work, *args, events=True, caps=(), exit_on_error=None):
        self.vm = vmm('-incoming', 'defer', *args, defaults=False, name='destination')
        if events:
            m.set_caps(self.vm, 'events')
        if caps:
            m.set_caps(self.vm, *caps)
        path = work / f'{self.vm.name}.in'
        more = {} if exit_on_error is None else {'exit_on_error': exit_on_error}
        self.vm.cmd('migrate-incoming', uri=f'unix:{path}', **more)
        self.conn = socket.socket(socket.AF_UNIX)
        self.conn.connect(str(path))

    def feed(self, data, end=True):
        try:
            self.conn.sendall(data)
            if end:
                self.conn.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass            # it has seen enough
        return self

    def loaded(self):
        assert m.wait_over(self.vm)['status'] == 'completed'
        return m.run_state(self.vm)

    def refused(self, *causes):
        """It ended by itself with status 1, and its error says why, in one line."""
        self.vm.expected = {1}
        assert self.vm.wait_exit() == 1
        lines = m.error_lines(self.vm)
        assert len(lines) == 1, lines
        assert 'load of migration failed' in lines[0]
        for cause in causes:
            assert cause in lines[0], lines
        self.vm.close()


MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults']


@pytest.fixture
def destination(vmm, work):
    return lambda *args, **options: Destination(vmm, work, *MACHINE, *args, **options)


@pytest.fixture
def ram_destination(vmm, work):
    def start(*records, blocks=(('ram', RAM),), args=(), **options):
        qtest = ferry.QTest(work)
        one = Destination(vmm, work, *MACHINE, '-m', '16M', *qtest.args, *args, **options)
        pieces = m.base()
        pieces['start'] = m.ram_start(blocks)
        pieces['end'] = b''.join(r for r in records if r[:1] in b'\2\3') or m.ram_end(*records)
        one.qtest = qtest
        return one.feed(m.joined(pieces))
    return start


def with_pieces(**changes):
    return m.joined({**m.base(), **changes})


# What is taken

GOOD = {
    'base': (with_pieces(), 'running'),
    'other-order': (with_pieces(devices=m.globalstate('paused'), globalstate=m.timer()), 'paused'),
    'without-timer': (with_pieces(devices=b''), 'running'),
    'without-globalstate': (with_pieces(globalstate=b''), 'running'),
    'prelaunch-and-empty-description': (with_pieces(globalstate=m.globalstate('prelaunch'),
                                                    description=m.description('')), 'prelaunch'),
    'prefix-of-the-machine': (with_pieces(configuration=m.configuration('no')), 'running'),
    'switchover-start': (with_pieces(start=m.ram_start() + m.command(m.SWITCHOVER_START)), 'running'),
    'long-description': (with_pieces(description=m.description(' ' * 3000000)), 'running'),
    'sections-twice': (with_pieces(devices=m.timer() + m.timer()), 'running'),
}


@pytest.mark.parametrize('name', GOOD)
def test_a_stream_is_loaded(destination, name):
    data, state = GOOD[name]
    one = destination().feed(data)
    assert one.loaded() == state
    assert m.error_lines(one.vm) == []
    assert [e['data']['status'] for e in one.vm.seen('MIGRATION')] == ['setup', 'active', 'completed']
    assert len(one.vm.seen('RESUME')) == (state == 'running')


@pytest.mark.parametrize('tail, told', [(b'', 'Expected vmdescription section, but got 0'),
                                        (b'\x55', 'Expected vmdescription section, but got 85'),
                                        (b'\x06\x00', 'cut short'),
                                        (b'\x06\xff\xff\xff\xffab', 'cut short'),
                                        (b'\x06\x00\x00\x00\x10ab', 'cut short')])
def test_the_guest_arrives_without_a_description(destination, tail, told):
    one = destination().feed(with_pieces(description=tail))
    assert one.loaded() == 'running'
    assert told in one.vm.stderr()


@pytest.mark.parametrize('tell', ['-S', 'stop', 'cont'])
@pytest.mark.parametrize('sent', ['running', 'paused', None])
def test_which_side_decides_whether_the_guest_starts(destination, tell, sent):
    one = destination(*(['-S'] if tell in ('-S', 'cont') else []))
    if tell != '-S':
        one.vm.cmd(tell)
    assert m.run_state(one.vm) == 'inmigrate'
    one.feed(with_pieces(globalstate=m.globalstate(sent) if sent else b''))
    expected = 'running' if tell == 'cont' and sent != 'paused' else 'paused'
    assert one.loaded() == expected
    if expected == 'paused':
        one.vm.cmd('cont')
        assert m.run_state(one.vm) == 'running'


def test_answers_on_the_return_path(destination):
    start = m.command(m.OPEN_RETURN_PATH) + m.command(m.PING, m.be32(0xabcd)) + m.ram_start()
    one = destination().feed(with_pieces(start=start), end=False)
    answer = b''
    while chunk := one.conn.recv(100):
        answer += chunk
    assert answer == bytes.fromhex('00020004 0000abcd 00010004 00000000')
    assert one.loaded() == 'running'


def test_a_failure_is_told_on_the_return_path(destination):
    start = m.command(m.OPEN_RETURN_PATH) + m.command(99)
    one = destination().feed(with_pieces(start=start), end=False)
    answer = b''
    while chunk := one.conn.recv(100):
        answer += chunk
    assert answer == bytes.fromhex('00010004 00000001')
    one.refused('MIG_CMD 0x63 unknown')


def test_a_source_that_has_gone_before_it_is_told_keeps_its_guest(destination):
    one = destination()
    data = with_pieces(start=m.command(m.OPEN_RETURN_PATH) + m.ram_start())
    one.vm.signal(signal.SIGSTOP)       # it cannot answer before the source has gone
    one.conn.sendall(data)
    one.conn.close()
    one.vm.signal(signal.SIGCONT)
    one.refused('the guest stays there')


# What is refused

def caps_section(*names):
    return m.configuration('none', ('configuration/capabilities',
                                    m.be32(len(names)) + b''.join(m.counted(n) for n in names)))


BAD = {
    'unknown-run-state': (with_pieces(globalstate=m.globalstate('bogus')), 'invalid parameter value: bogus'),
    'run-state-without-end': (with_pieces(globalstate=m.globalstate('x' * 100)), 'is not terminated'),
    'unterminated-run-state': (with_pieces(globalstate=m.globalstate('x' * 100)), 'globalstate'),
    'unknown-section': (with_pieces(devices=m.full(1, 'foo', 1, b'')), "section or instance 'foo' 0"),
    'unknown-instance': (with_pieces(devices=m.timer(instance=3)), "section or instance 'timer' 3"),
    'wrong-footer': (with_pieces(devices=m.timer(end=m.footer(1))),
                     'Mismatched section id in footer for timer - read 0x1 expected 0x64'),
    'no-footer': (with_pieces(devices=m.timer(end=b'')), 'Missing section footer for timer'),
    'newer-version': (with_pieces(devices=m.timer(version=3)), "unsupported version 3 for 'timer' v2"),
    'older-version': (with_pieces(devices=m.timer(version=0)), 'timer'),
    'machine': (with_pieces(configuration=m.configuration('nonx')),
                "Machine type received is 'nonx' and local is 'none'"),
    'longer-machine': (with_pieces(configuration=m.configuration('nonesuch')), "received is 'nonesuch'"),
    'empty-machine': (with_pieces(configuration=m.configuration('')), 'Machine type received'),
    'machine-of-4-GiB': (m.header() + b'\x07\xff\xff\xff\xff' + b'none', 'configuration'),
    'no-configuration': (with_pieces(configuration=b''), 'Configuration section missing, 1 != 7'),
    'stream-version-2': (with_pieces(header=m.header(version=2)), 'version 2'),
    'stream-version-4': (with_pieces(header=m.header(version=4)), 'version 4'),
    'command': (with_pieces(start=m.command(99)), 'MIG_CMD 0x63 unknown (len 0x0)'),
    'command-0': (with_pieces(start=m.command(0)), 'MIG_CMD 0x0 unknown'),
    'command-length': (with_pieces(start=m.command(m.PING, b'ab')), 'bad length'),
    'ping': (with_pieces(start=m.command(m.PING, m.be32(1))), 'CMD_PING (0x1) received with no return path'),
    'return-path-twice': (with_pieces(start=m.command(m.OPEN_RETURN_PATH) * 2), 'already open'),
    'package': (with_pieces(start=m.command(7, m.be32(0xffffffff))), 'PACKAGED'),
    'section-type': (with_pieces(start=b'\x33'), 'Unknown section type 51'),
    'part-of-nothing': (with_pieces(start=b'\x02' + m.be32(77)), 'Unknown section 77'),
    'ram-version': (with_pieces(start=m.ram_start(version=3)), "instance 0x0 of device 'ram'"),
    'unknown-capability': (with_pieces(configuration=caps_section('foo')), 'Received unknown capability foo'),
    'capability-off-here': (with_pieces(configuration=caps_section('x-ignore-shared')),
                            'Capability x-ignore-shared is off, but received capability is on'),
    'many-capabilities': (m.header() + m.configuration('none', ('configuration/capabilities', m.be32(0xffffffff))),
                          'configuration'),
    'unknown-subsection': (with_pieces(configuration=m.configuration('none', ('configuration/foo', b''))), ''),
    'device-as-live': (with_pieces(start=m.section_start(1, 5, 'timer', 2) + bytes(10)), ''),
}


@pytest.mark.parametrize('name', BAD)
def test_a_bad_stream_is_refused(destination, name):
    data, cause = BAD[name]
    destination(events=False).feed(data).refused(cause)


@pytest.mark.parametrize('reason', ['capability', 'end'])
def test_a_failure_may_leave_the_process_for_another_try(destination, reason, work):
    one = destination(exit_on_error=False)
    one.feed(BAD['unknown-section'][0] if reason == 'capability' else m.joined(m.base())[:40])
    info = m.wait_status(one.vm, 'failed')
    assert 'load of migration failed' in info['error-desc']
    assert m.run_state(one.vm) == 'inmigrate'
    path = work / 'again'
    one.vm.cmd('migrate-incoming', uri=f'unix:{path}')
    one.conn = socket.socket(socket.AF_UNIX)
    one.conn.connect(str(path))
    one.feed(with_pieces())
    assert one.loaded() == 'running'


@pytest.mark.parametrize('piece', ['header', 'configuration', 'start', 'end', 'devices', 'globalstate', 'eof'])
@pytest.mark.parametrize('inside', [False, True])
def test_a_stream_that_ends_early_is_refused(destination, piece, inside):
    pieces = m.base()
    if piece == 'header' and not inside:
        pytest.skip('without a byte it is no stream: test_migration_newcomers.py')
    at = sum(len(v) for k, v in pieces.items() if list(pieces).index(k) < list(pieces).index(piece))
    if inside:
        at += len(pieces[piece]) // 2
    destination(events=False).feed(m.joined(pieces)[:at]).refused()


# Records of memory

def test_pages_differences_and_zeroes(ram_destination):
    delta = bytes.fromhex('03 02 aa bb 85 02 01 cc')
    one = ram_destination(m.page(0x10000, b'\x11' * m.PAGE, 'ram'), m.xbzrle(0x10000, delta), m.zero(0x11000),
                          m.page(RAM - m.PAGE, b'\x22' * m.PAGE))
    assert one.loaded() == 'running'
    expected = bytearray(b'\x11' * m.PAGE)
    expected[3:5], expected[0x10a] = b'\xaa\xbb', 0xcc
    assert one.qtest.read(0x10000, m.PAGE) == expected
    assert one.qtest.read(0x11000, m.PAGE) == bytes(m.PAGE)
    assert one.qtest.read(RAM - m.PAGE, m.PAGE) == b'\x22' * m.PAGE


def test_a_zero_page_lands_whatever_was_written_there(vmm, work):
    """
    One page is written before the load, one before its zero page comes, and one, where memory was not touched before,
    after its zero page came.
    """
    pages = (0, m.PAGE, 8 * ferry.MIB)
    qtest = ferry.QTest(work)
    one = Destination(vmm, work, *MACHINE, '-m', '16M', *qtest.args)
    pieces = m.base()
    qtest.write(0, b'\xaa' * m.PAGE)
    one.feed(pieces['header'] + pieces['configuration'] + m.command(m.OPEN_RETURN_PATH) +
             m.ram_start([('ram', RAM)]) + m.command(m.PING, m.be32(1)), end=False)
    assert one.conn.recv(8) == bytes.fromhex('00020004 00000001')
    qtest.write(pages[1], b'\xbb' * m.PAGE)
    one.feed(m.ram_part(*(m.zero(at, None if at else 'ram') for at in pages)) +
             m.command(m.PING, m.be32(2)), end=False)
    assert one.conn.recv(8) == bytes.fromhex('00020004 00000002')
    qtest.write(pages[2], b'\xcc' * m.PAGE)
    one.feed(b''.join(pieces[name] for name in ('end', 'devices', 'globalstate', 'eof', 'description')), end=False)
    assert one.loaded() == 'running'
    assert [qtest.read(at, m.PAGE) for at in pages] == [bytes(m.PAGE)] * 3


def test_a_block_continues_from_a_part_to_the_end(ram_destination):
    one = ram_destination(m.ram_part(m.page(0x10000, b'\x33' * m.PAGE, 'ram')), m.ram_end(m.page(0x20000, b'\x44' * m.PAGE)))
    assert one.loaded() == 'running'
    assert one.qtest.read(0x20000, m.PAGE) == b'\x44' * m.PAGE


@pytest.mark.parametrize('records', [[m.xbzrle(0, b'', 'ram')], [m.record(0, 0x80, 'x')[:8]], [m.be64(0x200)]],
                         ids=['empty-difference', 'hook', 'multifd-flush'])
def test_records_that_change_nothing(ram_destination, records):
    assert ram_destination(*records).loaded() == 'running'


@pytest.mark.parametrize('missing', [('start', 'end'), ('end',)])
def test_a_stream_without_the_end_of_its_memory_is_not_whole(destination, missing):
    pieces = {name: piece for name, piece in m.base().items() if name not in missing}
    destination(events=False).feed(m.joined(pieces)).refused("ends before the last section of 'ram'")


PAGES = m.page(0, bytes(m.PAGE), 'ram')
BAD_RECORDS = {
    'fill': ([m.zero(0, 'ram', 0x55)], 'Found a zero page with value 85'),
    'continue-first': ([m.page(0x10000, bytes(m.PAGE))], 'bad migration stream'),
    'offset-of-the-end': ([m.page(RAM, bytes(m.PAGE), 'ram')], '1000000'),
    'offset-far-away': ([m.page(0x7ffffffffffff000, bytes(m.PAGE), 'ram')], '7ffffffffffff000'),
    'zero-far-away': ([m.zero(0xfffffffffffff000, 'ram')], 'fffffffffffff000'),
    'xbzrle-encoding': ([PAGES, m.xbzrle(0, b'\0\1a', encoding=2)], 'wrong compression'),
    'xbzrle-empty-run': ([PAGES, m.xbzrle(0, b'\0\0')], 'decode error'),
    'xbzrle-beyond-the-page': ([PAGES, m.xbzrle(0, b'\xff\x1f\x10' + b'a' * 16)], 'decode error'),
    'xbzrle-too-long': ([PAGES, m.xbzrle(0, b'a' * 5000)], 'overflow'),
    'unknown-block': ([m.zero(0, 'zzz')], "Can't find block zzz"),
    'zero-and-page': ([m.record(0, 0x0a, 'ram')], 'Unknown combination of migration flags: 0xa'),
    'compressed': ([m.record(0, 0x100, 'ram')], 'Unknown combination of migration flags: 0x100'),
}


@pytest.mark.parametrize('name', BAD_RECORDS)
def test_a_bad_record_is_refused(ram_destination, name):
    records, cause = BAD_RECORDS[name]
    ram_destination(*records, events=False).refused(cause)


@pytest.mark.parametrize('blocks, cause', [([('ram', 2 * RAM)], 'Size mismatch: ram: 0x2000000 != 0x1000000'),
                                           ([('ram', RAM // 2)], 'Size mismatch'),
                                           ([('foo', RAM)], 'Unknown ramblock "foo", cannot accept migration'),
                                           ([('ram', 1 << 62)], 'Size mismatch')])
def test_other_blocks_are_refused(ram_destination, blocks, cause):
    ram_destination(blocks=blocks, events=False).refused(cause)


def test_blocks_that_are_not_listed_stay(ram_destination):
    one = ram_destination(blocks=())
    assert one.loaded() == 'running'
    assert one.qtest.read(0, 64) == bytes(64)


# The source's side

@pytest.fixture
def source(vmm):
    vm = vmm(*MACHINE, '-m', '1M', defaults=False, name='source')
    m.set_caps(vm, 'events', 'return-path')
    return vm


def statuses(vm):
    return [e['data']['status'] for e in vm.seen('MIGRATION')]


def stays_and_can_go(vm, work):
    """The guest runs here as before, and another migration succeeds."""
    assert m.run_state(vm) == 'running'
    assert len(vm.seen('STOP')) == len(vm.seen('RESUME'))
    sink = m.Sink(work / 'second')
    vm.cmd('migrate', uri=sink.uri)
    assert m.wait_over(vm)['status'] == 'completed'
    sink.result()
    assert m.run_state(vm) == 'postmigrate'


def one_error(vm, *causes):
    lines = m.error_lines(vm)
    assert len(lines) == 1, lines
    for cause in causes:
        assert cause in lines[0]


def test_the_destination_agrees(source, work):
    sink = m.Sink(work / 'sink')
    source.cmd('migrate', uri=sink.uri)
    assert m.wait_over(source)['status'] == 'completed'
    assert m.run_state(source) == 'postmigrate'
    reader = sink.result()
    assert reader.machine == 'none' and reader.blocks == {'ram': ferry.MIB}
    assert statuses(source) == ['setup', 'active', 'device', 'completed']
    assert len(source.seen('STOP')) == 1 and not source.seen('RESUME')


def test_a_destination_that_has_not_answered_does_not_get_the_guest(source, work):
    """It may have refused what came first, and that could not be told yet."""
    sink = m.Sink(work / 'sink', pong=False, close=False)
    source.cmd('migrate', uri=sink.uri)
    m.wait_status(source, 'active')
    assert not sink.read_all.wait(0.3)
    assert m.run_state(source) == 'running'
    sink.drop()
    assert 'the destination went away' in m.wait_status(source, 'failed')['error-desc']
    assert not source.seen('STOP')
    stays_and_can_go(source, work)


def test_the_destination_refuses_at_the_end(source, work):
    sink = m.Sink(work / 'sink', verdict=5)
    source.cmd('migrate', uri=sink.uri)
    assert 'Sibling indicated error 5' in m.wait_status(source, 'failed')['error-desc']
    assert statuses(source) == ['setup', 'active', 'device', 'failing', 'failed']
    one_error(source, 'Sibling indicated error 5')
    stays_and_can_go(source, work)


def test_a_refusal_counts_whenever_it_comes(source, work):
    """Also before the source knows that the end of the stream has left."""
    for turn in range(1, 21):
        sink = m.Sink(work / f'sink{turn}', verdict=5)
        source.cmd('migrate', uri=sink.uri)
        assert 'Sibling indicated error 5' in m.wait_status(source, 'failed')['error-desc']
        sink.result()
        assert m.run_state(source) == 'running'
        assert len(source.seen('RESUME')) == turn


def gone_for_good(vm):
    """The peer may have the guest: it stays stopped until a user that knows better says `cont`."""
    info = m.wait_status(vm, 'failed')
    assert 'error-desc' in info
    assert m.run_state(vm) == 'postmigrate' and not vm.seen('RESUME')
    with pytest.raises(ferry.QMPError, match='paused due to previous migration'):
        vm.cmd('migrate', uri='exec:cat >/dev/null')
    vm.cmd('cont')
    assert m.run_state(vm) == 'running'


def test_no_verdict_after_the_end(source, work):
    sink = m.Sink(work / 'sink', verdict=None)
    source.cmd('migrate', uri=sink.uri)
    gone_for_good(source)
    one_error(source, 'the destination went away')
    stays_and_can_go(source, work)


def test_a_program_that_fails_at_the_end(source, work):
    """It may have been the way to a destination, which then has the guest."""
    m.set_caps(source, return_path=False)
    source.cmd('migrate', uri=f'exec:cat > {work}/all; exit 3')
    gone_for_good(source)
    one_error(source, 'exited with status 3')
    assert m.read_stream(work / 'all').blocks == {'ram': ferry.MIB}
    stays_and_can_go(source, work)


def test_a_program_that_fails_earlier(vmm):
    source = vmm(*MACHINE, '-m', '1G', defaults=False, name='source')      # more than a pipe takes without a reader
    m.set_caps(source, return_path=False)
    source.cmd('migrate', uri='exec:exec 0<&-; exit 3')
    assert 'error-desc' in m.wait_status(source, 'failed')
    assert m.run_state(source) == 'running'


def test_a_late_verdict_is_awaited(source, work):
    sink = m.Sink(work / 'sink', verdict=None, close=False)
    source.cmd('migrate', uri=sink.uri)
    sink.result()
    m.wait_status(source, 'device')
    assert m.run_state(source) == 'finish-migrate'
    with pytest.raises(ferry.QMPError, match='not finalized'):
        source.cmd('cont')
    sink.conn.sendall(bytes.fromhex('00010004 00000000'))
    assert m.wait_over(source)['status'] == 'completed'
    sink.drop()


def test_cancel_while_the_verdict_is_awaited_leaves_the_guest_stopped(source, work):
    sink = m.Sink(work / 'sink', verdict=None, close=False)
    source.cmd('migrate', uri=sink.uri)
    sink.result()
    m.wait_status(source, 'device')
    source.cmd('migrate_cancel')
    assert m.wait_over(source)['status'] == 'cancelled'
    assert m.run_state(source) == 'postmigrate'
    source.cmd('cont')
    sink.drop()
    stays_and_can_go(source, work)


@pytest.mark.parametrize('message, cause', [
    ('004d 0000', 'Received invalid message 0x004d length 0x0000'),
    ('0000 0000', 'Received invalid message 0x0000'),
    ('0002 0003 000000', 'bad length 3'),
    ('0001 ffff', '0xffff'),
    ('0001 0004 00000000', 'has not left yet'),
    ('0001 0004 00000002', 'Sibling indicated error 2'),
    ('0003 000d 0000', 'invalid message 0x0003'),
])
def test_nonsense_on_the_return_path_leaves_the_guest_here(source, work, message, cause):
    """The guest cannot leave before that is read: the migration waits in pre-switchover."""
    m.set_caps(source, 'pause-before-switchover')
    sink = m.Sink(work / 'sink', message=bytes.fromhex(message), stop_at=1 << 30)
    source.cmd('migrate', uri=sink.uri)
    assert cause in m.wait_status(source, 'failed')['error-desc']
    m.set_caps(source, pause_before_switchover=False)
    one_error(source, cause)
    sink.result()
    stays_and_can_go(source, work)


@pytest.mark.parametrize('return_path', [True, False])
def test_the_destination_goes_in_the_middle(vmm, work, return_path):
    qtest = ferry.QTest(work)
    vm = vmm(*MACHINE, '-m', '16M', *qtest.args, defaults=False, name='source')
    qtest.memset(0, RAM, 0x5a)
    m.set_caps(vm, 'events', return_path=return_path)
    sink = m.Sink(work / 'sink', stop_at=1 << 20)
    vm.cmd('migrate', uri=sink.uri)
    assert m.wait_status(vm, 'failed')['error-desc']
    sink.result()
    one_error(vm, 'migration failed')
    stays_and_can_go(vm, work)


def test_without_a_return_path_no_destination_is_asked(source, work):
    m.set_caps(source, return_path=False)
    sink = m.Sink(work / 'sink')
    source.cmd('migrate', uri=sink.uri)
    assert m.wait_over(source)['status'] == 'completed'
    assert not sink.result().return_path
