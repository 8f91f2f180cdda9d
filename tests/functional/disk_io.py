# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests on a node through an NBD export, answered by whether they succeeded."""
import nbd

import ferry


class Disk:
    """A node of a binary, exported and connected to."""

    def __init__(self, vm, node='disk', writable=True):
        self.vm, self.node, self.writable = vm, node, writable
        self.connect()

    def connect(self):
        self.client = ferry.nbd_connect(self.vm.export(self.node, name=f'io-{self.node}', writable=self.writable))

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

    def resize(self, size):
        """Clients are promised the size they were told, so this one leaves first and comes back."""
        self.client.shutdown()
        self.vm.cmd('block-export-del', id=f'export-io-{self.node}', mode='hard')
        self.vm.wait('BLOCK_EXPORT_DELETED', id=f'export-io-{self.node}')
        self.vm.cmd('block_resize', node_name=self.node, size=size)
        self.connect()
