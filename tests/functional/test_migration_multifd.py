# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory over several channels while the guest writes to it: no byte differs."""
import random

import pytest

import ferry

SIZE = 64 * ferry.MIB
PAGE = 4096
SEED = 20261121
OVER = ('completed', 'failed', 'cancelled')


def pattern(rng, size):
    """Random pages, easy ones and empty ones, in runs of all lengths; the last quarter is empty."""
    out = bytearray()
    while len(out) < size * 3 // 4:
        pages = rng.choice((1, 2, 7, 40, 300))
        kind = rng.randrange(3)
        if kind == 0:
            out += bytes(pages * PAGE)
        elif kind == 1:
            out += rng.randbytes(PAGE // 8) * 8 * pages
        else:
            out += rng.randbytes(pages * PAGE)
    return bytes(out[:size * 3 // 4]) + bytes(size - size * 3 // 4)


class Guest:
    """A process with shared memory in a file that the test reads, and plays the guest."""

    def __init__(self, vmm, work, name, *args, content=None, share=True):
        self.path = work / f'{name}.ram'
        with open(self.path, 'wb') as ram:
            ram.truncate(SIZE)
            if content:
                ram.write(content)
        self.qtest = ferry.QTest(work, name)
        share = 'on' if share else 'off'
        self.vm = vmm('-m', f'{SIZE // ferry.MIB}M', '-machine', 'none,memory-backend=ram', '-object',
                      f'memory-backend-file,id=ram,size={SIZE},mem-path={self.path},share={share}',
                      *self.qtest.args, *args, name=name)

    def set(self, caps=('multifd',), **params):
        self.vm.cmd('migrate-set-capabilities', capabilities=[{'capability': c, 'state': True} for c in caps])
        self.vm.cmd('migrate-set-parameters', params)

    def info(self):
        return self.vm.cmd('query-migrate')

    def wait_over(self):
        guard = ferry.Guard(60)
        while (info := self.info()).get('status') not in OVER:
            guard.left()
        return info

    def memory(self):
        return self.path.read_bytes()


def write_while_it_runs(source, rng):
    """Writes as a guest does, some passes long, until it is to be stopped; what was written by then has to arrive."""
    guard = ferry.Guard(60)
    writes = 0
    while (info := source.info())['status'] in ('setup', 'active'):
        if info.get('ram', {}).get('dirty-sync-count', 0) >= 4:
            source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 1 << 40, 'downtime-limit': 300})
            break
        for _ in range(50):
            at = rng.randrange(SIZE * 3 // 4 // PAGE) * PAGE
            if rng.randrange(4):
                source.qtest.write(at, rng.randbytes(64))
            else:
                source.qtest.memset(at, PAGE, 0)
            writes += 1
        guard.left()
    while source.info()['status'] in ('setup', 'active'):
        guard.left()
    if source.info()['status'] == 'pre-switchover':
        source.vm.cmd('migrate-continue', state='pre-switchover')
    return writes


def migrate(vmm, work, args=((), ()), params=None, limit=40 * ferry.MIB):
    rng = random.Random(SEED)
    print('seed', SEED)
    uri = f'unix:{work}/migrate.sock'
    source = Guest(vmm, work, 'source', *args[0], content=pattern(rng, SIZE))
    target = Guest(vmm, work, 'target', *args[1], '-incoming', 'defer')
    params = params or {}
    # what the bandwidth leaves to send grows faster than it may, so that there are several passes
    source.set(('multifd', 'pause-before-switchover'), **params, **{'max-bandwidth': limit, 'downtime-limit': 1})
    target.set(**params)
    target.vm.cmd('migrate-incoming', uri=uri)
    source.vm.cmd('migrate', uri=uri)
    writes = write_while_it_runs(source, rng)
    info = source.wait_over()
    assert info['status'] == 'completed', info
    assert target.wait_over()['status'] == 'completed'
    assert writes > 0
    assert source.memory() == target.memory()
    return source, target, info


@pytest.mark.parametrize('method', ['none', 'zlib', 'zstd'])
def test_memory_arrives(vmm, work, method):
    _, _, info = migrate(vmm, work, params={'multifd-compression': method, 'multifd-channels': 3})
    assert info['ram']['multifd-bytes'] > 0


@pytest.mark.parametrize('detection', ['legacy', 'multifd', 'none'])
def test_barriers_per_round(vmm, work, detection):
    """The way of 8.1 and later, which a destination sees by itself, with zero pages in every way."""
    style = ('-global', 'migration.multifd-flush-after-each-section=off')
    _, target, info = migrate(vmm, work, (style, ()), {'zero-page-detection': detection})
    assert (info['ram']['duplicate'] > 0) == (detection != 'none')
    # memory that holds nothing stays unallocated
    if detection != 'none':
        assert ferry.allocated(target.path) < SIZE * 7 // 8


@pytest.mark.parametrize('channels', [1, 8])
def test_numbers_of_channels(vmm, work, channels):
    migrate(vmm, work, params={'multifd-channels': channels})
