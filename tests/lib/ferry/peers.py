# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD servers and clients from Debian: qemu-nbd, nbdkit and libnbd.

A server gets its listening socket from us (the LISTEN_FDS protocol of sd_listen_fds(3)): it takes connections from
the moment it is started, and nothing has to wait for it.
"""
import contextlib
import itertools
import os
import select
import socket
import subprocess
from pathlib import Path

from .guard import Guard, describe_process, time_scale

_numbers = itertools.count(1)


def _inherit_as_3(fd):
    def before_exec():
        os.dup2(fd, 3)
        os.set_inheritable(3, True)
    return before_exec


class NbdServer:
    """One server process at a unix path or a TCP port of loopback; `uri` names its export."""

    def __init__(self, workdir, command, export='', tcp=False, name='nbd'):
        self.name = f'{name}{next(_numbers)}'
        self.command = list(map(str, command))
        self.export = export
        self.path = None if tcp else str(Path(workdir) / f'{self.name}.sock')
        self.port = None
        self.log = Path(workdir) / f'{self.name}.log'
        self.process = None
        self.start()

    def start(self):
        """Starts it, or starts it again at the same address."""
        assert self.process is None or self.process.poll() is not None, f'{self.name} is running'
        if self.path:
            if os.path.exists(self.path):
                os.unlink(self.path)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.path)
        else:
            listener = socket.socket(socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(('127.0.0.1', self.port or 0))
            self.port = listener.getsockname()[1]
        listener.listen(64)
        # The shell gives LISTEN_PID the pid that the server will have.
        command = ['/bin/sh', '-c', 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', 'sh', *self.command]
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(3,),
                                            preexec_fn=_inherit_as_3(listener.fileno()))
        listener.close()

    @property
    def uri(self):
        if self.path:
            return f'nbd+unix:///{self.export}?socket={self.path}'
        return f'nbd://127.0.0.1:{self.port}/{self.export}'

    @property
    def address(self):
        """As `server` of blockdev-add."""
        if self.path:
            return {'type': 'unix', 'path': self.path}
        return {'type': 'inet', 'host': '127.0.0.1', 'port': str(self.port)}

    def node(self, node_name, **options):
        """Arguments of blockdev-add for a raw node over this server."""
        options = {k.replace('_', '-'): v for k, v in options.items()}
        return {'driver': 'raw', 'node-name': node_name,
                'file': {'driver': 'nbd', 'server': self.address, 'export': self.export, **options}}

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9, as a test's fault."""
        self.process.kill()
        self.process.wait()

    def close(self):
        """Ends it in order, so that what it holds is written; kills it if it does not end."""
        for _ in range(10):
            if self.process.poll() is not None:
                break
            self.process.terminate()    # again: qemu-nbd loses a SIGTERM that finds it starting
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2 * time_scale())
        else:
            text = describe_process(self.process.pid)
            self.kill()
            raise AssertionError(f'{self.name} did not end\n{text}')
        if self.path and os.path.exists(self.path):
            os.unlink(self.path)

    def output(self):
        return self.log.read_text(errors='replace')


def qemu_nbd(workdir, image, fmt='raw', *args, export='', tcp=False, cache='writeback',
             program='qemu-nbd'):
    """Stock qemu-nbd serving an image to any number of clients until it is closed."""
    named = ['-x', export] if export else []
    return NbdServer(workdir, [program, '-t', '-e', '16', '-f', fmt, f'--cache={cache}', '--discard=unmap', *named,
                               *args, image], export, tcp, 'qemu-nbd')


def nbdkit(workdir, *args, export='', tcp=False):
    """nbdkit with a plugin and its parameters: nbdkit(work, 'memory', '1G')."""
    return NbdServer(workdir, ['nbdkit', '-f', *args], export, tcp, 'nbdkit')


def accept(listener, vm, limit_s=60):
    """The connection that a process makes, as a socket whose reads have a deadline too. Fails at once, with the process's
    last words, when the process ends instead."""
    guard = Guard(limit_s)
    pidfd = os.pidfd_open(vm.process.pid)
    try:
        ready, _, _ = select.select([listener, pidfd], [], [], guard.left())
    finally:
        os.close(pidfd)
    if listener not in ready:
        raise AssertionError(f'{vm.name} {"ended" if ready else "lives"} without having connected\n{vm.describe(stacks=not ready)}')
    sock = listener.accept()[0]
    sock.settimeout(limit_s * time_scale())
    return sock


def nbd_connect(uri, *contexts, strict=True):
    """A connected libnbd handle; without `strict` it sends requests that libnbd would refuse."""
    import nbd      # Debian's python3-libnbd; imported late, so that pure QMP tests run without it
    handle = nbd.NBD()
    if not strict:
        handle.set_strict_mode(0)
    for context in contexts:
        handle.add_meta_context(context)
    handle.connect_uri(uri)
    return handle


def nbd_failure(call, *args):
    """The error number of a call of libnbd that must fail."""
    import nbd
    try:
        call(*args)
    except nbd.Error as error:
        return error.errnum
    raise AssertionError(f'{call.__name__}{args} succeeded')
