# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that goes on writing moves between Ferry and stock QEMU; what was written last is what arrives."""
import pytest

from ferry import MIB
from ferry import migration as m
from ferry.stock import WAYS, Gate, Lane, arrived, fill, write_while_it_goes

both_ways = pytest.mark.parametrize('way', WAYS)
since = pytest.mark.since


def move(lane, way, *args, caps=(), source_caps=(), params=None, source_params=None, passes=4):
    source, destination, uri = lane.pair(
        way, *args, caps=caps, source_caps=['return-path', 'pause-before-switchover', *source_caps], writer=True,
        params=params, source_params={'max-bandwidth': 0, 'downtime-limit': 1, **(source_params or {})})
    fill(source, 21, end=MIB)
    fill(source, 22, start=lane.size - 4 * MIB)
    gate = Gate(uri.removeprefix('unix:'))
    source.cmd('cont')
    source.cmd('migrate', uri=gate.listen(lane.work / 'gate'))
    info = write_while_it_goes(source, gate, 256 << 10, passes)
    arrived(source, destination)
    return info


@both_ways
def test_one_channel(lane, way):
    move(lane, way)


@both_ways
@pytest.mark.parametrize('cache_pages', [256, 16], ids=['roomy', 'small'])
def test_differences(vmm, work, peer, way, cache_pages):
    """Differences travel, and with a small cache pages that fell out of it do as a whole."""
    lane = Lane(vmm, work, peer, size=4 * MIB, writes=32)
    source, destination, uri = lane.pair(
        way, source_caps=['return-path', 'pause-before-switchover', 'xbzrle'], writer=True,
        source_params={'max-bandwidth': 0, 'downtime-limit': 1, 'xbzrle-cache-size': cache_pages * m.PAGE})
    gate = Gate(uri.removeprefix('unix:'))
    with gate.pair() as end:
        source.cmd('getfd', fdname='out', fds=[end.fileno()])
    source.cmd('cont')
    source.cmd('migrate', uri='fd:out')
    info = write_while_it_goes(source, gate, 4096, until=lambda info: info['xbzrle-cache']['pages'] >= 100)['xbzrle-cache']
    assert info['pages'] >= 100 and 0 < info['bytes'] < info['pages'] * m.PAGE * 3 // 4, info
    assert info['cache-miss'] > 0
    arrived(source, destination)


@both_ways
@pytest.mark.parametrize('compression', ['none', 'zlib', 'zstd'])
def test_extra_channels(lane, way, compression):
    move(lane, way, caps=['multifd'], params={'multifd-channels': 3, 'multifd-compression': compression})


@pytest.mark.parametrize('way', ['ferry-stock', pytest.param('stock-ferry', marks=since(9, 0))])
@pytest.mark.parametrize('detection', ['none', 'legacy', pytest.param('multifd', marks=since(9, 0))])
@pytest.mark.parametrize('caps', [[], ['multifd']], ids=['one', 'multifd'])
def test_zero_pages(lane, way, detection, caps):
    """The source decides which threads look for them; a destination takes them in any form."""
    info = move(lane, way, caps=caps, source_params={'zero-page-detection': detection})
    assert (info['ram']['duplicate'] > 0) == (detection != 'none')


@pytest.mark.parametrize('compression', ['none', 'zstd'])
@pytest.mark.parametrize('style', ['on', 'off'])
@both_ways
@since(8, 1)
def test_barriers_of_both_styles(lane, way, style, compression):
    """Said to both sides; a destination that is Ferry sees it by itself (test_extra_channels)."""
    switch = f'migration.multifd-flush-after-each-section={style}'
    move(lane, way, '-global', switch, caps=['multifd'], params={'multifd-compression': compression})


@both_ways
def test_convergence_by_force(lane, way):
    """There are no CPUs to slow down, but the capability is no obstacle."""
    move(lane, way, source_caps=['auto-converge'])


@both_ways
@pytest.mark.parametrize('caps', [[], ['multifd']], ids=['one', 'multifd'])
@since(8, 1)
def test_destination_agrees_to_the_switchover(lane, way, caps):
    move(lane, way, caps=['return-path', 'switchover-ack', *caps])


@both_ways
@since(11, 1)
def test_destination_agrees_in_the_old_way_of_a_new_version(lane, way):
    move(lane, way, '-global', 'migration.switchover-ack-legacy=on', caps=['return-path', 'switchover-ack'])


@since(11, 1)
def test_a_stopped_guest_waits_for_no_agreement(lane):
    """Even if the two sides do not mean the same by it."""
    source = lane.guest('ferry', '-global', 'migration.switchover-ack-legacy=on', caps=['return-path', 'switchover-ack'])
    destination = lane.guest('stock', '-incoming', f'unix:{lane.work}/in', caps=['return-path', 'switchover-ack'])
    fill(source, 23)
    arrived(source, destination, f'unix:{lane.work}/in')
