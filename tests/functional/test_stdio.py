# SPDX-License-Identifier: GPL-2.0-or-later
"""Monitors on standard input and output: how they leave a terminal, and that -daemonize refuses them."""
import os
import pty
import subprocess
import termios

import pytest

import ferry

BASE = ['-machine', 'none', '-display', 'none', '-nodefaults']


class Terminal:
    """The process on a pseudo-terminal of its own."""

    def __init__(self, *args):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen([*ferry.vmm.binary(), *BASE, *args], stdin=self.slave, stdout=self.slave,
                                        start_new_session=True)
        self.seen = b''

    def until(self, text):
        while text not in self.seen:
            data = os.read(self.master, 4096)
            assert data, self.seen
            self.seen += data
        end = self.seen.index(text) + len(text)
        self.seen, got = self.seen[end:], self.seen[:end]
        return got

    def flags(self):
        mode = termios.tcgetattr(self.slave)[3]
        return {name for name in ('ECHO', 'ICANON', 'ISIG') if mode & getattr(termios, name)}

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal():
    made = []

    def make(*args):
        made.append(Terminal(*args))
        return made[-1]
    yield make
    for one in made:
        one.close()


def test_qmp_leaves_echo_and_editing_to_the_terminal(terminal):
    one = terminal('-qmp', 'stdio')
    one.until(b'oob')
    assert one.flags() == {'ECHO', 'ICANON', 'ISIG'}
    os.write(one.master, b'{"execute":"qmp_capabilitiesx\x7f"}\n')
    one.until(b'{"return":{}}')
    os.write(one.master, b'{"execute":"quit"}\n')
    one.until(b'{"return":{}}')
    assert one.process.wait(60) == 0
    assert termios.tcgetattr(one.slave) == one.before


def test_qmp_without_signals(terminal):
    one = terminal('-chardev', 'stdio,id=c,signal=off', '-mon', 'chardev=c,mode=control')
    one.until(b'oob')
    assert one.flags() == {'ECHO', 'ICANON'}


def test_hmp_gets_each_key_and_gives_the_terminal_back(terminal):
    one = terminal('-monitor', 'stdio')
    one.until(b'(qemu) ')
    assert one.flags() == {'ISIG'}
    os.write(one.master, b'quit\n')
    assert one.process.wait(60) == 0
    assert termios.tcgetattr(one.slave) == one.before


def test_a_signal_gives_the_terminal_back(terminal):
    one = terminal('-monitor', 'stdio')
    one.until(b'(qemu) ')
    one.process.terminate()
    one.process.wait(60)
    assert termios.tcgetattr(one.slave) == one.before


@pytest.mark.parametrize('args', [('-qmp', 'stdio'), ('-monitor', 'stdio'), ('-chardev', 'stdio,id=c'),
                                  ('-chardev', 'stdio,id=c,mux=on')])
def test_daemonize_refuses_stdio(args):
    done = subprocess.run([*ferry.vmm.binary(), *BASE, '-daemonize', *args], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60 * ferry.time_scale(), check=False)
    assert done.returncode == 1
    assert 'cannot use stdio with -daemonize' in done.stderr
