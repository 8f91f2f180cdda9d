# SPDX-License-Identifier: GPL-2.0-or-later
"""How scripts/check runs commands: with a log, a guard against standstill, progress, and an end that leaves nothing behind."""
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAIL_LINES = 60
STALL_LIMIT_S = 600         # hang guard: a command that writes nothing to its log for so long is ended
STAGE_LIMIT_S = 5400        # hang guard of a whole command
GOODBYE_S = 10              # between SIGTERM and SIGKILL
LOG_PERIOD_S = 15           # between lines of progress in a log
TICK_S = 0.5
POLL_S = 0.02
PR_SET_CHILD_SUBREAPER = 36
NAMES_SHOWN = 4

stopping = threading.Event()


class Result:
    """What a stage found. `skipped` holds (test, reason), `failures` (test, text); `cpu_s` is what its commands took."""

    def __init__(self):
        self.passed = 0
        self.failures = []
        self.skipped = []
        self.cpu_s = 0

    def fail(self, name, text=''):
        self.failures.append((name, text))


def tail(path, lines=TAIL_LINES):
    try:
        text = Path(path).read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        return ''
    return '\n'.join(text[-lines:])


# Folders of the tests

class Scratch:
    """Where everything that a check starts keeps its files; remove() leaves none of them, whatever happened."""

    def __init__(self):
        tag = f'fc{os.getpid()}'
        self.folders = {'FERRY_WORK_DIR': Path('/dev/shm') / tag,
                        'FERRY_DISK_DIR': Path(os.environ.get('FERRY_DISK_DIR', '/var/tmp')) / tag,
                        'TMPDIR': Path('/tmp') / tag}
        if not os.access('/dev/shm', os.W_OK):
            del self.folders['FERRY_WORK_DIR']

    def make(self):
        for path in self.folders.values():
            path.mkdir(exist_ok=True)
        return {name: str(path) for name, path in self.folders.items()}

    def remove(self):
        for path in self.folders.values():
            shutil.rmtree(path, ignore_errors=True)
        remove_dead_namespaces()


def remove_dead_namespaces():
    """Network namespaces carry the process id of their test; those of dead processes have no user left."""
    for path in Path('/run/netns').glob('ferry*-*'):
        pid = path.name.removeprefix('ferry').split('-')[0]
        if pid.isdigit() and not Path(f'/proc/{pid}').exists():
            subprocess.run(['ip', 'netns', 'del', path.name], check=False, stderr=subprocess.DEVNULL)
            shutil.rmtree(f'/etc/netns/{path.name}', ignore_errors=True)


# Processes

def adopt_orphans():
    """Processes whose parents end become children of this one, so that end_children() finds them."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants():
    """Process ids below this process."""
    parents = {}
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = path.read_text(errors='replace').rsplit(')', 1)[1].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = [], [os.getpid()]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def end_children():
    """Kills what the stages left running; the last step, when no command of a stage is wanted any more."""
    for _ in range(5):
        pids = descendants()
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                return
        time.sleep(0.1)         # a killed process may have had children of its own


def _signal_group(process, number):
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def _size(paths):
    return sum(p.stat().st_size for p in paths if p.exists())


def _reap(process, flags=0):
    """Whether the process has ended; then its returncode and cpu_s are set. The latter counts children that were waited for."""
    if process.returncode is None:
        pid, status, used = os.wait4(process.pid, flags)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            process.cpu_s = used.ru_utime + used.ru_stime
    return process.returncode is not None


def _reap_within(process, limit_s):
    end = time.monotonic() + limit_s
    while not _reap(process, os.WNOHANG):
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def _wait(process, watched, limit_s):
    """Its status, or why it was ended."""
    start = grown = time.monotonic()
    size = _size(watched)
    while True:
        if _reap_within(process, TICK_S):
            return process.returncode
        now = time.monotonic()
        if _size(watched) != size:
            size, grown = _size(watched), now
        if stopping.is_set():
            return 'the check was ended'
        if now - grown > STALL_LIMIT_S:
            return f'no sign of progress for {STALL_LIMIT_S} s'
        if now - start > limit_s:
            return f'no end within {limit_s} s'


def run(result, command, log, env=None, limit_s=STAGE_LIMIT_S, journal=None, nice=0):
    """Runs a command of a stage with its output in `log`; returns its status, or in words why it was ended.

    A command that adds nothing to its log and `journal` for STALL_LIMIT_S is ended.
    """
    if stopping.is_set():
        return 'the check was ended'
    with open(log, 'ab') as out:
        out.write(f'$ {" ".join(map(str, command))}\n'.encode())
        out.flush()
        words = [*(['nice', '-n', str(nice)] if nice else []), *map(str, command)]
        process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   env={**os.environ, **(env or {})}, start_new_session=True)
        try:
            return _wait(process, [Path(log), *([Path(journal)] if journal else [])], limit_s)
        finally:
            if process.returncode is None:
                _signal_group(process, signal.SIGTERM)
                _reap_within(process, GOODBYE_S)
            # Also what the command left behind in its group.
            _signal_group(process, signal.SIGKILL)
            _reap(process)
            result.cpu_s += process.cpu_s


# Tests of pytest

class Journal:
    """What tests/lib/ferry/journal.py writes while pytest runs: one JSON object a line."""

    def __init__(self, path):
        self.path = Path(path)
        self.total = 0
        self.begun = {}         # test: when
        self.ended = {}         # test: (outcome, text)

    def read(self):
        self.begun, self.ended = {}, {}
        try:
            lines = self.path.read_text(encoding='utf-8', errors='replace').splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue            # the last line may be cut
            if 'total' in entry:
                self.total = entry['total']
            elif 'begun' in entry:
                self.begun[entry['begun']] = entry['at']
            else:
                self.ended[entry['ended']] = (entry['outcome'], entry['text'])
        return self

    def open_tests(self):
        """Tests that began and did not end, the oldest first."""
        names = [n for n in self.begun if n not in self.ended]
        return sorted(names, key=self.begun.get)

    def words(self):
        """One line for people."""
        self.read()
        bad = sum(outcome == 'failed' for outcome, _ in self.ended.values())
        now = time.time()
        late = [f'{n.rsplit("/", 1)[-1]} ({now - self.begun[n]:.0f} s)' for n in self.open_tests()
                if now - self.begun[n] > LOG_PERIOD_S]
        text = f'{len(self.ended)} of {self.total or "?"} tests, {bad} failed'
        return text + (f'; long: {", ".join(late[:NAMES_SHOWN])}' if late else '')

    def count(self, result, status, log):
        """Adds what is known to the result, also when the run was cut off."""
        self.read()
        before = len(result.failures)
        for name, (outcome, text) in self.ended.items():
            if outcome == 'failed':
                result.fail(name, text)
            elif outcome == 'skipped':
                result.skipped.append((name, text))
            else:
                result.passed += 1
        if stopping.is_set():
            return                      # what was open is not to blame
        hung = self.open_tests()
        for name in hung:
            result.fail(name, f'it had not ended after {time.time() - self.begun[name]:.0f} s when the run was over: {status}')
        if not self.ended and not hung:
            result.fail('runner', f'it ran no test (status {status})\n{tail(log)}')
        elif status != 0 and len(result.failures) == before:
            result.fail('runner', f'status {status}\n{tail(log)}')


# What a user sees meanwhile

class Board:
    """Stages in progress. On a terminal one line is drawn over; in a log a line for each stage now and then."""

    def __init__(self, out=sys.stdout):
        self.out = out
        self.tty = out.isatty()
        self.drawn = False
        self.lock = threading.Lock()
        self.stages = {}        # name: [start, words()]
        self.last = time.monotonic()

    def begin(self, name, words=None):
        with self.lock:
            self.stages[name] = [time.monotonic(), words]

    def describe(self, name, words):
        """`words` is called for a line about how far the stage is."""
        with self.lock:
            if name in self.stages:
                self.stages[name][1] = words

    def end(self, name):
        with self.lock:
            self.stages.pop(name, None)

    def line(self, text=''):
        with self.lock:
            if self.drawn:
                self.out.write('\r\033[K')
                self.drawn = False
            self.out.write(text + '\n')
            self.out.flush()

    def _texts(self):
        now = time.monotonic()
        texts = []
        for name, (start, words) in list(self.stages.items()):
            more = words() if words else ''
            texts.append(f'{name} {now - start:.0f} s' + (f': {more}' if more else ''))
        return texts

    def tick(self):
        """Now and then, from one thread."""
        if self.tty:
            text = ' | '.join(self._texts())
            with self.lock:
                width = shutil.get_terminal_size().columns - 1
                self.out.write(f'\r{text[:width]}\033[K')
                self.out.flush()
                self.drawn = True
        elif time.monotonic() - self.last >= LOG_PERIOD_S:
            self.last = time.monotonic()
            for text in self._texts():
                self.line(f'   .. {text}')
