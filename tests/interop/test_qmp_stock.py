# SPDX-License-Identifier: GPL-2.0-or-later
"""The description of QEMU's QMP that Ferry is compared with is what stock QEMU says of itself."""
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'functional'))

import schema_facts     # noqa: E402  the path is set just above


@pytest.mark.since(11, 1)
def test_stock_has_the_schema_that_is_written_down(vmm, peer, need):
    facts = HERE.parent / 'functional' / f'qmp-surface-{peer.name}.txt'
    need.that(facts.exists(), 'this version is not written down')
    stock = schema_facts.from_introspection(vmm(command=[peer.command]).cmd('query-qmp-schema'))
    written = schema_facts.from_text(facts.read_text())
    assert len(written.commands) > 150
    # families of commands that are no concern of Ferry's are not written down
    assert [d for d in schema_facts.compare(stock, written) if not d.endswith(' of our own')] == []


@pytest.mark.since(11, 1)
def test_what_ferry_takes_is_at_most_what_newer_stock_takes(vm, vmm, peer):
    """No command of ours is unknown to the version whose schema Ferry has, but for those with x- names."""
    ours = {entry['name'] for entry in vm.cmd('query-commands')}
    theirs = {entry['name'] for entry in vmm(command=[peer.command]).cmd('query-commands')}
    assert {name for name in ours - theirs if not name.startswith('x-')} == set()
