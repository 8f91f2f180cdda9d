# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest moves between Ferry and stock QEMU, both ways, and its memory is the same afterwards.

The peers are the qemu-system-x86_64 of the distribution and those in FERRY_PEERS, a folder of wrappers that are
named qemu-system-x86_64-VERSION (make-peers writes them).
"""
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

import ferry
from ferry import migration as m
from ferry import tls

RAM = 32 * ferry.MIB
LAST = ['-machine', 'none', '-display', 'none', '-nodefaults', '-S']


def peers():
    found = {}
    stock = shutil.which('qemu-system-x86_64')
    if stock:
        found['distribution'] = stock
    for path in sorted(Path(os.environ.get('FERRY_PEERS', '/nonexistent')).glob('qemu-system-x86_64-*')):
        found[path.name.removeprefix('qemu-system-x86_64-')] = str(path)
    return found


PEERS = peers()
pytestmark = pytest.mark.skipif(not PEERS, reason='no stock QEMU here')


@pytest.fixture(params=PEERS or ['none'])
def peer(request):
    return PEERS[request.param]


class Lane:
    """Starts guests of either kind; their memory is a file of their own, shared, that the test can read."""

    def __init__(self, vmm, work, peer):
        self.vmm, self.work, self.peer = vmm, work, peer
        self.count = 0

    def guest(self, who, *args, caps=(), params=None):
        self.count += 1
        memory = self.work / f'memory{self.count}'
        vm = self.vmm(*LAST, '-m', f'{RAM // ferry.MIB}M', '-object',
                      f'memory-backend-file,id=ram0,mem-path={memory},size={RAM},share=on',
                      '-machine', 'memory-backend=ram0', *args, defaults=False, name=who,
                      command=[self.peer] if who == 'stock' else None)
        vm.memory = memory
        m.set_caps(vm, 'events', *caps)
        if params:
            vm.cmd('migrate-set-parameters', params)
        return vm

    def pair(self, way, *args, caps=(), params=None, source_caps=()):
        """way is 'ferry-stock' or the other one; the destination listens at uri."""
        first, second = way.split('-')
        source = self.guest(first, *args, caps=[*caps, *source_caps], params=params)
        destination = self.guest(second, *args, '-incoming', 'defer', caps=caps, params=params)
        uri = f'unix:{self.work}/in{self.count}'
        destination.cmd('migrate-incoming', uri=uri)
        return source, destination, uri


@pytest.fixture
def lane(vmm, work, peer):
    return Lane(vmm, work, peer)


def has(vm, capability):
    return any(c['capability'] == capability for c in vm.cmd('query-migrate-capabilities'))


def fill(vm, seed):
    """Writes into the file that is the guest's memory, before anybody has looked at it."""
    print(f'memory: seed {seed}')
    rng = random.Random(seed)
    with open(vm.memory, 'r+b') as file:
        at = 0
        while at < RAM:
            size = min(rng.randrange(1, 500) * m.PAGE, RAM - at)
            kind = rng.randrange(3)
            if kind:
                file.seek(at)
                file.write(rng.randbytes(size) if kind == 1 else bytes([rng.randrange(256)]) * size)
            at += size


def arrived(source, destination, uri=None):
    if uri:
        source.cmd('migrate', uri=uri)
    assert m.wait_over(source)['status'] == 'completed'
    assert m.wait_over(destination)['status'] == 'completed'
    assert m.run_state(source) == 'postmigrate'
    assert source.memory.read_bytes() == destination.memory.read_bytes()
    for vm in (source, destination):
        assert m.error_lines(vm) == []


WAYS = ['ferry-stock', 'stock-ferry']
both_ways = pytest.mark.parametrize('way', WAYS)


@both_ways
@pytest.mark.parametrize('return_path', [True, False])
def test_plain(lane, way, return_path):
    source, destination, uri = lane.pair(way, source_caps=['return-path'] if return_path else [])
    fill(source, 1)
    arrived(source, destination, uri)


@both_ways
def test_tcp(lane, way):
    first, second = way.split('-')
    source = lane.guest(first, caps=['return-path'])
    destination = lane.guest(second, '-incoming', 'tcp:127.0.0.1:0')
    port = destination.cmd('query-migrate')['socket-address'][0]['port']
    fill(source, 2)
    arrived(source, destination, f'tcp:127.0.0.1:{port}')


@both_ways
@pytest.mark.parametrize('state', ['running', 'paused', 'prelaunch'])
def test_the_run_state_arrives(lane, way, state):
    first, second = way.split('-')
    source = lane.guest(first, caps=['return-path'])
    destination = lane.guest(second, '-incoming', f'unix:{lane.work}/in')
    destination.cmd('cont')             # undoes its -S
    if state != 'prelaunch':
        source.cmd('cont')
    if state == 'paused':
        source.cmd('stop')
    fill(source, 3)
    source.cmd('migrate', uri=f'unix:{lane.work}/in')
    assert m.wait_over(source)['status'] == m.wait_over(destination)['status'] == 'completed'
    assert m.wait_run_state(destination, state) == state


@both_ways
def test_saved_by_one_and_restored_by_the_other(lane, way, work):
    first, second = way.split('-')
    source = lane.guest(first)
    fill(source, 4)
    source.cmd('migrate', uri=f'exec:cat > {work}/saved')
    assert m.wait_over(source)['status'] == 'completed'
    destination = lane.guest(second, '-incoming', f'exec:cat {work}/saved')
    arrived(source, destination)


@both_ways
def test_differences(lane, way):
    """The capability and its figures; nobody writes meanwhile, so hardly a page travels as a difference."""
    source, destination, uri = lane.pair(way, source_caps=['return-path', 'xbzrle'])
    fill(source, 5)
    arrived(source, destination, uri)
    assert 'xbzrle-cache' in source.cmd('query-migrate')


@pytest.mark.parametrize('caps', [['xbzrle'], []], ids=['xbzrle', 'plain'])
def test_a_guest_that_writes_moves_to_stock(lane, caps, work):
    """qtest rewrites a few bytes of many pages while Ferry sends them."""
    qtest = ferry.QTest(work)
    source = lane.guest('ferry', *qtest.args, caps=['return-path', 'pause-before-switchover', *caps],
                        params={'max-bandwidth': 32 * ferry.MIB, 'downtime-limit': 0})
    source.cmd('cont')
    fill(source, 6)
    destination = lane.guest('stock', '-incoming', f'unix:{work}/in')
    rng = random.Random(7)
    source.cmd('migrate', uri=f'unix:{work}/in')
    guard = ferry.Guard(60)
    while (info := source.cmd('query-migrate'))['status'] != 'pre-switchover' and \
            info.get('ram', {}).get('dirty-sync-count', 0) < 5:
        for _ in range(50):
            qtest.write(rng.randrange(RAM // 4 - 64), rng.randbytes(rng.randrange(1, 64)))
        guard.left()
    source.cmd('migrate-set-parameters', {'max-bandwidth': 0, 'downtime-limit': 2000})
    m.wait_status(source, 'pre-switchover')
    if caps:
        assert source.cmd('query-migrate')['xbzrle-cache']['pages'] > 0
    source.cmd('migrate-continue', state='pre-switchover')
    arrived(source, destination)


@both_ways
@pytest.mark.parametrize('compression', ['none', 'zlib', 'zstd'])
def test_extra_channels(lane, way, compression):
    source, destination, uri = lane.pair(way, caps=['multifd'], source_caps=['return-path'],
                                         params={'multifd-channels': 3, 'multifd-compression': compression})
    fill(source, 8)
    arrived(source, destination, uri)


@both_ways
@pytest.mark.parametrize('offset', [0, 0x4000])
@pytest.mark.parametrize('fds', [False, True], ids=['one', 'multifd'])
def test_pages_at_fixed_places_of_a_file(lane, way, work, need, offset, fds):
    first, second = way.split('-')
    caps = ['mapped-ram', *(['multifd'] if fds else [])]
    source = lane.guest(first)
    probe = lane.guest(second)
    need.that(has(source, 'mapped-ram') and has(probe, 'mapped-ram'), 'this version has no mapped-ram')
    m.set_caps(source, *caps)
    fill(source, 9)
    uri = f'file:{work}/saved,offset={offset}'
    source.cmd('migrate', uri=uri)
    assert m.wait_over(source)['status'] == 'completed'
    destination = lane.guest(second, '-incoming', 'defer', caps=caps)
    destination.cmd('migrate-incoming', uri=uri)
    arrived(source, destination)


@both_ways
def test_tls(lane, way, work, need):
    need.tool('certtool')
    authority = tls.Authority(work / 'ca')
    folders = {'client': authority.creds(client=authority.client()), 'server': authority.creds(server=authority.server())}
    first, second = way.split('-')

    def args(endpoint):
        return ['-object', f'tls-creds-x509,id=tls0,dir={folders[endpoint]},endpoint={endpoint}']
    params = {'tls-creds': 'tls0'}
    source = lane.guest(first, *args('client'), caps=['return-path'], params={**params, 'tls-hostname': 'localhost'})
    destination = lane.guest(second, *args('server'), '-incoming', 'defer', params=params)
    destination.cmd('migrate-incoming', uri=f'unix:{work}/in')
    fill(source, 10)
    arrived(source, destination, f'unix:{work}/in')


@both_ways
def test_shared_memory_stays_where_it_is(lane, way):
    source, destination, uri = lane.pair(way, caps=['x-ignore-shared'])
    source.cmd('migrate', uri=uri)
    assert m.wait_over(source)['status'] == m.wait_over(destination)['status'] == 'completed'


@both_ways
def test_a_refusal_is_understood_by_the_other(lane, way, vmm, peer, work):
    """Another size of memory: the source keeps its guest, which then goes where it fits."""
    first, second = way.split('-')
    source = lane.guest(first, caps=['return-path'])
    source.cmd('cont')
    wrong = vmm(*LAST, '-m', '64M', '-incoming', f'unix:{work}/wrong', defaults=False,
                command=[peer] if second == 'stock' else None)
    wrong.expected = {1}
    fill(source, 11)
    source.cmd('migrate', uri=f'unix:{work}/wrong')
    assert m.wait_over(source)['status'] == 'failed'
    assert wrong.wait_exit() == 1
    assert m.wait_run_state(source, 'running') == 'running'
    destination = lane.guest(second, '-incoming', f'unix:{work}/right')
    source.cmd('migrate', uri=f'unix:{work}/right')
    assert m.wait_over(source)['status'] == m.wait_over(destination)['status'] == 'completed'
    assert source.memory.read_bytes() == destination.memory.read_bytes()


def test_ten_hops(lane, work):
    """stock, Ferry, stock, ...: a piece of memory is changed at each stop."""
    here = lane.guest('stock', caps=['return-path'])
    fill(here, 12)
    for hop in range(1, 11):
        there = lane.guest('ferry' if hop % 2 else 'stock', '-incoming', f'unix:{work}/hop{hop}', caps=['return-path'])
        with open(here.memory, 'r+b') as file:
            file.seek(hop * 70000)
            file.write(random.Random(hop).randbytes(30000))
        arrived(here, there, f'unix:{work}/hop{hop}')
        here.quit()
        os.unlink(here.memory)
        here = there


def test_a_saved_guest_reads_alike(lane, work):
    """What both write of the same guest differs in section ids, clocks and the description, not in its structure."""
    shapes = []
    for who in ('ferry', 'stock'):
        vm = lane.guest(who)
        vm.cmd('migrate', uri=f'exec:cat > {work}/{who}')
        assert m.wait_over(vm)['status'] == 'completed'
        reader = m.read_stream(work / who)
        assert json.loads(reader.description)['page_size'] == m.PAGE
        shapes.append((reader.machine, reader.blocks,
                       [what for _, what in reader.marks if what not in ('page', 'command', 'footer', 'part ram')]))
    assert shapes[0] == shapes[1]


def test_make_peers_explains_itself():
    script = Path(__file__).with_name('make-peers')
    done = subprocess.run([script, '--help'], capture_output=True, text=True, timeout=60, check=True)
    assert 'FERRY_PEERS' in done.stdout
