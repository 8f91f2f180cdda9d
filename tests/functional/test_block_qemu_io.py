# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor's qemu-io command speaks the language of the tool: same arguments, same results, same mistakes."""
import re
import subprocess

import pytest

import ferry

SIZE = ferry.MIB

COMMANDS = [
    'read 0 512', 'r 0 512', 'read -q 0 512', 'read -v 0 20', 'read -P 0 0 64k', 'read -P 1 0 64k', 'read -P 256 0 1k',
    'read -P x 0 1k', 'read -P 0 -s 512 -l 512 0 4k', 'read -P 1 -s 512 -l 512 0 4k', 'read -P 0 -s 5 0 4k',
    'read -P 0 -s 4k -l 512 0 4k', 'read', 'read 0', 'read x 1', 'read 0 x', 'read 2M 512', 'read 0 2M',
    'read 0 3G', 'read -b 0 512', 'read -p 0 512', 'read 100 100', 'read 0 1.5k', 'read 0 0x200', 'read 0 0', 'foo',
    'read 0 12345678901234567890123', 'read 9E 1', 'read 1.5 512', 'read 1q 512', 'read -P0x00 0 512', 'read -qP 1 0 4k',
    'readv 0 512 512', 'readv -P 1 0 512', 'readv -v 0 4 4', 'readv 0', 'readv 0 2M', 'readv 0 1G 1G 1G', 'readv 0 3G',
    'write 0 512', 'read -P 0xcd 0 512', 'write -P 0xab 512 512', 'read -v 500 20', 'write -z 0 512', 'write -z -u 4k 4k',
    'write -u 0 512', 'write -z -P 1 0 512', 'write -f 0 512', 'write -n 0 512', 'write -b 0 512',
    'write -s {work}/pattern 0 20', 'read -v 0 24', 'write -s {work}/none 0 20', 'write -s {work}/empty 0 20',
    'write -s {work}/pattern -P 1 0 20', 'write -c -f 0 512', 'write -z -c 0 512', 'write -b -z 0 512', 'write 2M 512',
    'write -P 300 0 512', 'write 0 3G', 'write -z 0 3G', 'write -z 0 2M', 'write 1 100', 'writev -P 7 1k 512 1k',
    'read -P 7 1k 1536', 'writev 0 x', 'writev -P', 'discard 0 4k', 'discard -q 0 4k', 'discard', 'discard x 1',
    'discard 2M 4k', 'discard 0 3G', 'discard 1 5', 'flush', 'flush 1', 'length', 'length 1', 'alloc x', 'alloc',
    'alloc 0 512 1', 'alloc 2M', 'alloc -1', 'sleep', 'sleep x', 'sleep -1', 'truncate 2M', 'length', 'truncate x',
    'truncate', 'truncate 1M', 'length', 'break x', 'break read_aio A', 'resume', 'help foo',
]
QCOW2_COMMANDS = ['map', 'write 64k 1', 'map', 'alloc 0 1M', 'alloc 128k', 'write -c -P 3 256k 64k', 'read -P 3 256k 64k',
                  'write -z 512k 64k', 'map', 'alloc 500k 100k', 'write -z -u 0 1M', 'map', 'discard 0 1M', 'map']


def normal(text):
    """Without what depends on time, and without the usage line, whose words are our own."""
    kept = []
    for line in text.splitlines():
        line = re.sub(r'1 ops; .*', '1 ops; RATE', line)
        if not re.match(r'\w+ .* -- ', line) or line.startswith(('Parsing', 'read: invalid')):
            kept.append(line)
    return kept


def stock(path, fmt, command):
    done = subprocess.run(['timeout', '20', 'qemu-io', '-f', fmt, '-c', command, path], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_same_answers_as_the_tool(vm, work, need, fmt):
    need.tool('qemu-io')
    (work / 'pattern').write_bytes(b'abcdefg')
    (work / 'empty').touch()
    theirs = ferry.make_image(work / 'theirs', SIZE, fmt)
    ours = ferry.make_image(work / 'ours', SIZE, fmt)
    vm.add_file(ours, fmt, node_name='disk', discard='unmap')
    # The area of saved guests, which -b means, is for snapshots.
    commands = COMMANDS if fmt == 'raw' else [c for c in COMMANDS if ' -b' not in c] + QCOW2_COMMANDS
    for command in commands:
        command = command.format(work=work)
        assert normal(vm.qemu_io('disk', command)) == normal(stock(theirs, fmt, command)), command
    vm.quit()
    ferry.compare(ours, theirs, fmt, fmt)


@pytest.fixture
def disk(vm, work):
    path = ferry.make_image(work / 'disk.raw', SIZE)
    vm.add('raw', 'disk', file={'driver': 'blkdebug', 'image': {'driver': 'file', 'filename': str(path)}})
    return vm


def test_background_requests_report_when_they_end(disk):
    assert disk.qemu_io('disk', 'break write_aio A') == ''
    assert disk.qemu_io('disk', 'aio_write -P 5 0 4k') == "blkdebug: Suspended request 'A'\n"
    assert disk.qemu_io('disk', 'wait_break A') == ''
    assert 'Resuming' in disk.qemu_io('disk', 'resume A')
    disk.qemu_io('disk', 'aio_flush')
    assert 'wrote 4096/4096 bytes at offset 0\n' in disk.stderr()
    assert 'failed' not in disk.qemu_io('disk', 'read -P 5 0 4k')


def test_background_mistakes_and_failures_are_reported(disk):
    for command, message in (('aio_read 2M 512', 'readv failed: Input/output error'),
                             ('aio_write 2M 512', 'aio_write failed: Input/output error'),
                             ('aio_read -P 9 0 512', 'Pattern verification failed at offset 0, 512 bytes'),
                             ('aio_write -u 0 4k', '-u requires -z to be specified'),
                             ('aio_write -z -P 4 0 4k', '-z and -P cannot be specified'),
                             ('aio_write -z 0 4k 4k', '-z supports only a single length parameter'),
                             ('aio_read', 'bad argument count 0 to aio_read, expected at least 2 arguments'),
                             ('aio_write -s x 0 5', "aio_write: invalid option -- 's'")):
        before = len(disk.stderr())
        disk.qemu_io('disk', command)
        disk.qemu_io('disk', 'aio_flush')
        assert message in disk.stderr()[before:]


def test_waiting_for_a_breakpoint_holds_up_only_its_session(vmm, work):
    path = ferry.make_image(work / 'disk.raw', SIZE)
    vm = vmm('-qmp', f'unix:{work}/second,server=on,wait=off')
    vm.add('raw', 'disk', file={'driver': 'blkdebug', 'image': {'driver': 'file', 'filename': str(path)}})
    second = ferry.QMPClient.connect(f'{work}/second')
    vm.qemu_io('disk', 'break write_aio A')
    waiting = vm.send('human-monitor-command', command_line='qemu-io disk "wait_break A"')
    second.cmd('human-monitor-command', command_line='qemu-io disk "aio_write 0 512"')
    vm.reply(waiting)
    waiting = vm.send('human-monitor-command', command_line='qemu-io disk "aio_flush"')
    second.cmd('human-monitor-command', command_line='qemu-io disk "resume A"')
    vm.reply(waiting)
    second.close()


@pytest.mark.parametrize('command', ['wait_break B', 'remove_break B', 'resume B'])
def test_unknown_breakpoints_are_errors(disk, command):
    assert 'No such file or directory' in disk.qemu_io('disk', command)


def test_removing_a_breakpoint_lets_go_of_its_request(disk):
    disk.qemu_io('disk', 'break pwritev A')
    disk.qemu_io('disk', 'aio_write -P 1 0 512')
    disk.qemu_io('disk', 'remove_break A')
    disk.qemu_io('disk', 'aio_flush')
    assert 'failed' not in disk.qemu_io('disk', 'read -P 1 0 512')


@pytest.mark.parametrize('command', ['write 0 512', 'aio_write 0 512', 'write -z 0 512', 'discard 0 512', 'truncate 2M'])
def test_read_only_nodes_are_left_alone(vm, work, command):
    path = ferry.make_image(work / 'disk.raw', SIZE, seed=1)
    before = path.read_bytes()
    vm.add_file(path, node_name='disk', read_only=True)
    assert 'read-only' in vm.qemu_io('disk', command)
    assert path.read_bytes() == before


def test_drives_count_background_requests(vmm, work):
    vm = vmm('-drive', f'if=none,id=d0,file={ferry.make_image(work / "disk.raw", SIZE)},format=raw')
    for command in ('aio_write 0 4k', 'aio_read 0 512', 'aio_read 2M 512', 'aio_write -i 0 512', 'aio_flush'):
        vm.qemu_io('d0', command)
    stats = vm.cmd('query-blockstats')[0]['stats']
    assert {k: stats[k] for k in ('rd_bytes', 'wr_bytes', 'rd_operations', 'wr_operations', 'failed_rd_operations',
                                  'invalid_wr_operations')} == \
        {'rd_bytes': 512, 'wr_bytes': 4096, 'rd_operations': 1, 'wr_operations': 1, 'failed_rd_operations': 1,
         'invalid_wr_operations': 1}


def test_works_on_a_disk_in_an_iothread(vmm, work):
    vm = vmm('-object', 'iothread,id=io0')
    path = ferry.make_image(work / 'disk.raw', SIZE)
    vm.add('raw', 'disk', file={'driver': 'blkdebug', 'image': {'driver': 'file', 'filename': str(path)}})
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(work / 'nbd')}})
    vm.cmd('block-export-add', type='nbd', id='e', node_name='disk', writable=True, iothread='io0')
    vm.qemu_io('disk', 'break write_aio A')
    vm.qemu_io('disk', 'aio_write -P 1 0 64k')
    vm.qemu_io('disk', 'wait_break A')
    assert 'wrote' in vm.qemu_io('disk', 'write -P 2 64k 64k')
    vm.qemu_io('disk', 'resume A')
    vm.qemu_io('disk', 'aio_flush')
    assert 'failed' not in vm.qemu_io('disk', 'read -P 1 0 64k')
    assert 'failed' not in vm.qemu_io('disk', 'read -P 2 64k 64k')
    assert vm.qemu_io('disk', 'length') == '1 MiB\n'


def test_usage_and_names_are_checked(vm):
    vm.add('null-co', 'disk', size=SIZE)
    assert 'Try "help qemu-io"' in vm.hmp('qemu-io disk read 0 512')
    assert 'usage' in vm.hmp('qemu-io disk')
    assert "Cannot find device='' nor node-name='none'" in vm.qemu_io('none', 'read 0 512')
    text = vm.qemu_io('disk', 'help')
    assert all(f'\n{name} ' in '\n' + text for name in ('read', 'aio_write', 'wait_break', 'map'))
