# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests with stock QEMU share: `peer` is each version that is here in turn, `lane` makes guests of both sides."""
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
