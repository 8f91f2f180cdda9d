# SPDX-License-Identifier: GPL-2.0-or-later
"""The structure check finds what it is there to find: each test plants one violation in a small tree."""
import subprocess
from pathlib import Path

import pytest

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


def test_commented_out_source_is_nobodys(tree, work):
    tree('block/meson.build', SPDX + "# src += files('mirror.c')\n")
    assert 'no meson.build above it names this file' in check(work)[1]


def test_long_file_is_a_warning(tree, work):
    tree('block/mirror.c', SPDX_C + '#include "block/mirror.h"\n#include "util/aio.h"\n' + '\n' * 800)
    status, output = check(work)
    assert status == 0
    assert 'warning: block/mirror.c:803' in output
