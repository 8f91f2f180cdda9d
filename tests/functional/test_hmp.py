# SPDX-License-Identifier: GPL-2.0-or-later
"""HMP: through human-monitor-command and as a session that people type into."""
import re
import socket

import pytest

import ferry


@pytest.mark.parametrize('line, words', [
    ('info version', '11.'),
    ('info status', 'VM status: paused (prelaunch)'),
    ('info block', ''),
    ('info block-jobs', 'No active jobs'),
    ('info jobs', 'No active jobs'),
    ('info chardev', 'compat_monitor0: filename=unix:'),
    ('info name', 'web'),
    ('info uuid', '00000000-0000-0000-0000-000000000000'),
    ('info iothreads', 't:'),
    ('info fdsets', ''),
    ('info qtree', 'main-system-bus'),
    ('info trace-events', ''),
    ('info named-block-nodes', ''),
    ('info blockstats', ''),
    ('help', 'block_job_cancel [-f] device'),
    ('help quit', 'quit|q'),
    ('info', 'info status'),
    ('help info', 'info uuid'),
    ('', ''),
    ('   # a comment', ''),
    ('bogus x', "unknown command: 'bogus'"),
    ('info bogus', "unknown command: 'info bogus'"),
    ('block_resize nothing 1M', 'Error: '),
    ('block_resize nothing', 'too few arguments'),
    ('block_resize nothing 1Z', "'1Z' is not a size"),
    ('block_job_cancel -x nothing', 'unsupported option -x'),
    ('stop now', 'extraneous'),
    ('drive_mirror a', 'usage'),
    ('drive_mirror -x d0 y', 'unsupported option -x'),
    ('drive_mirror -nf d0 y', 'unsupported option -nf'),
    ('nbd_server_start -b x', 'unsupported option -b'),
    ('info status xx', 'info status: extraneous characters'),
    ('info status -x', 'info status: unsupported option -x'),
    ('info block -x', 'unsupported option -x'),
    ('migrate -b exec:true', 'unsupported option -b'),
    ('system_reset 1', 'extraneous characters'),
    ('help nosuch', "unknown command: 'nosuch'"),
    ('help info nosuch', "unknown command: 'info nosuch'"),
    ('help info status', 'info status'),
    ('block_set_io_throttle d 1', 'too few arguments'),
    ('block_set_io_throttle d 1 x 0 0 0 0', "'x' is not a number"),
    ('nbd_server_start nonsense', 'Error: '),
    ('object_add bogus,id=x', 'Error: '),
    ('chardev-add null', 'Error: '),
    ('log bogus', 'Error: '),
    ("info 'status", 'quot'),
])
def test_line_prints_what_is_expected(vmm, line, words):
    vm = vmm('-name', 'web', '-object', 'iothread,id=t')
    text = vm.hmp(line)
    assert words in text
    assert '\n' not in text.replace('\r\n', '')
    assert not text or text.endswith('\r\n')


def test_commands_do_what_qmp_does(vm):
    assert vm.hmp('cont') == ''
    assert vm.hmp('info status') == 'VM status: running\r\n'
    assert vm.hmp('stop') == ''
    assert vm.hmp('info status') == 'VM status: paused\r\n'
    assert vm.hmp('object_add iothread,id=t') == ''
    assert vm.hmp('chardev-add null,id=c') == ''
    assert 'c: filename=null' in vm.hmp('info chardev')
    assert vm.hmp('chardev-remove c') == ''
    assert vm.hmp('object_del t') == ''
    assert "Error: object 't' not found" in vm.hmp('object_del t')


def test_disks_are_described(vmm, work):
    image = work / 'disk.raw'
    image.write_bytes(bytes(1 << 20))
    vm = vmm('-drive', f'file={image},format=raw,if=none,id=d,node-name=n')
    text = vm.hmp('info block')
    assert f'd (n): {image} (raw)' in text and 'Cache mode:' in text
    assert 'd: rd_bytes=0 wr_bytes=0' in vm.hmp('info blockstats')
    assert vm.hmp('block_resize d 2M') == ''
    assert image.stat().st_size == 2 << 20


def test_limits_set_by_words_are_those_of_the_disk(vmm, work):
    image = work / 'disk.raw'
    image.write_bytes(bytes(1 << 20))
    vm = vmm('-drive', f'file={image},format=raw,if=none,id=d')
    assert vm.hmp('block_set_io_throttle d 0 1000000 2000000 300 0 0') == ''
    limits = vm.cmd('query-block')[0]['inserted']
    assert [limits[name] for name in ('bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr')] == \
        [0, 1000000, 2000000, 300, 0, 0]
    assert vm.hmp('block_set_io_throttle d 0 0 0 0 0 0') == ''
    assert vm.cmd('query-block')[0]['inserted']['iops'] == 0


def test_help_lists_only_what_exists(vm):
    names = [line.split()[0].split('|')[0] for line in vm.hmp('help').splitlines()]
    assert 'drive_mirror' in names and len(names) == len(set(names))
    for name in names:
        if name not in ('quit', 'q', 'info', 'help'):
            said = vm.hmp(name)
            assert 'unknown command' not in said and 'has not been found' not in said, name


class Session:
    """A person at a monitor on a socket."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.sock.settimeout(60 * ferry.time_scale())
        self.seen = b''

    def until(self, text):
        """What came up to and with the text."""
        while text not in self.seen:
            data = self.sock.recv(65536)
            assert data, self.seen
            self.seen += data
        end = self.seen.index(text) + len(text)
        got, self.seen = self.seen[:end], self.seen[end:]
        return got

    def type(self, text):
        self.sock.sendall(text)
        return self.until(b'(qemu) ')


@pytest.fixture
def session(vmm, work):
    path = str(work / 'hmp.sock')
    vmm('-monitor', f'unix:{path},server=on,wait=off')
    one = Session(path)
    assert b"type 'help'" in one.until(b'(qemu) ')
    yield one
    one.sock.close()


def test_session_echoes_and_answers(session):
    assert session.type(b'info status\n') == b'info status\r\nVM status: paused (prelaunch)\r\n(qemu) '
    assert session.type(b'info status\r\n').count(b'VM status') == 1
    assert session.type(b'\n') == b'\r\n(qemu) '


def test_session_edits(session):
    assert b'VM status' in session.type(b'infox\x7f statux\bs\n')
    assert b'VM status' in session.type(b'rubbish\x15info status\n')
    assert b'VM status' in session.type(b'info rubbish\x17status\n')
    assert b'VM status' in session.type(b'\x1b[A\x1b[A\n')       # the line before the last; all are the same
    assert b'VM status' in session.type(b'\x1b[D\x1b[Cinfo status\n')


def test_session_takes_many_lines_at_once(session):
    session.sock.sendall(b'info name\n' * 200 + b'info status\n')
    assert session.until(b'VM status').count(b'(qemu) ') == 200


def test_session_survives_noise(session):
    session.sock.sendall(bytes(range(4, 8)) + b'\x00\x1b[999;999X' + b'x' * 20000 + b'\n')
    session.until(b'unknown command')
    session.until(b'(qemu) ')
    assert b'VM status' in session.type(b'info status\n')


def test_session_quits(vmm, work):
    path = str(work / 'hmp.sock')
    vm = vmm('-chardev', f'socket,id=h,path={path},server=on,wait=off', '-mon', 'h')
    one = Session(path)
    one.until(b'(qemu) ')
    one.sock.sendall(b'quit\n')
    assert vm.wait('SHUTDOWN')['data']['reason'] == 'host-qmp-quit'
    assert vm.wait_exit() == 0
    one.sock.close()


def test_info_block_jobs_tells_how_far_it_is(vm):
    for name in ('source', 'target'):
        vm.cmd('blockdev-add', driver='null-co', node_name=name, size=64 << 20, read_zeroes=False)
    vm.cmd('blockdev-mirror', job_id='m', device='source', target='target', sync='full')
    vm.wait('BLOCK_JOB_READY')
    text = vm.hmp('info block-jobs')
    assert 'Type mirror, device m: Completed 67108864 of 67108864 bytes, speed limit 0 bytes/s' in text
    assert re.search(r'100\.0 % done, 0 B left, [0-9.]+ \S+/s, 0 s to go, ready', text)
    vm.cmd('block-job-cancel', device='m', force=True)
    vm.wait('BLOCK_JOB_CANCELLED')


@pytest.mark.parametrize('keys', [
    b'nfo status\x1b[Hi', b'nfo status\x01i', b'nfo status\x1b[1~i',             # home
    b'info tatus' + b'\x1b[D' * 5 + b's', b'info tatus' + b'\x02' * 5 + b's',     # left
    b'info statu\x01\x1b[Fs', b'info statu\x01\x05s', b'info statu\x01\x1b[4~s',  # end
    b'xinfo status\x01\x1b[3~', b'xinfo status\x01\x04',                         # delete
    b'info status rubbish' + b'\x02' * 8 + b'\x0b',                              # the rest
    b'info rubbish status\x1b[1;5D' + b'\x02' * 6 + b'\x17',                     # the word before
    b'nfo status\x01\x1b[C\x1b[D\x1b[Di',                                       # not beyond the ends
])
def test_line_is_edited_in_the_middle(session, keys):
    assert b'VM status' in session.type(keys + b'\n')


def test_earlier_lines_come_back(session):
    session.type(b'info status\n')
    session.type(b'info name\n')
    assert b'VM status' in session.type(b'\x1b[A\x1b[A\n')
    assert b'VM status' in session.type(b'half a line\x10\x10\x10\x0e\x0e\n')
    assert b'unknown command' in session.type(b'\x1b[A\x1b[Bnonsense\n')


def test_tab_completes(session):
    assert b'VM status' in session.type(b'info stat\t\n')
    assert b'VM status' in session.type(b'inf\tstat\t\n')
    session.sock.sendall(b'info block\t')
    assert {b'block', b'block-jobs', b'blockstats'} <= set(session.until(b'(qemu) info block').split())
    assert b'No active jobs' in session.type(b'-j\t\n')
    assert b'unknown command' in session.type(b'nonsense\t\n')
    assert b'stop the guest' in session.type(b'help sto\t\n')


def test_blocks_are_described_one_by_one_and_at_length(vmm, work):
    base = ferry.make_image(work / 'base.raw', ferry.MIB)
    top = ferry.make_image(work / 'top.qcow2', ferry.MIB, 'qcow2', backing=base, backing_fmt='raw')
    vm = vmm('-drive', f'file={top},if=none,id=a,format=qcow2,node-name=n', '-drive', 'if=none,id=b')
    assert 'b: [not inserted]' in vm.hmp('info block') and 'Images' not in vm.hmp('info block')
    assert 'b:' not in vm.hmp('info block a')
    text = vm.hmp('info block -v a')
    assert all(word in text for word in (f'image: {top}', f'image: {base}', 'cluster_size: 65536',
                                         'virtual size: 1 MiB (1048576 bytes)'))
    assert vm.hmp('info block n').startswith('n: ')
    assert 'image:' in vm.hmp('info block -n -v n')
    assert "no disk or node 'c'" in vm.hmp('info block c')
    assert 'unsupported option -x' in vm.hmp('info block -x')


def test_objects_are_a_tree(vmm):
    vm = vmm('-object', 'iothread,id=io0')
    assert '/machine (none-machine)' in vm.hmp('info qom-tree')
    assert '  /io0 (iothread)' in vm.hmp('info qom-tree /objects')
    assert "Path '/nowhere' could not be resolved." in vm.hmp('info qom-tree /nowhere')
    assert 'kvm support:' in vm.hmp('info kvm')


def test_no_prompt_follows_quit(session):
    session.sock.sendall(b'quit\n')
    rest = b''
    while data := session.sock.recv(4096):
        rest += data
    assert rest == b'quit\r\n'
