# SPDX-License-Identifier: GPL-2.0-or-later
"""The tools that judge copies would notice a wrong one. Stock qemu-nbd serves; no binary of ours takes part."""
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import ferry
from ferry import stock

pytestmark = pytest.mark.once
SIZE = 8 * ferry.MIB
LIB = Path(ferry.__file__).resolve().parents[1]


@pytest.fixture
def written(work, qemu_nbd):
    """An image that three clients wrote to, and the record of it."""
    path = ferry.fill(work / 'disk.raw', SIZE, seed=1, data=SIZE // 2)
    model = ferry.Model(SIZE, path)
    server = qemu_nbd(path)
    writers = ferry.run_writers(server.uri, model, seed=2, count=3, limit=120, crash=True,
                                mix={'write': 8, 'zero': 2, 'trim': 1, 'read': 4, 'flush': 1})
    for writer in writers:
        writer.finish()
    server.close()
    return path, model


def poke(path, offset, data):
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(data)


def test_record_agrees_with_a_true_image(written):
    path, model = written
    model.check(path)
    model.check_crash(path)


def test_record_finds_one_wrong_byte(written):
    path, model = written
    offset = next(n for n in range(0, SIZE, 512) if n // 512 not in model.unsure)
    poke(path, offset + 17, bytes([model.data[offset + 17] ^ 1]))
    with pytest.raises(AssertionError, match=f'1 sectors differ.*the first at byte {offset},'):
        model.check(path)
    with pytest.raises(AssertionError):
        model.check_crash(path)


def test_unflushed_write_may_be_lost_and_flushed_may_not(work, qemu_nbd):
    path = ferry.fill(work / 'disk.raw', SIZE, seed=3)
    before = path.read_bytes()
    model = ferry.Model(SIZE, path)
    writer = ferry.Writer(qemu_nbd(path).uri, model, 4, crash=True, mix={'write': 1}, limit=50)
    writer._flush = lambda handle: 0
    writer.run()
    assert writer.error is None
    assert model.data[:] != before
    old = work / 'old.raw'
    old.write_bytes(before)
    model.check_crash(old)      # nothing was flushed: the old contents are all right
    with pytest.raises(AssertionError):
        model.check(old)
    model.recent.clear()        # as after a flush
    with pytest.raises(AssertionError):
        model.check_crash(old)


def test_killed_server_leaves_an_image_the_record_accepts(work, qemu_nbd):
    path = ferry.fill(work / 'disk.raw', SIZE, seed=5)
    model = ferry.Model(SIZE, path)
    server = qemu_nbd(path)
    writers = ferry.run_writers(server.uri, model, seed=6, crash=True, fatal=False)
    for writer in writers:
        writer.wait_count(30)
    server.kill()
    for writer in writers:
        writer.stop()
        assert writer.error is not None
    model.check_crash(path)
    server.start()
    ferry.nbd_connect(server.uri).shutdown()


def test_compare_finds_a_difference(work):
    a = ferry.fill(work / 'a', ferry.MIB, seed=7)
    b = ferry.fill(work / 'b', ferry.MIB, seed=7)
    ferry.compare(a, b)
    poke(b, 12345, b'x' if b.read_bytes()[12345:12346] != b'x' else b'y')
    with pytest.raises(AssertionError):
        ferry.compare(a, b)


def test_compare_finds_a_longer_copy(work):
    a = ferry.fill(work / 'a', ferry.MIB, seed=7)
    b = ferry.fill(work / 'b', ferry.MIB, seed=7)
    os.truncate(b, 2 * ferry.MIB)
    with pytest.raises(AssertionError, match='bytes'):
        ferry.compare(a, b)


def test_fill_is_the_same_for_the_same_seed(work):
    size = 3 * ferry.MIB
    contents = [ferry.fill(work / name, size, seed=seed, data=ferry.MIB).read_bytes()
                for name, seed in (('a', 8), ('b', 8), ('c', 9))]
    assert contents[0] == contents[1] != contents[2]
    assert 0 < ferry.allocated(work / 'a') <= ferry.MIB


def fake_vmm(work, body):
    """A stand-in binary: a script that gets the QMP socket's path as `path`."""
    script = work / 'fake.py'
    script.write_text('import sys, socket, os, time, signal\npath = sys.argv[-1][5:]\n' + textwrap.dedent(body))
    return [sys.executable, str(script)]


GREET = 's = socket.socket(socket.AF_UNIX); s.connect(path); s.sendall(b\'{"QMP": {}}\\n\'); f = s.makefile()\n'
ANSWER = 'f.readline(); s.sendall(b\'{"return": {}, "id": 1}\\n\')\n'


def test_binary_that_exits_at_once_is_reported_with_its_output(work):
    with pytest.raises(RuntimeError, match='(?s)exit status 3.*no such luck'):
        ferry.VMM(work, command=fake_vmm(work, 'sys.stderr.write("no such luck"); sys.exit(3)'))


def test_crash_is_a_failure(work):
    vm = ferry.VMM(work, command=fake_vmm(work, GREET + ANSWER + 'os.abort()'))
    vm.wait_exit()
    with pytest.raises(AssertionError, match='exit status -6'):
        vm.close()


def test_sanitizer_report_is_a_failure(work):
    report = 'log = os.environ["ASAN_OPTIONS"].split("log_path=")[1]\nopen(log + ".1", "w").write("heap-use-after-free")\n'
    vm = ferry.VMM(work, command=fake_vmm(work, GREET + ANSWER + report + 'sys.exit(0)'))
    vm.wait_exit()
    with pytest.raises(AssertionError, match='heap-use-after-free'):
        vm.close()


def test_hang_is_an_error_that_shows_the_threads(work):
    vm = ferry.VMM(work, command=fake_vmm(work, GREET + ANSWER + 'signal.pause()'))
    try:
        with pytest.raises(ferry.HangError, match='(?s)query-status.*thread'):
            vm.cmd('query-status', limit_s=0.2)
    finally:
        vm.kill()
    vm.close()


def test_watchdog_ends_what_hangs(work):
    lab = ferry.Lab(limit_s=0.3)
    vm = lab.vmm(command=fake_vmm(work, GREET + ANSWER + 'signal.pause()'))
    assert vm.process.wait(60) == -signal.SIGKILL
    with pytest.raises(AssertionError, match='did not end'):
        lab.close()
    assert not lab.work.exists()


def test_watchdog_ends_what_starts_after_it_expired(work):
    lab = ferry.Lab(limit_s=0.01)
    guard = ferry.Guard(60)
    while not lab.hang:
        guard.left()
    vm = lab.vmm(command=fake_vmm(work, GREET + ANSWER + 'signal.pause()'))
    assert vm.process.wait(60) == -signal.SIGKILL
    with pytest.raises(AssertionError, match='did not end'):
        lab.close()


def test_server_takes_connections_at_once_and_again(work, nbdkit):
    for tcp in (False, True):
        server = nbdkit('memory', '1M', tcp=tcp)
        assert ferry.nbd_connect(server.uri).get_size() == ferry.MIB
        server.kill()
        with pytest.raises(Exception):
            ferry.nbd_connect(server.uri)
        server.start()
        assert ferry.nbd_connect(server.uri).get_size() == ferry.MIB


def test_nothing_is_left_behind(work):
    lab = ferry.Lab()
    server = lab.nbdkit('memory', '1M')
    vm = lab.vmm(command=fake_vmm(work, GREET + ANSWER + 'f.readline()\nsys.exit(0)'))
    lab.close()
    assert not lab.work.exists()
    for pid in (server.process.pid, vm.pid):
        assert subprocess.run(['kill', '-0', str(pid)], capture_output=True, check=False).returncode != 0


def test_ferry_under_the_name_of_stock_is_not_taken_for_it(work, monkeypatch):
    """Installed below /usr/local, Ferry comes first in PATH."""
    fake = work / 'qemu-system-x86_64'
    fake.write_text('#!/bin/sh\necho "QEMU emulator version 11.1.0 (Ferry 0.1.0)"\n')
    fake.chmod(0o755)
    before = stock.distribution()
    monkeypatch.setenv('PATH', f'{work}:{os.environ["PATH"]}')
    assert stock.distribution() == before


def test_peer_that_dies_before_it_connects_fails_the_test_with_its_last_words(work):
    vm = ferry.VMM(work, '-c', 'echo the disk is gone >&2; exit 3', command=['/bin/sh'], defaults=False, qmp=False)
    vm.expected = {3}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(work / 'l'))
        listener.listen()
        with pytest.raises(AssertionError, match='ended without having connected(.|\n)*the disk is gone'):
            ferry.accept(listener, vm)
    vm.close()


def test_run_that_is_cut_off_has_told_which_tests_had_begun_failed_and_hung(work):
    """The journal is read after pytest was killed in the middle of a test."""
    (work / 'test_x.py').write_text(textwrap.dedent('''
        import os, signal
        def test_good(): pass
        def test_bad(): assert 1 == 2
        def test_hangs(): os.kill(os.getpid(), signal.SIGKILL)
    '''))
    (work / 'conftest.py').write_text(f'import sys\nsys.path.insert(0, {str(LIB)!r})\nfrom ferry import journal\n'
                                      'def pytest_configure(config):\n    journal.register(config)\n')
    env = {**os.environ, 'FERRY_JOURNAL': str(work / 'journal'), 'PYTEST_ADDOPTS': ''}
    done = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--rootdir', work, work], env=env,
                          capture_output=True, timeout=120, check=False, cwd=work)
    assert done.returncode == -signal.SIGKILL
    entries = [json.loads(line) for line in (work / 'journal').read_text().splitlines()]
    assert {'total': 3} in entries
    ended = {e['ended'].split('::')[1]: (e['outcome'], e['text']) for e in entries if 'ended' in e}
    assert ended['test_good'] == ('passed', '') and ended['test_bad'][0] == 'failed' and 'assert 1 == 2' in ended['test_bad'][1]
    assert [e['begun'].split('::')[1] for e in entries if 'begun' in e][-1] == 'test_hangs' and 'test_hangs' not in ended
