# SPDX-License-Identifier: GPL-2.0-or-later
"""Play the guest: read and write its memory and ports, and step its clock, over the qtest protocol."""
import os
import socket

from .guard import Guard

LIMIT_S = 60
PIECE = 1 << 20


class QTestError(Exception):
    """The answer was not OK."""


class QTest:
    """A listening socket for a binary to connect to: vmm(*qtest.args) and then qtest.accept().

        qtest = ferry.QTest(work)
        vm = vmm('-m', '64M', *qtest.args)
        qtest.write(0x1000, b'...')
    """

    def __init__(self, workdir, name='qtest'):
        self.path = os.path.join(str(workdir), f'{name}.sock')
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(1)
        self._socket = None
        self._input = b''

    @property
    def args(self):
        return ['-accel', 'qtest', '-qtest', f'unix:{self.path}', '-qtest-log', 'none']

    def accept(self, limit_s=LIMIT_S):
        self._listener.settimeout(Guard(limit_s).left())
        self._socket = self._listener.accept()[0]
        self._socket.settimeout(Guard(limit_s).left())
        self._listener.close()

    def close(self):
        self._listener.close()
        if self._socket:
            self._socket.close()

    def send_raw(self, data):
        if not self._socket:
            self.accept()
        self._socket.sendall(data)

    def answer(self):
        """The next line, without its end."""
        while b'\n' not in self._input:
            data = self._socket.recv(1 << 20)
            if not data:
                raise QTestError('the connection has ended')
            self._input += data
        line, self._input = self._input.split(b'\n', 1)
        return line.decode()

    def raw(self, line):
        """The whole answer to a line."""
        self.send_raw(line.encode() + b'\n')
        return self.answer()

    def cmd(self, *words):
        """What stands behind OK."""
        line = ' '.join(hex(w) if isinstance(w, int) else w for w in words)
        answer = self.raw(line)
        if answer != 'OK' and not answer.startswith('OK '):
            raise QTestError(f'{line[:200]}: {answer}')
        return answer[3:]

    def read(self, addr, size):
        parts = []
        for at in range(0, size, PIECE):
            parts.append(bytes.fromhex(self.cmd('read', addr + at, min(PIECE, size - at))[2:]))
        return b''.join(parts)

    def write(self, addr, data):
        for at in range(0, len(data), PIECE):
            piece = data[at:at + PIECE]
            self.cmd('write', addr + at, len(piece), '0x' + piece.hex())

    def memset(self, addr, size, value):
        self.cmd('memset', addr, size, value)

    def value(self, command, addr):
        """readb, readl, inw..."""
        return int(self.cmd(command, addr), 16)

    def clock_step(self, *step_ns):
        return int(self.cmd('clock_step', *step_ns))
