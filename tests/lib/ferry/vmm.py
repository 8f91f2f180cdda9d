# SPDX-License-Identifier: GPL-2.0-or-later
"""Start the binary under test, talk to it, and end it with nothing left behind."""
import itertools
import os
import select
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

from .guard import Guard, HangError, describe_process, time_scale
from .qmp import DEFAULT_LIMIT_S, QMPClient, QMPClosed

ROOT = Path(__file__).resolve().parents[3]
DEFAULTS = ['-machine', 'none', '-display', 'none', '-nodefaults', '-S']
STDERR_SHOWN = 6000
_numbers = itertools.count(1)


def binary():
    """The command under test as words: FERRY_BINARY (a shell-quoted prefix is fine) or the ordinary build."""
    return shlex.split(os.environ.get('FERRY_BINARY', str(ROOT / 'build' / 'qemu-system-x86_64')))


class VMM:
    """One running binary with a QMP connection in `qmp`; cmd(), wait(), events and seen() are the connection's.

    `workdir` holds its socket and log. Arguments follow DEFAULTS unless defaults=False. The process is killed by
    close() in any case; quit() and close() raise if it ended otherwise than expected or a sanitizer complained.
    """

    def __init__(self, workdir, *args, command=None, defaults=True, qmp=True, capabilities=None, name='vmm',
                 env=None, pass_fds=(), stdin=subprocess.DEVNULL):
        self.workdir = Path(workdir)
        self.name = f'{name}{next(_numbers)}'
        self.expected = {0}         # exit statuses that are not a failure
        self.qmp = None
        self.process = None
        self.stderr_path = self.workdir / f'{self.name}.stderr'
        self._sanitizer = self.workdir / f'{self.name}.sanitizer'
        self._checked = False
        words = list(command) if command else binary()
        self.argv = [*words, *(DEFAULTS if defaults else []), *map(str, args)]
        listener = None
        if qmp:
            path = str(self.workdir / f'{self.name}.qmp')
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen(1)
            self.argv += ['-qmp', f'unix:{path}']
        self.started = time.monotonic()
        with open(self.stderr_path, 'wb') as err:
            self.process = subprocess.Popen(self.argv, stdin=stdin, stdout=err, stderr=err, pass_fds=pass_fds,
                                            env=self._environment(env))
        if qmp:
            try:
                self.qmp = QMPClient(self._accept(listener), capabilities)
                self.startup_s = time.monotonic() - self.started
            except BaseException as error:
                text = self.describe(stacks=isinstance(error, HangError))
                self.kill()
                raise RuntimeError(f'{self.argv[0]} did not come up: {error}\n{text}') from error
            finally:
                listener.close()
                os.unlink(path)

    def _environment(self, extra):
        env = {**os.environ, **(extra or {})}
        for name in ('ASAN_OPTIONS', 'UBSAN_OPTIONS', 'TSAN_OPTIONS'):
            env[name] = f'{env.get(name, "")}:log_path={self._sanitizer}'.lstrip(':')
        return env

    def _accept(self, listener):
        """The connection the binary makes, or RuntimeError as soon as it exits instead."""
        guard = Guard(DEFAULT_LIMIT_S)
        pidfd = os.pidfd_open(self.process.pid)
        try:
            ready, _, _ = select.select([listener, pidfd], [], [], guard.left())
            if listener in ready:
                return listener.accept()[0]
            if ready:
                raise RuntimeError(f'exit status {self.process.wait()}')
            raise HangError('no QMP connection')
        finally:
            os.close(pidfd)

    # QMP

    def cmd(self, command, args=None, /, **kwargs):
        try:
            return self.qmp.cmd(command, args, **kwargs)
        except (HangError, QMPClosed) as error:
            raise self._explained(error) from None

    def wait(self, event, limit_s=DEFAULT_LIMIT_S, where=None, **match):
        try:
            return self.qmp.wait(event, limit_s, where, **match)
        except (HangError, QMPClosed) as error:
            raise self._explained(error) from None

    def send(self, command, args=None, /, **kwargs):
        return self.qmp.send(command, args, **kwargs)

    def reply(self, sent, limit_s=DEFAULT_LIMIT_S):
        try:
            return self.qmp.reply(sent, limit_s)
        except (HangError, QMPClosed) as error:
            raise self._explained(error) from None

    def seen(self, event, **match):
        return self.qmp.seen(event, **match)

    @property
    def events(self):
        return self.qmp.events

    def _explained(self, error):
        return type(error)(f'{error}\n{self.describe(stacks=isinstance(error, HangError))}')

    # Shorthands for things many tests do

    def hmp(self, line, limit_s=DEFAULT_LIMIT_S):
        """A line of the human monitor; returns what it printed."""
        return self.cmd('human-monitor-command', command_line=line, limit_s=limit_s)

    def qemu_io(self, node, command, limit_s=DEFAULT_LIMIT_S):
        """A qemu-io command on a node inside the process: qemu_io('disk', 'write -P 1 0 64k').

        Returns what the process printed meanwhile, where results go, and the reply, where refusals go.
        """
        before = os.path.getsize(self.stderr_path)
        reply = self.hmp(f'qemu-io {node} "{command}"', limit_s=limit_s)
        with open(self.stderr_path, encoding='utf-8', errors='replace') as file:
            file.seek(before)
            return file.read() + reply.replace('\r\n', '\n')

    def add(self, driver, node_name=None, **options):
        """blockdev-add; returns the node's name."""
        options = {k.replace('_', '-'): v for k, v in options.items()}
        node_name = node_name or f'node{next(_numbers)}'
        self.cmd('blockdev-add', {'driver': driver, 'node-name': node_name, **options})
        return node_name

    def add_file(self, path, fmt='raw', node_name=None, **options):
        """A format node over a file node, as most disks are."""
        return self.add(fmt, node_name, file={'driver': 'file', 'filename': str(path)}, **options)

    def export(self, node, name='disk', writable=True, socket_path=None, **options):
        """Exports a node by NBD over a unix socket and returns its URI; starts the server at the first use.

        Options: further arguments of block-export-add.
        """
        if socket_path is None:
            socket_path = self.workdir / f'{self.name}.nbd'
            if not getattr(self, '_exporting', False):
                self.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(socket_path)}})
                self._exporting = True
        self.cmd('block-export-add', type='nbd', id=f'export-{name}', node_name=node, name=name, writable=writable,
                 **options)
        return f'nbd+unix:///{name}?socket={socket_path}'

    def stop_exports(self):
        """nbd-server-stop; the next export() starts the server again."""
        self.cmd('nbd-server-stop')
        self._exporting = False

    def job(self, job_id):
        """The entry of query-jobs, or None."""
        return next((j for j in self.cmd('query-jobs') if j['id'] == job_id), None)

    def block_job(self, device):
        """The entry of query-block-jobs, or None."""
        return next((j for j in self.cmd('query-block-jobs') if j['device'] == device), None)

    def job_until(self, job_id, *states, limit_s=DEFAULT_LIMIT_S):
        """Waits until a job is in one of these states, by its JOB_STATUS_CHANGE events; returns the state."""
        job = self.job(job_id)
        if job and job['status'] in states:
            return job['status']
        event = self.wait('JOB_STATUS_CHANGE', limit_s, id=job_id, where=lambda data: data['status'] in states)
        return event['data']['status']

    # The process

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def cpu_s(self):
        """User and system seconds so far."""
        fields = Path(f'/proc/{self.pid}/stat').read_text().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def memory_kib(self, what='VmRSS'):
        """VmRSS (resident now) or VmHWM (its peak)."""
        for line in Path(f'/proc/{self.pid}/status').read_text().splitlines():
            if line.startswith(what + ':'):
                return int(line.split()[1])
        raise KeyError(what)

    def sanitized(self):
        """Whether it was built with a sanitizer, which keeps memory of its own and freed memory for a while."""
        return any(name in Path(f'/proc/{self.pid}/maps').read_text() for name in ('libasan', 'libtsan'))

    def stderr(self):
        return self.stderr_path.read_text(errors='replace')

    def quit(self, limit_s=30):
        """Ends it by `quit` and checks how it ended."""
        if self.running() and self.qmp and not self.qmp.closed:
            try:
                self.qmp.cmd('quit', limit_s=limit_s)
            except QMPClosed:
                pass
            except HangError as error:
                raise self._explained(error) from None
        elif self.running():
            self.process.terminate()
        self.wait_exit(limit_s)
        self.close()

    def wait_exit(self, limit_s=30):
        """Waits for the process to end by itself; returns its status."""
        try:
            return self.process.wait(limit_s * time_scale())
        except subprocess.TimeoutExpired:
            text = self.describe(stacks=True)
            self.kill()
            raise HangError(f'{self.name} did not exit\n{text}') from None

    def signal(self, number):
        """Sends a signal; one that ends the process is an expected end."""
        self.expected.add(-number)
        self.process.send_signal(number)

    def kill(self):
        """kill -9, as a test's fault or for clean-up."""
        if self.process and self.running():
            self.expected.add(-signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        if self.qmp:
            self.qmp.close()

    def close(self):
        """Kills what still runs; AssertionError for an unexpected exit status or a sanitizer's report."""
        self.kill()
        if self._checked:
            return
        self._checked = True
        reports = self.sanitizer_reports()
        status = self.process.returncode
        assert not reports, f'{self.name}: sanitizer report:\n{reports}'
        assert status in self.expected, \
            f'{self.name}: exit status {status}, expected {sorted(self.expected)}\n{self.describe()}'

    def sanitizer_reports(self):
        texts = [p.read_text(errors='replace')[:20000] for p in sorted(self.workdir.glob(self._sanitizer.name + '.*'))]
        # The leak sanitizer writes this line, and no report, about a thread that ended while it looked.
        lines = (line for text in texts for line in text.splitlines() if 'Unable to get registers from thread' not in line)
        return '\n'.join(lines)

    def describe(self, stacks=False):
        """Command line, output and QMP traffic; with the state of all threads if asked."""
        text = [f'-- {self.name}: {shlex.join(self.argv)}']
        if self.process is not None:
            text.append(f'-- status: {"running" if self.running() else self.process.returncode}')
        if self.qmp:
            text += ['-- last QMP traffic:', *self.qmp.traffic]
        output = self.stderr()
        if output.strip():
            text += ['-- output:', output[-STDERR_SHOWN:]]
        if stacks and self.running():
            text.append(describe_process(self.pid))
        return '\n'.join(text)
