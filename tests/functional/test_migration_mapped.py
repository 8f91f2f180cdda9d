# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest saved to a file in which each page has a place: by any number of threads, past the page cache or not."""
import contextlib
import os
import random
import struct
import subprocess

import pytest

import ferry
from ferry import migration as m

RAM = 16 * ferry.MIB
MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults', '-m', '16M']


class Guest:
    """16 MiB, of which a third holds data in pieces of different lengths."""

    def __init__(self, vmm, work, name, *args):
        self.qtest = ferry.QTest(work, name)
        self.vm = vmm(*MACHINE, *self.qtest.args, *args, defaults=False, name=name)
        self.data = bytearray(RAM)

    def fill(self, seed=1):
        rng = random.Random(seed)
        at = 0
        while at < RAM:
            size = rng.choice([1, 3, 16, 64, 300]) * m.PAGE
            self.write(at, rng.randbytes(min(size, RAM - at)))
            at += 3 * size
        return self

    def write(self, at, data):
        self.data[at:at + len(data)] = data
        self.qtest.write(at, data)

    def check(self):
        assert self.qtest.read(0, RAM) == self.data

    def keeps_the_guest(self, work, vmm, state='running'):
        """After a failure: one error, the guest as it was, and another save that can be restored."""
        info = m.wait_over(self.vm)
        assert info['status'] == 'failed' and info['error-desc']
        assert len(m.error_lines(self.vm)) == 1
        assert m.wait_run_state(self.vm, state) == state
        self.check()
        way(self.vm)
        save(self, f'file:{work}/again')
        restore(vmm, work, self.data, f'file:{work}/again', name='again')
        return info['error-desc']


def way(vm, channels=0, direct=False):
    """How a process moves the pages."""
    m.set_caps(vm, mapped_ram=True, multifd=channels > 0)
    vm.cmd('migrate-set-parameters', {'multifd-channels': channels or 2, 'direct-io': direct})


def save(source, uri, *, limit_s=m.LIMIT_S):
    source.vm.cmd('migrate', uri=uri)
    info = m.wait_over(source.vm, limit_s)
    assert info['status'] == 'completed', info
    return info


def restore(vmm, work, data, uri, channels=0, direct=False, name='restored', pass_files=None):
    """The guest from a file, compared."""
    guest = Guest(vmm, work, name, '-incoming', 'defer')
    guest.data = data
    way(guest.vm, channels, direct)
    if pass_files:
        pass_files(guest.vm)
    guest.vm.cmd('migrate-incoming', uri=uri)
    info = m.wait_over(guest.vm)
    assert info['status'] == 'completed', info
    guest.check()
    guest.vm.quit()


@pytest.fixture
def source(vmm, work):
    return Guest(vmm, work, 'source').fill()


@pytest.fixture
def direct_work(disk_work, need):
    """A folder whose file system takes O_DIRECT."""
    probe = disk_work / 'probe'
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        need.that(False, 'no file system with O_DIRECT')
    return disk_work


# There and back

WAYS = [(0, False), (0, True), (1, False), (4, False), (3, True)]
IDS = ['one', 'one-direct', 'channel', 'channels', 'channels-direct']


@pytest.mark.parametrize('offset', [0, 5000])
@pytest.mark.parametrize('saving', WAYS, ids=IDS)
def test_what_either_binary_saves_both_load(vmm, work, direct_work, source, saving, offset):
    path = direct_work / 'saved'
    path.write_bytes(b'H' * 10000)
    way(source.vm, *saving)
    info = save(source, f'file:{path},offset={offset}')
    assert info['ram']['transferred'] < RAM
    with open(path, 'rb') as file:
        assert file.read(offset) == b'H' * offset
    for number, loading in enumerate(WAYS):
        restore(vmm, work, source.data, f'file:{path},offset={offset}', *loading, name=f'restored{number}')


def test_zero_pages_take_no_room(source, direct_work):
    """Neither those never touched nor those that were overwritten with zeroes before."""
    source.write(0, bytes(1024 * m.PAGE))
    way(source.vm, 2)
    info = save(source, f'file:{direct_work}/saved')
    pages = sum(any(source.data[at:at + m.PAGE]) for at in range(0, RAM, m.PAGE))
    assert info['ram']['normal'] == pages
    assert os.stat(direct_work / 'saved').st_blocks * 512 < pages * m.PAGE + ferry.MIB


# Descriptors

def page_files(pid, path):
    """Access modes and O_DIRECT of a process's descriptors of a file, sorted."""
    found = []
    for fd in os.listdir(f'/proc/{pid}/fd'):
        try:
            if os.readlink(f'/proc/{pid}/fd/{fd}') != str(path):
                continue
            with open(f'/proc/{pid}/fdinfo/{fd}', encoding='ascii') as info:
                flags = next(int(line.split()[1], 8) for line in info if line.startswith('flags:'))
        except FileNotFoundError:
            continue
        found.append((flags & os.O_ACCMODE, bool(flags & os.O_DIRECT)))
    return sorted(found)


@pytest.mark.parametrize('channels', [0, 3], ids=['one', 'channels'])
@pytest.mark.parametrize('direct', [False, True], ids=['cached', 'direct'])
def test_pages_go_by_descriptors_of_their_own(source, direct_work, channels, direct):
    path = direct_work / 'saved'
    way(source.vm, channels, direct)
    m.set_caps(source.vm, pause_before_switchover=True)
    source.vm.cmd('migrate', uri=f'file:{path}')
    m.wait_status(source.vm, 'pre-switchover')
    pages = [(os.O_WRONLY, direct)] * (channels or direct)
    assert page_files(source.vm.pid, path) == [(os.O_WRONLY, False), *pages]
    source.vm.cmd('migrate-continue', state='pre-switchover')
    assert m.wait_over(source.vm)['status'] == 'completed'
    assert page_files(source.vm.pid, path) == []


def passed(path, *flags):
    """A function that gives a process the descriptors of a set, and the set's address."""
    def give(vm):
        for one in flags:
            with contextlib.closing(os.fdopen(os.open(path, one), 'rb' if one & os.O_ACCMODE == os.O_RDONLY else 'wb',
                                              buffering=0)) as file:
                vm.cmd('add-fd', fdset_id=7, fds=[file.fileno()])
    return give


@pytest.mark.parametrize('sets', [(0, os.O_DIRECT), (os.O_DIRECT, 0), (0,), (os.O_DIRECT,), (os.O_APPEND,)],
                         ids=['both', 'both-direct-first', 'cached', 'direct', 'append'])
@pytest.mark.parametrize('channels', [0, 2], ids=['one', 'channels'])
def test_descriptors_of_a_set(vmm, work, direct_work, source, sets, channels):
    """libvirt passes two, of which one is for direct-io; a set that lacks one will do."""
    path = direct_work / 'saved'
    path.write_bytes(b'H' * 6000)
    uri = 'file:/dev/fdset/7,offset=6000'
    passed(path, *(os.O_WRONLY | flag for flag in sets))(source.vm)
    way(source.vm, channels, direct=True)
    m.set_caps(source.vm, pause_before_switchover=True)
    source.vm.cmd('migrate', uri=uri)
    m.wait_status(source.vm, 'pre-switchover')
    pages = [(os.O_WRONLY, True)] * (channels or 1)
    held = [(os.O_WRONLY, bool(flag & os.O_DIRECT)) for flag in sets]
    assert page_files(source.vm.pid, path) == sorted([(os.O_WRONLY, False), *pages, *held])
    source.vm.cmd('migrate-continue', state='pre-switchover')
    assert m.wait_over(source.vm)['status'] == 'completed'
    with open(path, 'rb') as file:
        assert file.read(6000) == b'H' * 6000
    restore(vmm, work, source.data, uri, channels, direct=True,
            pass_files=passed(path, *(flag & os.O_DIRECT for flag in sets)))


@pytest.mark.parametrize('saving', WAYS, ids=IDS)
def test_descriptor_of_a_file(vmm, work, direct_work, source, saving):
    """fd: with a file behind it, from where it stands."""
    def give(vm, flags, at):
        with open(path, 'r+b' if flags == os.O_RDWR else 'rb', buffering=0) as file:
            file.seek(at)
            vm.cmd('getfd', fdname='file', fds=[file.fileno()])
    path = direct_work / 'saved'
    path.write_bytes(b'H' * 6000)
    way(source.vm, *saving)
    give(source.vm, os.O_RDWR, 6000)
    save(source, 'fd:file')
    with open(path, 'rb') as file:
        assert file.read(6000) == b'H' * 6000
    restore(vmm, work, source.data, 'fd:file', *saving, pass_files=lambda vm: give(vm, os.O_RDONLY, 6000))


def test_a_pipe_has_no_places(source):
    read_end, write_end = os.pipe()
    source.vm.cmd('getfd', fdname='pipe', fds=[write_end])
    way(source.vm)
    with pytest.raises(ferry.QMPError, match='seekable transport'):
        source.vm.cmd('migrate', uri='fd:pipe')
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize('caps, params, cause', [
    ({}, {'multifd-compression': 'zstd'}, 'compression with mapped-ram'),
    ({'zero_copy_send': True}, {}, 'zero-copy-send with mapped-ram'),
    ({}, {'tls-creds': 'none'}, 'TLS with mapped-ram')])
def test_what_a_file_does_not_go_with(source, work, caps, params, cause):
    way(source.vm, 2)
    m.set_caps(source.vm, **caps)
    source.vm.cmd('migrate-set-parameters', params)
    with pytest.raises(ferry.QMPError, match=cause):
        source.vm.cmd('migrate', uri=f'file:{work}/saved')
    assert not (work / 'saved').exists()


def test_direct_io_without_places_changes_nothing(source, vmm, work, direct_work):
    """As in QEMU, which says so in its description of the parameter: the stream is not aligned."""
    source.vm.cmd('migrate-set-parameters', {'direct-io': True})
    m.set_caps(source.vm, pause_before_switchover=True)
    source.vm.cmd('migrate', uri=f'file:{direct_work}/saved')
    m.wait_status(source.vm, 'pre-switchover')
    assert page_files(source.vm.pid, direct_work / 'saved') == [(os.O_WRONLY, False)]
    source.vm.cmd('migrate-continue', state='pre-switchover')
    assert m.wait_over(source.vm)['status'] == 'completed'


# What goes wrong while it is saved

@contextlib.contextmanager
def mounted(folder, need, kind, *options):
    need.root()
    folder.mkdir()
    done = subprocess.run(['mount', '-t', kind, *options, kind, str(folder)], check=False, capture_output=True)
    need.that(done.returncode == 0, f'no {kind} can be mounted')
    try:
        yield folder
    finally:
        subprocess.run(['umount', str(folder)], check=False)


@pytest.mark.parametrize('channels', [0, 3], ids=['one', 'channels'])
def test_a_full_disk(vmm, work, need, source, channels):
    source.vm.cmd('stop')
    with mounted(work / 'small', need, 'tmpfs', '-o', 'size=2m') as small:
        way(source.vm, channels)
        source.vm.cmd('migrate', uri=f'file:{small}/saved')
        assert 'No space left' in source.keeps_the_guest(work, vmm, 'paused')


@pytest.mark.parametrize('channels', [0, 3], ids=['one', 'channels'])
def test_a_file_system_without_direct_io(vmm, work, need, source, channels):
    with mounted(work / 'small', need, 'ramfs') as small:
        way(source.vm, channels, direct=True)
        source.vm.cmd('migrate', uri=f'file:{small}/saved')
        said = source.keeps_the_guest(work, vmm)
        assert 'O_DIRECT' in said and 'direct-io off' in said


def slowly(source, uri):
    """A save that has begun to write pages and takes its time."""
    source.vm.cmd('migrate-set-parameters', {'max-bandwidth': ferry.MIB})
    source.vm.cmd('migrate', uri=uri)
    guard = ferry.Guard(m.LIMIT_S)
    while source.vm.cmd('query-migrate').get('ram', {}).get('normal', 0) < 16:
        guard.left()


@pytest.mark.parametrize('channels', [0, 3], ids=['one', 'channels'])
def test_a_removed_file(vmm, work, direct_work, source, channels):
    """No process could restore the guest from it: it stays."""
    way(source.vm, channels)
    slowly(source, f'file:{direct_work}/saved')
    (direct_work / 'saved').unlink()
    source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 0})
    assert 'removed' in source.keeps_the_guest(work, vmm)


@pytest.mark.parametrize('channels', [0, 3], ids=['one', 'channels'])
def test_cancelled_in_the_middle(vmm, work, direct_work, source, channels):
    way(source.vm, channels, direct=True)
    slowly(source, f'file:{direct_work}/saved')
    source.vm.cmd('migrate_cancel')
    assert m.wait_over(source.vm)['status'] == 'cancelled'
    assert m.run_state(source.vm) == 'running' and page_files(source.vm.pid, direct_work / 'saved') == []
    source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 0})
    save(source, f'file:{direct_work}/saved')
    restore(vmm, work, source.data, f'file:{direct_work}/saved', 2)


@pytest.mark.parametrize('channels', [0, 3], ids=['one', 'channels'])
def test_a_source_killed_in_the_middle(vmm, work, direct_work, source, channels):
    """What it leaves is refused, and can be overwritten."""
    path = direct_work / 'saved'
    way(source.vm, channels)
    slowly(source, f'file:{path}')
    source.vm.kill()
    assert refusal(vmm, path, channels)
    other = Guest(vmm, work, 'other').fill(2)
    way(other.vm, channels)
    save(other, f'file:{path}')
    restore(vmm, work, other.data, f'file:{path}', channels)


# Broken files

def refusal(vmm, path, channels=0, direct=False):
    """What a destination says to a file; '' if it takes it. It waits for another one, and lives."""
    vm = vmm(*MACHINE, '-incoming', 'defer', defaults=False, name='restore')
    way(vm, channels, direct)
    try:
        vm.cmd('migrate-incoming', uri=f'file:{path}', exit_on_error=False)
        info = m.wait_over(vm)
    except ferry.QMPError as error:
        vm.quit()
        return str(error)
    said = '' if info['status'] == 'completed' else info['error-desc']
    assert not said or (m.run_state(vm) == 'inmigrate' and len(m.error_lines(vm)) == 1)
    vm.quit()
    return said


class Layout:
    """Where the structures of a saved guest are."""

    def __init__(self, data):
        self.data = data
        self.entry = data.index(b'\x03ram') + 4    # the section's name; the list of blocks is behind two numbers
        self.list = self.entry + 8
        self.name = self.list + 8
        self.length = self.name + 1 + data[self.name]
        self.header = self.length + 8
        self.version, self.page_size, self.bitmap, self.pages = struct.unpack_from('>IQQQ', data, self.header)
        assert (self.version, self.page_size) == (1, m.PAGE)
        self.behind = self.pages + RAM

    def structures(self):
        return {'list': self.list, 'name': self.name, 'length': self.length, 'version': self.header,
                'page size': self.header + 4, 'bitmap offset': self.header + 12, 'pages offset': self.header + 20,
                'bitmap': self.bitmap, 'pages': self.pages, 'behind': self.behind, 'footer': self.behind + 8,
                'next section': self.behind + 13}


@pytest.fixture
def saved(source, direct_work):
    way(source.vm)
    save(source, f'file:{direct_work}/saved')
    source.vm.quit()
    return direct_work / 'saved'


def test_truncated_files(vmm, saved):
    data = saved.read_bytes()
    layout = Layout(data)
    for what, at in layout.structures().items():
        for cut in (at + 3, at):
            os.truncate(saved, cut)
            assert refusal(vmm, saved, channels=cut % 2 * 2), f'{what}, cut at {cut}'
        saved.write_bytes(data)
    assert not refusal(vmm, saved)


def test_a_file_that_is_not_there(vmm, work):
    assert 'No such file' in refusal(vmm, work / 'nothing', channels=2)


def test_flipped_bits(vmm, saved):
    """A flipped bit is refused, or was in what is not checked: bytes of pages, and which of them are there."""
    data = saved.read_bytes()
    layout = Layout(data)
    seed = 41
    print(f'seed {seed}')
    rng = random.Random(seed)
    refused = set()
    for what, at in layout.structures().items():
        for number in range(3):
            byte = at + rng.randrange(4 if what == 'version' else 8)
            with open(saved, 'r+b') as file:
                file.seek(byte)
                file.write(bytes([data[byte] ^ 1 << rng.randrange(8)]))
            if refusal(vmm, saved, channels=number):
                refused.add(what)
            with open(saved, 'r+b') as file:
                file.seek(byte)
                file.write(data[byte:byte + 1])
    assert not refusal(vmm, saved)
    assert refused >= {'list', 'length', 'version', 'page size', 'bitmap offset', 'pages offset', 'behind'}, refused


def test_other_side_without_the_capability(vmm, saved):
    """The stream names what it was made with."""
    vm = vmm(*MACHINE, '-incoming', 'defer', defaults=False, name='restore')
    vm.cmd('migrate-incoming', uri=f'file:{saved}', exit_on_error=False)
    assert 'Capability mapped-ram is off, but received capability is on' in m.wait_over(vm)['error-desc']
