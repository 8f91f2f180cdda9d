# SPDX-License-Identifier: GPL-2.0-or-later
"""The schema compiler refuses bad schemas with the place and the reason."""

import json
import pathlib
import subprocess
import sys

import pytest

COMPILER = pathlib.Path(__file__).parent.parent.parent / 'scripts/qapi-gen.py'

BASE = """##
# @E: An enum.
##
{ 'enum': 'E', 'data': [ 'one', 'two' ] }
##
# @S: A struct.
##
{ 'struct': 'S', 'data': { 'a': 'int', '*b': 'str' } }
"""     # 8 lines


def run(folder, text, *options):
    path = folder / 'schema.json'
    path.write_text(text)
    return subprocess.run([sys.executable, COMPILER, 'schema.json', *options], cwd=folder,
                          capture_output=True, text=True)


def definition(body, name='X'):
    return f'{BASE}##\n# @{name}: It.\n##\n{body}\n'      # the body is on line 12


# (schema text, line, what the message says)
BAD = [
    ("{ 'struct' 'S' }", 1, "expected ':', found 'S'"),
    ("{ 'struct': 'S', 'struct': 'S' }", 1, "duplicate key 'struct'"),
    ("{ 'struct': 'S }", 1, "unterminated string"),
    ("\n\n{ 'a': ; }", 3, "stray ';'"),
    ("{ 'a': 'b'", 1, "expected '}', found 'end of file'"),
    ("##\n# @X: It.\n", 1, "documentation block is not closed"),
    ("##\n# text\n##\n", 2, "documentation must start with '@NAME:'"),
    ("##\n# @X: It.\n##\n", 1, "'X' is documented but not defined"),
    ("##\n# @X: It.\n# @a: one\n# @a: two\n##\n", 4, "'a' is documented twice"),
    ("{ 'struct': 'S', 'data': {} }", 1, "struct 'S' lacks documentation"),
    ("{ 'include': 'none.json' }", 1, "cannot read included file 'none.json'"),
    ("{ 'pragma': { 'command-pending': [ 'nothing' ] } }", 1, "pending command 'nothing' is not defined"),
    ("{ 'pragma': { 'other': [] } }", 1, "the only pragma is 'command-pending'"),
    (definition("{ 'struct': 'Y', 'data': {} }"), 9, "documentation of 'X' stands before struct 'Y'"),
    (definition("{ 'data': {} }"), 12, "a definition needs one of"),
    (definition("{ 'struct': 'X' }"), 12, "struct 'X' lacks key 'data'"),
    (definition("{ 'struct': 'X', 'data': {}, 'more': true }"), 12, "struct 'X' has unknown key 'more'"),
    (definition("{ 'struct': 'x', 'data': {} }", 'x'), 12, "type names are written in CamelCase"),
    (definition("{ 'struct': 'XList', 'data': {} }", 'XList'), 12, "are kept for lists"),
    (definition("{ 'struct': 'S', 'data': {} }", 'S'), 12, "struct 'S' is already defined at schema.json:8"),
    (definition("{ 'struct': 'X', 'data': { 'a': 'None' } }"), 12, "uses unknown type 'None'"),
    (definition("{ 'struct': 'X', 'data': { 'a': ['int', 'int'] } }"), 12, "an array type is written"),
    (definition("{ 'struct': 'X', 'data': { 'u': 'int' } }"), 12, "this name can't be used"),
    (definition("{ 'struct': 'X', 'data': { 'has-a': 'int' } }"), 12, "are kept for presence"),
    (definition("{ 'struct': 'X', 'data': { 'a-b': 'int', 'a_b': 'int' } }"), 12, "clashes"),
    (definition("{ 'struct': 'X', 'base': 'S', 'data': { 'a': 'int' } }"), 12, "member 'a' of 'X' clashes"),
    (definition("{ 'struct': 'X', 'base': 'E', 'data': {} }"), 12, "must be a struct or union"),
    (definition("{ 'struct': 'X', 'base': 'X', 'data': {} }"), 12, "'X' is its own base"),
    (definition("{ 'struct': 'X', 'data': { 'a': { 'type': 'int', 'x': 1 } } }"), 12, "stray '1'"),
    (definition("{ 'struct': 'X', 'data': { 'a': { 'if': 'A' } } }"), 12, "lacks key 'type'"),
    (definition("{ 'struct': 'X', 'data': {}, 'if': 'lower' }"), 12, "must be a macro name"),
    (definition("{ 'struct': 'X', 'data': {}, 'if': { 'all': [] } }"), 12, "must be a macro name"),
    (definition("{ 'enum': 'X', 'data': [ 'a-b', 'a_b' ] }"), 12, "has value 'a_b' twice"),
    (definition("{ 'union': 'X', 'base': { 'e': 'E' }, 'discriminator': 'f', 'data': {} }"), 12,
     "discriminator 'f' of union 'X' is not a member of its base"),
    (definition("{ 'union': 'X', 'base': { 'e': 'str' }, 'discriminator': 'e', 'data': {} }"), 12,
     "must be an enum, not optional"),
    (definition("{ 'union': 'X', 'base': { '*e': 'E' }, 'discriminator': 'e', 'data': {} }"), 12,
     "must be an enum, not optional"),
    (definition("{ 'union': 'X', 'base': { 'e': 'E' }, 'discriminator': 'e', 'data': { 'three': 'S' } }"), 12,
     "branch 'three' of union 'X' is not a value of enum 'E'"),
    (definition("{ 'union': 'X', 'base': { 'e': 'E', 'a': 'int' }, 'discriminator': 'e',"
                " 'data': { 'one': 'S' } }"), 8, "clashes with a member of union 'X'"),
    (definition("{ 'union': 'X', 'base': { 'e': 'E' }, 'discriminator': 'e', 'data': { 'one': 'X' } }"), 12,
     "union 'X' contains itself"),
    (definition("{ 'alternate': 'X', 'data': { 'a': 'int', 'b': 'number' } }"), 12, "have the same JSON type"),
    (definition("{ 'alternate': 'X', 'data': { 'a': 'str', 'b': 'E' } }"), 12, "have the same JSON type"),
    (definition("{ 'alternate': 'X', 'data': { 'a': 'any' } }"), 12, "can't be told from others"),
    (definition("{ 'command': 'X', 'data': 'E' }"), 12, "must be a struct or union"),
    (definition("{ 'command': 'X', 'data': { 'a': 'int' }, 'boxed': true }"), 12, "must be a type's name"),
    (definition("{ 'command': 'X', 'allow-oob': 'yes' }"), 12, "must be true or false"),
    (BASE + "##\n# @X: It.\n# @gone: not there\n##\n{ 'struct': 'X', 'data': {} }\n", 9,
     "'gone' is documented for 'X' but does not exist"),
]


@pytest.mark.parametrize('text, line, message', BAD)
def test_bad_schema_is_refused(tmp_path, text, line, message):
    result = run(tmp_path, text, '--introspect-only')
    assert result.returncode == 1
    assert result.stderr.startswith(f'qapi-gen: schema.json:{line}: '), result.stderr
    assert message in result.stderr
    assert result.stderr.count('\n') == 1


def test_nothing_is_written_for_a_bad_schema(tmp_path):
    assert run(tmp_path, "{ 'struct': 'S', 'data': {} }", '-o', 'out').returncode == 1
    assert not (tmp_path / 'out').exists()


COMMAND = definition("{ 'command': 'do-it', 'data': { 'a': 'S', '*n': { 'type': 'int', 'if': 'WITH_N' } } }",
                     'do-it')


@pytest.mark.parametrize('options, members', [((), ['a']), (('-D', 'WITH_N'), ['a', 'n'])])
def test_conditions_decide_what_exists(tmp_path, options, members):
    entries = json.loads(run(tmp_path, COMMAND, '--introspect-only', *options).stdout)
    command = next(e for e in entries if e['meta-type'] == 'command')
    arg = next(e for e in entries if e['name'] == command['arg-type'])
    assert [m['name'] for m in arg['members']] == members


def test_pending_command_has_a_prototype_but_is_not_offered(tmp_path):
    text = "{ 'pragma': { 'command-pending': [ 'do-it' ] } }\n" + COMMAND
    assert json.loads(run(tmp_path, text, '--introspect-only').stdout) == []
    assert run(tmp_path, text, '-o', 'out').returncode == 0
    assert 'qmp_do_it(const DoItArg *arg, GError **errp)' in (
        tmp_path / 'out/qapi-commands-schema.h').read_text()
    assert 'do_it' not in (tmp_path / 'out/qapi-commands.c').read_text()


def test_unchanged_output_keeps_its_time(tmp_path):
    """So that a build only compiles what a change of the schema touches."""
    run(tmp_path, COMMAND, '-o', 'out')
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / 'out').iterdir()}
    run(tmp_path, COMMAND, '-o', 'out')
    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / 'out').iterdir()}


def test_reference_describes_what_is_offered(tmp_path):
    assert run(tmp_path, COMMAND, '--reference', 'out.md').returncode == 0
    text = (tmp_path / 'out.md').read_text()
    assert '### do-it' in text
    assert '- `b` (string, optional)' in text
