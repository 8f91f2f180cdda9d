# SPDX-License-Identifier: GPL-2.0-or-later
"""A chardev that several monitors share: each may write, one gets the input, Ctrl-a c chooses."""
import json
import os
import socket
import subprocess

import pytest

import ferry

ESCAPE = b'\x01'
PROMPT = b'(qemu) '


class Terminal:
    """The other end of a socket chardev."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self.sock.settimeout(60 * ferry.time_scale())
        self.heard = b''

    def say(self, data):
        self.sock.sendall(data)

    def until(self, text):
        """What was heard up to and with that text."""
        while text not in self.heard:
            data = self.sock.recv(4096)
            assert data, self.heard
            self.heard += data
        end = self.heard.index(text) + len(text)
        before, self.heard = self.heard[:end], self.heard[end:]
        return before


@pytest.fixture
def shared(vmm, work):
    """A human monitor and a QMP monitor, in this order, on one terminal."""
    vm = vmm('-chardev', f'socket,id=c,path={work}/c,server=on,wait=off,mux=on', '-mon', 'chardev=c,mode=readline',
             '-mon', 'chardev=c,mode=control')
    terminal = Terminal(work / 'c')
    terminal.until(b'"QMP"')
    terminal.until(b'\r\n')
    yield vm, terminal
    terminal.sock.close()


def test_mux_and_its_base_are_listed(vmm, work):
    vm = vmm('-chardev', 'null,id=c,mux=on', '-chardev', f'file,id=f,path={work}/f', '-mon', 'chardev=c,mode=readline')
    found = {c['label']: (c['filename'], c['frontend-open']) for c in vm.cmd('query-chardev')}
    assert found['c'] == ('mux', True) and found['c-base'] == ('null', True)
    for label in ('c', 'c-base'):
        with pytest.raises(ferry.QMPError, match=f"Chardev '{label}' is busy"):
            vm.cmd('chardev-remove', id=label)
    vm.cmd('chardev-add', id='m', backend={'type': 'mux', 'data': {'chardev': 'f'}})
    with pytest.raises(ferry.QMPError, match="Device 'f' is in use"):
        vm.cmd('chardev-add', id='m2', backend={'type': 'mux', 'data': {'chardev': 'f'}})
    with pytest.raises(ferry.QMPError, match='base chardev nope not found'):
        vm.cmd('chardev-add', id='m2', backend={'type': 'mux', 'data': {'chardev': 'nope'}})
    with pytest.raises(ferry.QMPError, match="Chardev 'f' is busy"):
        vm.cmd('chardev-remove', id='f')
    vm.cmd('chardev-remove', id='m')
    vm.cmd('chardev-remove', id='f')


def test_four_may_share_and_a_fifth_is_refused(vmm):
    args = ['-chardev', 'null,id=c,mux=on'] + ['-mon', 'chardev=c,mode=readline'] * 4
    vmm(*args)
    with pytest.raises(RuntimeError, match="Device 'c' is in use"):
        vmm(*args, '-mon', 'chardev=c,mode=readline')


def test_focus_moves_between_monitors(shared):
    vm, terminal = shared
    terminal.say(b'{"execute":"qmp_capabilities"}')
    terminal.until(b'"return"')
    terminal.until(b'\r\n')
    terminal.say(ESCAPE + b'c')
    assert b'QEMU' in terminal.until(PROMPT)
    terminal.say(b'info name\r')
    terminal.until(b'info name')
    terminal.until(PROMPT)
    terminal.say(b'info sta' + ESCAPE + b'c{"execute":"query-name","id":5}')
    terminal.until(b'info sta')
    assert json.loads(b'{' + terminal.until(b'}\r\n').split(b'{', 1)[1])
    terminal.say(ESCAPE + b'c')
    terminal.until(PROMPT + b'info sta')    # what had been typed is still there
    terminal.say(b'tus\r')
    assert b'VM status' in terminal.until(b'\r\n' + PROMPT)


def test_keys_behind_a_busy_monitor_still_lead_away(shared):
    vm, terminal = shared
    terminal.say(b'{"execute":"qmp_capabilities"}')
    terminal.until(b'\r\n')
    # more than one read of commands, and at once the way out
    terminal.say(b'{"execute":"query-qmp-schema"}' * 20 + ESCAPE + b'c' + b'info name\r')
    terminal.until(b'monitor - type')
    vm.cmd('query-name')
    terminal.say(ESCAPE + b'c{"execute":"query-name","id":"last"}')
    terminal.until(b'"last"')


def test_other_keys(shared):
    vm, terminal = shared
    terminal.say(ESCAPE + b'h')
    help_text = terminal.until(b'send Ctrl-a\r\n')
    assert b'Ctrl-a c' in help_text and b'Ctrl-a x' in help_text
    terminal.say(ESCAPE + b'q')             # nothing
    terminal.say(ESCAPE + b't' + b'{"execute":"qmp_capabilities"}')
    assert b'[00:' in terminal.until(b'"return"')
    terminal.until(b'\r\n')
    terminal.say(ESCAPE + b't' + b'{"execute":"query-name","id":"' + b'x' + b'"}')
    assert b'[00:' not in terminal.until(b'\r\n')
    terminal.say(ESCAPE + ESCAPE + b' ')    # the byte itself: no JSON
    assert b'"error"' in terminal.until(b'\r\n')


def test_ctrl_a_x_ends_the_process(shared):
    vm, terminal = shared
    terminal.say(ESCAPE + b'x')
    terminal.until(b'Terminated')
    assert vm.process.wait(60 * ferry.time_scale()) == 0


def test_terminal_that_comes_again_begins_anew(vmm, work):
    vmm('-chardev', f'socket,id=c,path={work}/c,server=on,wait=off,mux=on', '-mon', 'chardev=c,mode=control', '-mon',
        'chardev=c,mode=readline')
    for _ in range(3):
        terminal = Terminal(work / 'c')
        terminal.until(PROMPT)
        terminal.say(ESCAPE)
        terminal.sock.close()


def test_mon_stdio_is_a_monitor_and_qmp_on_standard_input(work):
    args = [*ferry.binary(), '-machine', 'none', '-nodefaults', '-display', 'none', '-S', '-qmp', 'mon:stdio']
    keys = b'{"execute":"qmp_capabilities"}' + ESCAPE + b'cinfo name\r' + ESCAPE + b'x'
    done = subprocess.run(args, input=keys, capture_output=True, check=True, timeout=60 * ferry.time_scale())
    assert b'"QMP"' in done.stdout and b'"return"' in done.stdout
    assert b'info name' in done.stdout and b'Terminated' in done.stdout


def test_end_of_input_ends_all_sessions_after_their_answers(work):
    args = [*ferry.binary(), '-machine', 'none', '-nodefaults', '-display', 'none', '-S', '-chardev',
            f'socket,id=c,path={work}/c,server=on,wait=on,mux=on', '-mon', 'chardev=c,mode=readline', '-mon',
            'chardev=c,mode=control']
    process = subprocess.Popen(args, stderr=subprocess.PIPE)
    try:
        assert b'waiting for connection' in process.stderr.readline()
        terminal = Terminal(work / 'c')
        terminal.say(b'{"execute":"qmp_capabilities"}' + b'{"execute":"query-name","id":"last"}')
        terminal.sock.shutdown(socket.SHUT_WR)
        terminal.until(b'"last"')
        while terminal.sock.recv(4096):
            pass
        again = Terminal(work / 'c')
        again.until(b'"QMP"')
        again.sock.close()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert os.path.exists(work / 'c')
