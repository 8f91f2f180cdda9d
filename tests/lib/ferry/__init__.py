# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive a QEMU-compatible binary and its peers from tests, the benchmarks and the demo (docs/testing.md)."""
from .guard import Guard, HangError, time_scale
from .guests import build_guest
from .images import MIB, allocated, check_qcow2, compare, fill, make_image, map_image, qemu_img, qemu_io, read_raw
from .lab import Lab
from .model import Model, Writer, run_writers
from .peers import NbdServer, accept, nbd_connect, nbd_failure, nbdkit, qemu_nbd
from .qmp import QMPClient, QMPClosed, QMPError
from .qtest import QTest, QTestError
from .vmm import VMM, binary

__all__ = ['build_guest', 'Guard', 'HangError', 'Lab', 'MIB', 'Model', 'NbdServer', 'QMPClient', 'QMPClosed', 'QMPError',
           'QTest', 'QTestError', 'VMM', 'Writer',
           'accept', 'allocated', 'binary', 'check_qcow2', 'compare', 'fill', 'make_image', 'map_image', 'nbd_connect',
           'nbd_failure', 'nbdkit', 'qemu_img', 'qemu_io', 'qemu_nbd', 'read_raw', 'run_writers', 'time_scale']
