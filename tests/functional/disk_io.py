# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests on a node through an NBD export, answered by whether they succeeded."""
import nbd

import ferry


class Disk:
    """A node of a binary, exported and connected to."""

    def __init__(self, vm, node='disk', writable=True):
        self.client = ferry.nbd_connect(vm.export(node, name=f'io-{node}', writable=writable))

    def _try(self, call, *args):
        try:
            call(*args)
        except nbd.Error:
            return False
        return True

    def write(self, pattern, offset, size):
        return self._try(self.client.pwrite, bytes([pattern]) * size, offset)

    def holds(self, pattern, offset, size):
        """True when the bytes can be read and all are `pattern`; None when they cannot be read."""
        try:
            return bytes(self.client.pread(size, offset)) == bytes([pattern]) * size
        except nbd.Error:
            return None

    def flush(self):
        return self._try(self.client.flush)

    def close(self):
        self.client.shutdown()
