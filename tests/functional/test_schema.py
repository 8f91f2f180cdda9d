# SPDX-License-Identifier: GPL-2.0-or-later
"""The QMP schema has the shape of QEMU 11.1's, except where schema-differences.txt says why not."""

import json
import pathlib
import re
import subprocess
import sys

import ferry
import pytest

import schema_facts

HERE = pathlib.Path(__file__).parent
TOP = HERE.parent.parent
FACTS = (HERE / 'qmp-surface-11.1.txt').read_text()
DIFFERENCES = HERE / 'schema-differences.txt'


def generated(*options):
    """What the schema compiler would answer to query-qmp-schema."""
    out = subprocess.run([sys.executable, TOP / 'scripts/qapi-gen.py', TOP / 'qapi/schema.json',
                          '--introspect-only', *options], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)


def read_differences(text):
    """{difference: reason}; a paragraph's comment is the reason for all its lines."""
    listed = {}
    for paragraph in text.split('\n\n')[1:]:
        lines = paragraph.strip().splitlines()
        reason = ' '.join(line[1:].strip() for line in lines if line.startswith('#'))
        for line in lines:
            if not line.startswith('#'):
                assert reason, f'{line}: no reason given'
                assert line not in listed, f'{line}: listed twice'
                listed[line] = reason
    return listed


def fold_subsets(found, listed):
    """The differences with all the missing values of an enum as one line, where that is listed."""
    folded = set()
    for line in found:
        bulk = re.sub(r': value \S+ missing$', ': subset', line)
        folded.add(bulk if bulk in listed else line)
    return folded


def judge(found, listed):
    """(differences that no allowance names, allowances without a difference)"""
    folded = fold_subsets(found, listed)
    return sorted(folded - set(listed)), sorted(set(listed) - folded)


def test_schema_has_the_shape_of_qemu():
    """Commands that wait for their handler are compared too, so the list is the same in every build."""
    ours = schema_facts.from_introspection(generated('--with-pending'))
    found = schema_facts.compare(ours, schema_facts.from_text(FACTS))
    unlisted, outdated = judge(found, read_differences(DIFFERENCES.read_text()))
    assert not unlisted, 'differences that schema-differences.txt does not list:\n' + '\n'.join(unlisted)
    assert not outdated, 'listed differences that do not exist:\n' + '\n'.join(outdated)


def test_introspection_is_complete():
    """Every type that is referred to is described, each name once."""
    entries = generated()
    types = [e['name'] for e in entries if e['meta-type'] not in ('command', 'event')]
    assert len(types) == len(set(types))
    used = set()
    for entry in entries:
        used |= {entry[k] for k in ('arg-type', 'ret-type', 'element-type') if k in entry}
        used |= {m['type'] for m in entry.get('members', []) if 'type' in m}
        used |= {v['type'] for v in entry.get('variants', [])}
    assert used <= set(types)


def test_pending_commands_are_not_offered():
    offered = {e['name'] for e in generated() if e['meta-type'] == 'command'}
    pending = re.findall(r"^    '([^']+)'", (TOP / 'qapi/pending.json').read_text(), re.M)
    assert not offered & set(pending)


def test_binary_answers_with_this_schema(vm):
    config = pathlib.Path(ferry.binary()[-1]).parent / 'config-host.h'
    assert vm.cmd('query-qmp-schema') == generated('--config', str(config))


SMALL = 'command c {a: int, *b: T1, *l: [T2]} -> T1  [unstable]\nevent E {x: T3}\n' \
        'object T1 {t: T2, *s: str {deprecated}}\n    by t:\n      one: m: int\n      two: (nothing more)\n' \
        'enum T2 = one | two\nalternate T3 = str | T1\n'


@pytest.mark.parametrize('old, new, expected', [
    ('a: int', '*a: int', ['c.a: not optional']),
    ('*b: T1', '*b: str', ['c.b: is object, not str']),
    ('*b: T1, ', '', ['c.b: added']),
    ('{a: int', '{z: int, a: int', ['c.z: missing']),
    ('one | two', 'one | two | three', ['c.b.t: value three missing']),
    ('m: int', 'm: bool', ['c.b[one].m: is int, not bool']),
    ('  [unstable]', '', ['c: feature unstable added']),
    (' {deprecated}', '', ['c.b.s: has other features']),
    ('str | T1', 'int | T1', ['E.x: alternative str added', 'E.x: alternative int missing']),
    ('*l: [T2]', '*l: T2', ['c.l: is an array, not enum']),
    ('event E {x: T3}\n', '', ['E: event of our own']),
    ('-> T1', '-> {}', ['c->: is object, not nothing']),
])
def test_comparison_sees(old, new, expected):
    """Each kind of difference is found, so that an empty list means something."""
    changed = SMALL.replace(old, new, 1)
    assert changed != SMALL
    found = schema_facts.compare(schema_facts.from_text(SMALL), schema_facts.from_text(changed))
    assert found == expected


def test_comparison_of_equals_is_empty():
    assert not schema_facts.compare(schema_facts.from_text(SMALL), schema_facts.from_text(SMALL))


def test_judgement():
    listed = {'a.e: subset': 'r', 'gone: missing': 'r'}
    assert judge(['a.e: value x missing', 'a.e: value y missing', 'b: added'], listed) == (
        ['b: added'], ['gone: missing'])
