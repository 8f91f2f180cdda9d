# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest moves between Ferry and stock QEMU, both ways, and its memory is the same afterwards.

The peers are the qemu-system-x86_64 of the distribution and those in FERRY_PEERS, a folder of wrappers that are
named qemu-system-x86_64-VERSION (make-peers writes them).
"""
import json
import os
import random
import subprocess
from pathlib import Path

import pytest

import ferry
from ferry import migration as m
from ferry import stock
from ferry.stock import WAYS, arrived, fill

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
    wrong = vmm('-m', '64M', '-incoming', f'unix:{work}/wrong', command=[peer.command] if second == 'stock' else None)
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


def hop_on(lane, path, caps=('return-path',)):
    """The guest goes along a list of (name, peer); a piece of its memory is changed at each stop."""
    here = lane.guest(path[0][0], caps=caps, peer=path[0][1])
    fill(here, 12)
    for hop, (who, peer) in enumerate(path[1:], 1):
        there = lane.guest(who, '-incoming', f'unix:{lane.work}/hop{hop}', caps=caps, peer=peer)
        with open(here.memory, 'r+b') as file:
            file.seek(hop * 70000)
            file.write(random.Random(hop).randbytes(30000))
        arrived(here, there, f'unix:{lane.work}/hop{hop}')
        here.quit()
        os.unlink(here.memory)
        here = there


def test_ten_hops(lane):
    """stock, Ferry, stock, ..."""
    hop_on(lane, [('ferry' if hop % 2 else 'stock', lane.peer) for hop in range(11)])


def test_ten_hops_through_all_versions(vmm, work, need):
    """Each version in turn, with Ferry between them."""
    peers = list(stock.peers().values())
    need.that(len(peers) > 1, 'only one version of stock QEMU here: make-peers makes more')
    lane = stock.Lane(vmm, work, peers[0])
    hop_on(lane, [('ferry', None) if hop % 2 else ('stock', peers[hop // 2 % len(peers)]) for hop in range(11)])


@both_ways
def test_memory_that_is_no_file_of_a_test(vmm, work, peer, way):
    """Plain -m: the block has stock's name, and the move touches no page that was untouched before."""
    blob = work / 'blob'
    blob.write_bytes(random.Random(13).randbytes(3 * ferry.MIB))
    uri = f'unix:{work}/in'
    first, second = ([peer.command] if who == 'stock' else None for who in way.split('-'))
    qtest = None if first else ferry.QTest(work)
    source = vmm('-m', '256M', *(qtest.args if qtest else ['-device', f'loader,file={blob},addr=0x1234000,force-raw=on']),
                 command=first)
    if qtest:
        qtest.write(0x1234000, blob.read_bytes())
    destination = vmm('-m', '256M', '-incoming', uri, command=second)
    m.set_caps(source, 'return-path')
    source.cmd('migrate', uri=uri)
    assert m.wait_over(source)['status'] == m.wait_over(destination)['status'] == 'completed'
    if not second:
        assert destination.sanitized() or destination.memory_kib() < 128 * 1024
    for name, vm in (('from', source), ('to', destination)):
        vm.cmd('pmemsave', val=0, size=256 * ferry.MIB, filename=str(work / name))
    data = (work / 'to').read_bytes()
    assert data[0x1234000:].startswith(blob.read_bytes())
    assert (work / 'from').read_bytes() == data


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
