# SPDX-License-Identifier: GPL-2.0-or-later
"""The structure check finds what it is there to find: each test plants one violation in a small tree."""
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
CHECK = Path(__file__).resolve().parents[2] / 'scripts' / 'check-floors'
SPDX_C = '/* SPDX-License-Identifier: GPL-2.0-or-later */\n'
SPDX = '# SPDX-License-Identifier: GPL-2.0-or-later\n'


@pytest.fixture
def tree(work):
    """A tree without a finding."""
    def write(name, text):
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write('meson.build', SPDX)
    write('block/meson.build', SPDX + "src += files('mirror.c')\n")
    write('block/mirror.c', SPDX_C + '#include "block/mirror.h"\n#include "util/aio.h"\n#include "qapi/qapi-types-job.h"\n')
    write('block/mirror.h', SPDX_C)
    write('util/aio.h', SPDX_C)
    write('monitor/monitor.h', SPDX_C + '#include "block/mirror.h"\n')
    write('system/meson.build', SPDX + "executable('x', 'main.c')\n")
    write('system/main.c', SPDX_C + '#include "monitor/monitor.h"\n')
    subprocess.run(['git', 'init', '-q', work], check=True)
    return write


def check(work):
    done = subprocess.run([CHECK, '--root', work], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_clean_tree_passes(tree, work):
    assert check(work) == (0, 'floors: 5 checked, 0 failed\n')


@pytest.mark.parametrize('name, text, finding', [
    ('util/aio.h', SPDX_C + '#include "block/mirror.h"\n', 'util/aio.h:2: "block/mirror.h" is on a higher floor'),
    ('util/aio.h', SPDX_C + '#include "qapi/qapi-types-job.h"\n', '"qapi/qapi-types-job.h" is on floor 1'),
    ('block/mirror.h', SPDX_C + '#include "monitor.h"\n', 'neither in the tree nor generated'),
    ('block/mirror.h', '/* nothing */\n', 'block/mirror.h:1: no "SPDX'),
    ('block/lost.c', SPDX_C, 'block/lost.c:1: no meson.build above it names this file'),
    ('block/lost.h', SPDX_C, 'block/lost.h:1: no file includes this header'),
    ('scripts/lost.py', SPDX, 'scripts/lost.py:1: nothing in the tree calls'),
    ('cellar/x.c', SPDX_C, 'folder cellar/ has no floor'),
    ('tests/x.h', SPDX_C, 'tests/x.h:1: no file includes'),
])
def test_violation_is_found(tree, work, name, text, finding):
    tree(name, text)
    status, output = check(work)
    assert status == 1
    assert finding in output


def test_a_large_circle_of_includes_is_found(tree, work):
    names = ['aio', 'bql', 'co', 'dl', 'el']
    for one, other in zip(names, names[1:] + names[:1]):
        tree(f'util/{one}.h', SPDX_C + f'#include "util/{other}.h"\n')
    status, output = check(work)
    assert status == 1
    assert '5 files include each other in a circle: util/aio, util/bql, util/co, util/dl, util/el' in output


def test_commented_out_source_is_unused(tree, work):
    tree('block/meson.build', SPDX + "# src += files('mirror.c')\n")
    assert 'no meson.build above it names this file' in check(work)[1]


def test_long_file_is_a_warning(tree, work):
    tree('block/mirror.c', SPDX_C + '#include "block/mirror.h"\n#include "util/aio.h"\n' + '\n' * 800)
    status, output = check(work)
    assert status == 0
    assert 'warning: block/mirror.c:803' in output


WORDS = CHECK.with_name('check-words')


def words(path):
    done = subprocess.run([WORDS, path], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize('name, text, finding', [
    ('a.md', 'The job waits.\n\nNobody waits for it.\n', 'a.md:3: "Nobody"'),
    ('a.md', '| a | whoever asks |\n', 'a.md:1: "whoever"'),
    ('a.md', 'word ' * 31 + '.\n', 'a.md:1: a sentence of 31 words'),
    ('a.c', 'int x;\n/* The thread, who waits. */\n', 'a.c:2: "who"'),
    ('a.h', '/*\n * One.\n *\n * Then what comes is read.\n */\n', 'a.h:4: "what comes"'),
    ('a.py', '"""Told by somebody."""\n', 'a.py:1: "somebody"'),
    ('a.py', 'x = 1  # a stranger\n', 'a.py:1: "stranger"'),
    ('a.c', 'int x; // nobody\n', 'a.c:1: "nobody"'),
    ('a.sh', '#!/bin/sh\nrm x\n# Nobody needs it.\n', 'a.sh:3: "Nobody"'),
    ('meson.build', "x = files('a.c')\n  # for whoever builds\n", 'meson.build:2: "whoever"'),
    ('a.json', "##\n# @a: text\n#\n# @b: told to\n#     whoever asks\n##\n{ 'enum': 'nobody' }\n", 'a.json:4: "whoever"'),
    ('a.c', '/* ' + 'word ' * 31 + '. some_name() ends. */\n', 'a.c:1: a sentence of 31 words'),
    ('a.c', '/*\n * A table:\n *   ONE   nobody\n */\n', 'a.c:3: "nobody"'),
    ('test_a.py', 'def test_nobody_waits():\n    pass\n', 'test_a.py:1: name of a test: "nobody"'),
    ('test-a.c', 'int x;\nstatic void test_who_waits(void)\n{\n}\n', 'test-a.c:2: name of a test: "who"'),
    ('test-a.c', 'g_test_add_func("/a/nobody-waits", f);\n', 'test-a.c:1: name of a test: "nobody"'),
])
def test_sentence_that_is_not_plain_is_found(work, name, text, finding):
    (work / name).write_text(text)
    status, output = words(work / name)
    assert status == 1 and finding in output


@pytest.mark.parametrize('name, text', [
    ('a.md', '```\nwhoever\n```\n\n    nobody\n\nThe `nobody` user. Word ' + 'word ' * 29 + '.\n'),
    ('a.c', 'char *x = "/* nobody */";\n/* ' + 'word ' * 20 + '. ' + 'Word ' * 20 + '. */\n'),
    ('a.py', 'x = "nobody"\n'),
    ('a.sh', '#!/bin/sh\necho nobody\n'),
    ('a.json', "# One line.\n{ 'enum': 'who' }\n"),
    ('a.c', '/* ' + 'word ' * 20 + '. some_name() ' + 'word ' * 20 + '. */\n'),
    ('a.c', '/*\n * ' + 'ROW   word\n * ' * 20 + '\n */\n'),
])
def test_code_is_no_sentence(work, name, text):
    (work / name).write_text(text)
    assert words(work / name)[0] == 0
