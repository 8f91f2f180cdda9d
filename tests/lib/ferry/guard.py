# SPDX-License-Identifier: GPL-2.0-or-later
"""Hang guards: limits that no healthy run comes near, and a description of the process that ran into one."""
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path


class HangError(Exception):
    """Something did not answer within its hang guard."""


def time_scale():
    """How much longer than usual everything may take (sanitizers, slow machines): FERRY_TIME_SCALE."""
    return float(os.environ.get('FERRY_TIME_SCALE', '1'))


class Guard:
    """A point in time by which something must have happened."""

    def __init__(self, seconds):
        self.seconds = seconds * time_scale()
        self.end = time.monotonic() + self.seconds

    def left(self):
        """Seconds left, or HangError."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise HangError(f'no answer within {self.seconds:.0f} s')
        return left


def describe_process(pid):
    """What every thread of a process is doing: kernel wait channel, and its stack when gdb is there."""
    lines = [f'state of process {pid}:']
    try:
        tasks = sorted(Path(f'/proc/{pid}/task').iterdir(), key=lambda p: int(p.name))
    except OSError as error:
        return f'process {pid}: {error}'
    for task in tasks:
        def get(name, task=task):
            try:
                return (task / name).read_text().strip()
            except OSError:
                return '?'
        state = [line.split(':', 1)[1].strip() for line in get('status').splitlines() if line.startswith('State:')]
        lines.append(f'  thread {task.name} {get("comm")}: {"".join(state)}, in {get("wchan")}, syscall {get("syscall")}')
    if shutil.which('gdb'):
        try:
            done = subprocess.run(['gdb', '-nx', '-batch', '-p', str(pid), '-ex', 'thread apply all bt 16'],
                                  capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
            lines += ['  ' + line for line in done.stdout.splitlines() if line.startswith(('#', 'Thread'))]
        except (OSError, subprocess.TimeoutExpired) as error:
            lines.append(f'  gdb: {error}')
    return '\n'.join(lines)


class Watchdog:
    """Calls `on_expiry` from its own thread unless stopped in time; for calls that cannot be interrupted otherwise."""

    def __init__(self, seconds, on_expiry):
        self.expired = False
        self._on_expiry = on_expiry
        self._timer = threading.Timer(seconds * time_scale(), self._expire)
        self._timer.daemon = True
        self._timer.start()

    def _expire(self):
        self.expired = True
        self._on_expiry()

    def stop(self):
        self._timer.cancel()
        self._timer.join()
