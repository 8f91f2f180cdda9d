# SPDX-License-Identifier: GPL-2.0-or-later
"""The qtest protocol: a test plays the guest, and nothing it says ends the process."""
import random
import socket

import pytest

import ferry
from ferry import MIB


@pytest.fixture
def qtest(vmm, work):
    one = ferry.QTest(work)
    one.vm = vmm('-m', '64M', *one.args)
    one.accept()
    yield one
    one.close()


@pytest.mark.parametrize('line, answer', [
    ('readb 0', 'OK 0x0000000000000000'),
    ('readq 0xfffffffffffffffc', 'OK 0x0000000000000000'),
    ('inb 0x80', 'OK 0x00ff'),
    ('inw 0x80', 'OK 0xffff'),
    ('inl 0x80', 'OK 0xffffffff'),
    ('outb 0x80 1', 'OK'),
    ('outl 0xffff 1', 'OK'),
    ('read 0 4', 'OK 0x00000000'),
    ('read 0 0', 'OK 0x'),
    ('write 0 0 0x', 'OK'),
    ('b64read 0 3', 'OK AAAA'),
    ('memset 0 0x4000000 1', 'OK'),
    ('memset 0x10000000000 0x1000 1', 'OK'),
    ('memset 010 8 0xff', 'OK'),
    ('endianness', 'OK little'),
    ('clock_step', 'OK 0'),
    ('clock_step 1000', 'OK 1000'),
    ('clock_set 0x10', 'OK 16'),
    ('clock_step 18446744073709551615', 'OK 9223372036854775807'),
])
def test_commands(qtest, line, answer):
    assert qtest.raw(line) == answer


@pytest.mark.parametrize('line', [
    '', ' ', 'bogus', 'READB 0', 'readb', 'readb x', 'readb 0x', 'readb -1', 'readb 18446744073709551616', 'writeb 0',
    'writeb 0 zz', 'inb 0x10000', 'outb -1 1', 'read 0', 'read 0 -1', 'read 0 0xffffffffffffffff', 'read 0 16777217',
    'write 0 4', 'write 0 4 12345678', 'write 0 4 0x123', 'write 0 4 0x123456789a', 'write 0 4 0xgg',
    'write 0 0xffffffffffffffff 0x00', 'b64write 0 4 AAAA', 'b64write 0 4 !!!!', 'b64read 0 99999999999',
    'memset 0', 'memset 0 0xffffffffffffffff 1', 'memset 0 1 x', 'clock_step x', 'clock_step -1', 'clock_set',
    'irq_intercept_in', 'irq_intercept_in /machine', 'irq_intercept_out ioapic name', 'set_irq_in a b c d',
    'set_irq_in a b 0 1', 'module_load a b', 'x ' * 5000, 'x' * 70000, '\xe4\xff',
], ids=lambda line: line[:40])
def test_nonsense_is_answered_with_fail(qtest, line):
    answer = qtest.raw(line)
    assert answer.startswith('FAIL ')
    assert len(answer) < 200
    assert qtest.raw('readb 0') == 'OK 0x0000000000000000'


def test_time_does_not_go_back(qtest):
    assert qtest.clock_step(500) == 500
    assert qtest.raw('clock_set 499').startswith('FAIL')
    assert qtest.clock_step(0) == 500


def test_values_are_little_endian(qtest):
    qtest.cmd('writeq', 0x1000, 0x1122334455667788)
    assert qtest.read(0x1000, 8).hex() == '8877665544332211'
    assert qtest.value('readl', 0x1004) == 0x11223344
    assert qtest.value('readw', 0x1006) == 0x1122
    assert qtest.value('readb', 0x1007) == 0x11
    qtest.cmd('writew', 0x1000, 0xabcdef)
    assert qtest.value('readl', 0x1000) == 0x5566cdef
    assert qtest.cmd('b64read', 0x1000, 3) == '781m'
    qtest.cmd('b64write', 0x2000, 3, '781m')
    assert qtest.read(0x2000, 3).hex() == 'efcd66'


def test_large_transfers_and_many_lines_at_once(qtest):
    data = random.Random(3).randbytes(16 * MIB)
    qtest.send_raw(b'write 0x100000 0x1000000 0x' + data.hex().encode() + b'\n')
    assert qtest.answer() == 'OK'
    assert qtest.raw('read 0x100000 0x1000000') == 'OK 0x' + data.hex()
    qtest.send_raw(b''.join(b'writel %d %d\nreadl %d\n' % (4 * i, i, 4 * i) for i in range(2000)))
    for i in range(2000):
        assert qtest.answer() == 'OK'
        assert qtest.answer() == f'OK 0x{i:016x}'


def test_unread_answers_do_not_pile_up(qtest):
    """A line waits until the answer before it could be sent: memory stays bounded."""
    qtest.send_raw(b'read 0 16777216\n' * 400)
    qtest.vm.cmd('query-status')
    with open(f'/proc/{qtest.vm.process.pid}/status', encoding='ascii') as file:
        peak_kib = next(int(line.split()[1]) for line in file if line.startswith('VmHWM'))
    assert peak_kib < 600 * 1024
    for _ in range(3):
        assert len(qtest.answer()) == 5 + 2 * 16 * MIB


def test_many_lines_do_not_keep_others_waiting(qtest):
    """The main loop carries out one a turn, and drops the rest when the client that sent them goes."""
    qtest.send_raw(b'read 0 1048576\n' * 3000)
    qtest.close()
    qtest.vm.cmd('query-status')
    qtest.vm.quit()


def test_a_line_without_end_is_refused(qtest):
    qtest.send_raw(b'write 0 4 0x')
    piece = b'0' * MIB
    for _ in range(66):
        qtest.send_raw(piece)
    qtest.send_raw(b'\n')
    assert qtest.answer() == 'FAIL the line is too long'
    assert qtest.raw('endianness') == 'OK little'


def test_any_bytes_are_survived(qtest):
    rand = random.Random(11)
    words = [b'read', b'write', b'memset', b'0', b'4', b'0x1000', b'0xff', b'\x00', b'\xff', b' ', b'clock_step', b'b64write']
    for _ in range(300):
        line = b' '.join(rand.choice(words) for _ in range(rand.randrange(6))).replace(b'\n', b'')
        qtest.send_raw(line + b'\n')
        assert qtest.answer().split(' ')[0] in ('OK', 'FAIL')


def test_test_may_leave_and_the_log_tells(vmm, work):
    path, log = work / 'q.sock', work / 'q.log'
    vm = vmm('-accel', 'qtest', '-qtest', f'unix:{path},server=on,wait=off', '-qtest-log', str(log))
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b'endian')
            client.sendall(b'ness\nhalf a line')
            assert client.recv(100) == b'OK little\n'
    vm.quit()
    text = log.read_text()
    assert text.count('] OPENED') == 2
    assert text.count('[R +') == 2 and '] endianness' in text
    assert text.count('[S +') == 2 and '] OK little' in text


def test_chardev_by_name(vmm, work):
    one = ferry.QTest(work)
    vmm('-chardev', f'socket,id=q,path={one.path}', '-qtest', 'chardev:q', '-qtest-log', 'none')
    assert one.cmd('endianness') == 'little'
    one.close()


def test_bad_options_are_refused(vmm):
    for args in (['-qtest', 'chardev:none'], ['-qtest', 'bogus:'], ['-qtest', 'null', '-qtest-log', '/nonexistent/log']):
        with pytest.raises(RuntimeError, match='exit status 1'):
            vmm(*args)
