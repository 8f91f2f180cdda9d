# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user starts first: options are answered before anything is done, failures are told in words, an end leaves nothing."""
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

import ferry

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ['check', 'bench', 'demo', 'fuzz']


@pytest.fixture
def alarm(work, monkeypatch):
    """A file that exists once a script has looked for packages or built something."""
    touched = work / 'touched'
    (work / 'bin').mkdir()
    for name in ('dpkg-query', 'apt-get', 'ninja', 'meson'):
        tool = work / 'bin' / name
        tool.write_text(f'#!/bin/sh\ntouch {touched}\nexit 1\n')
        tool.chmod(0o755)
    monkeypatch.setenv('PATH', f'{work}/bin:{os.environ["PATH"]}')
    return touched


def run(name, *args):
    return subprocess.run([ROOT / 'scripts' / name, *args], capture_output=True, text=True, check=False, timeout=120,
                          stdin=subprocess.DEVNULL)


@pytest.mark.once
@pytest.mark.parametrize('option', ['--help', '-h'])
@pytest.mark.parametrize('name', SCRIPTS)
def test_help_is_printed_before_anything_is_done(alarm, name, option):
    done = run(name, option)
    assert done.returncode == 0 and f'usage: scripts/{name}' in done.stdout
    assert not alarm.exists()


@pytest.mark.once
@pytest.mark.parametrize('name', SCRIPTS)
def test_unknown_option_is_named_before_anything_is_done(alarm, name):
    done = run(name, '--nosuch')
    assert done.returncode == 2 and '--nosuch' in done.stderr
    assert not alarm.exists()


def demo(work, *args):
    """scripts/demo with its folders below `work`."""
    return subprocess.Popen([ROOT / 'scripts' / 'demo', *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            stdin=subprocess.DEVNULL, env={**os.environ, 'FERRY_WORK_DIR': str(work)})


def test_demo_that_is_ended_leaves_no_files_and_no_traceback(work):
    (work / 'demo').mkdir()
    with demo(work / 'demo', '--raw', '--size', '64', '--binary', shlex.join(ferry.binary())) as process:
        for line in process.stdout:
            if 'drive-mirror to' in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(60 * ferry.time_scale()) == 130, rest
    assert 'demo: ended by SIGTERM' in rest and 'Traceback' not in rest
    assert list((work / 'demo').iterdir()) == []


@pytest.mark.once
def test_demo_that_fails_says_why_in_few_words(work):
    (work / 'demo').mkdir()
    bad = work / 'qemu-system-x86_64'
    bad.write_text('#!/bin/sh\necho "$0: the moon is in the wrong quarter" >&2\nexit 3\n')
    bad.chmod(0o755)
    with demo(work / 'demo', '--raw', '--size', '16', '--binary', str(bad)) as process:
        text = process.stdout.read()
        assert process.wait(60) == 1
    assert 'FAILED:' in text and 'exit status 3' in text and 'the moon is in the wrong quarter' in text
    assert 'demo: raw failed' in text
    assert 'Traceback' not in text and len(text) < 2000
    assert list((work / 'demo').iterdir()) == []
