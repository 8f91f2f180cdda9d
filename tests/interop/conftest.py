# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests with stock QEMU share: `peer` is each version that is here in turn, `lane` makes guests of both sides.

@pytest.mark.since(9, 0), also on one value of a parameter, leaves out versions that lack what it is about.
"""
import pytest

from ferry import stock

PEERS = stock.peers()


@pytest.fixture(params=PEERS or ['none'])
def peer(request, need):
    need.that(PEERS, 'no stock QEMU here')
    return PEERS[request.param]


@pytest.fixture
def lane(vmm, work, peer):
    return stock.Lane(vmm, work, peer)


def pytest_configure(config):
    config.addinivalue_line('markers', 'since(major, minor): the first version of stock QEMU that can do this')


def pytest_collection_modifyitems(config, items):
    def possible(item):
        peer = PEERS.get(getattr(item, 'callspec', None) and item.callspec.params.get('peer'))
        return not peer or all(peer.version >= mark.args for mark in item.iter_markers('since'))
    out = [item for item in items if not possible(item)]
    items[:] = [item for item in items if possible(item)]
    if out:
        config.hook.pytest_deselected(items=out)
