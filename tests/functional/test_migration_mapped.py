# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest saved to a file in which each page has a place: by any number of threads, past the page cache or not."""
import os
import random

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
def test_whoever_saves_anybody_loads(vmm, work, direct_work, source, saving, offset):
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
