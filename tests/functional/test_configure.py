# SPDX-License-Identifier: GPL-2.0-or-later
"""./configure does what its options say, and a part that is switched off is not in the build."""
import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.once


@pytest.fixture
def configure(work, need):
    need.tool('meson', 'ninja', 'pkg-config')
    count = []

    def run(*options, status=0, said=False):
        """Configures a new folder and returns it; where it is to fail, or with `said`, what was said."""
        count.append(options)
        folder = work / f'build{len(count)}'
        done = subprocess.run([ROOT / 'configure', f'--build-dir={folder}', *options], capture_output=True, text=True,
                              check=False, timeout=300, cwd=ROOT)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr if status or said else folder
    return run


def options_of(folder):
    out = subprocess.run(['meson', 'introspect', '--buildoptions', folder], capture_output=True, text=True, check=True, timeout=60)
    return {o['name']: o['value'] for o in json.loads(out.stdout)}


def parts(folder):
    return {line.split()[1] for line in (folder / 'config-host.h').read_text().splitlines() if line.startswith('#define CONFIG_')}


def test_parts_that_are_disabled_are_not_built(configure):
    folder = configure('--disable-io-uring', '--disable-rbd', '--disable-usdt')
    assert not parts(folder) & {'CONFIG_LINUX_IO_URING', 'CONFIG_USDT'}
    # The file that chooses the event loop compiles without the one that is missing.
    subprocess.run(['ninja', '-C', folder, 'libferry.a.p/util_aio.c.o', 'libferry.a.p/util_trace.c.o'], check=True,
                   stdout=subprocess.DEVNULL, timeout=300)
    names = subprocess.run(['nm', folder / 'libferry.a.p' / 'util_aio.c.o'], capture_output=True, text=True, check=True, timeout=60)
    assert 'aio_epoll_ops' in names.stdout and 'aio_uring_ops' not in names.stdout


def test_parts_that_are_enabled_are_built(configure, need):
    need.that(subprocess.run(['pkg-config', '--exists', 'liburing'], check=False).returncode == 0, 'liburing is not installed')
    assert 'CONFIG_LINUX_IO_URING' in parts(configure('--enable-io-uring'))


def test_folders_and_build_types(configure):
    found = options_of(configure('--prefix=/opt/x', '--bindir=/opt/y', '--enable-debug', '--enable-sanitizers', '--disable-werror'))
    assert (found['prefix'], found['bindir']) == ('/opt/x', '/opt/y')
    assert (found['buildtype'], found['optimization'], found['b_sanitize']) == ('debug', '0', 'address,undefined')
    assert found['werror'] is False


def test_options_of_before_are_gone_when_it_runs_again(configure, work):
    folder = configure('--prefix=/opt/x', '--enable-debug')
    subprocess.run([ROOT / 'configure', f'--build-dir={folder}'], check=True, capture_output=True, timeout=300, cwd=ROOT)
    found = options_of(folder)
    assert (found['prefix'], found['buildtype']) == ('/usr/local', 'debugoptimized')


def test_fuzzing_wants_clang(configure, need):
    assert 'clang' in configure('--enable-fuzzing', '--cc=gcc', status=1)
    need.tool('clang')
    found = options_of(configure('--enable-fuzzing', '--cc=clang'))
    assert found['fuzz'] is True and found['b_sanitize'] == 'address,undefined'


def test_wrong_options_are_named(configure):
    assert '--enable-nonsense' in configure('--enable-nonsense', status=1)
    assert 'no such compiler' in configure('--cc=nosuchcc', status=1)
    assert 'arm-softmmu' in configure('--target-list=arm-softmmu', status=1)


def test_parts_that_are_not_there_yet_are_refused(configure):
    assert 'Ceph' in configure('--enable-rbd', status=1)
    assert 'rbd' not in subprocess.run([ROOT / 'configure', '--help'], capture_output=True, text=True, check=True, timeout=60).stdout


def test_missing_libraries_are_named_with_what_installs_them(configure, work, monkeypatch):
    monkeypatch.setenv('PKG_CONFIG_LIBDIR', str(work))
    said = configure(status=1)
    assert 'json-c' in said and 'glib-2.0' in said and 'install-deps --build-only' in said


def test_prefix_that_would_overwrite_the_distributions_program_is_warned_of(configure, need):
    owner = subprocess.run(['dpkg-query', '-S', '/usr/bin/qemu-system-x86_64'], capture_output=True, text=True, check=False)
    need.that(owner.returncode == 0, 'the distribution has not installed its QEMU here')
    said = configure('--prefix=/usr', said=True)
    assert 'WARNING: /usr/bin/qemu-system-x86_64 belongs to the package qemu-system-x86.' in said
    assert 'WARNING' not in configure('--prefix=/usr', '--bindir=/opt/x', said=True)


def test_options_of_other_parts_of_qemu_are_noted_and_ignored(configure):
    """Packagers switch off much that Ferry does not have."""
    assert '--disable-gtk' in configure('--disable-gtk', '--target-list=x86_64-softmmu', said=True)
