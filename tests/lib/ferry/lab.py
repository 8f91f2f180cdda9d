# SPDX-License-Identifier: GPL-2.0-or-later
"""What one test uses: a folder, binaries and servers, all gone afterwards whatever happened."""
import os
import shutil
import tempfile
from pathlib import Path

from . import peers
from .guard import Watchdog, describe_process
from .vmm import VMM

TEST_LIMIT_S = 300      # hang guard for a whole test
MIN_FREE = 1 << 30


def fast_folder():
    """A tmpfs with room if there is one; FERRY_WORK_DIR chooses the place."""
    shm = os.environ.get('FERRY_WORK_DIR') or '/dev/shm'
    if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > MIN_FREE:
        return shm
    return tempfile.gettempdir()


class Lab:
    def __init__(self, name='test', limit_s=TEST_LIMIT_S):
        self.folders = []
        self.work = self.folder(fast_folder())
        self.vms = []
        self.servers = []
        self.hang = None
        self.limit_s = limit_s
        self.watchdog = Watchdog(limit_s, self._hung) if limit_s else None

    def folder(self, where):
        """A new folder below `where`. Its path is short: unix socket paths have 107 characters."""
        path = Path(tempfile.mkdtemp(prefix='ferry-', dir=where))
        self.folders.append(path)
        return path

    def disk_folder(self):
        """A folder on a disk's file system (O_DIRECT, page cache); FERRY_DISK_DIR chooses the place."""
        return self.folder(os.environ.get('FERRY_DISK_DIR', '/var/tmp'))

    def vmm(self, *args, **options):
        return self._started(VMM(self.work, *args, **options), self.vms)

    def qemu_nbd(self, image, fmt='raw', *args, **options):
        return self._started(peers.qemu_nbd(self.work, image, fmt, *args, **options), self.servers)

    def nbdkit(self, *args, **options):
        return self._started(peers.nbdkit(self.work, *args, **options), self.servers)

    def _started(self, one, where):
        where.append(one)
        if self.hang:       # the watchdog does not look again
            one.process.kill()
        return one

    def _hung(self):
        """Runs in the watchdog's thread: record what each process does, then end the processes, which unblocks the
        test."""
        text = [f'the test did not end within {self.limit_s} s']
        for vm in self.vms:
            if vm.running():
                text += [vm.describe(), describe_process(vm.pid)]
        self.hang = '\n'.join(text)
        for one in [*self.vms, *self.servers]:
            if one.process.poll() is None:
                one.process.kill()

    def describe(self):
        text = [vm.describe() for vm in self.vms]
        text += [f'-- {s.name}: {" ".join(s.command)}\n{s.output()[-2000:]}' for s in self.servers]
        return '\n'.join(text)

    def close(self):
        """Ends everything and removes the folders (FERRY_KEEP=1 keeps them); AssertionError for what ended badly."""
        if self.watchdog:
            self.watchdog.stop()
        problems = [self.hang] if self.hang else []
        for one in [*self.vms, *self.servers]:
            try:
                if isinstance(one, VMM) and one.running() and not self.hang:
                    one.quit()
                one.close()
            except Exception as error:      # go on cleaning; reported below
                problems.append(str(error))
        for path in self.folders:
            if os.environ.get('FERRY_KEEP'):
                print(f'kept {path}')
            else:
                shutil.rmtree(path, ignore_errors=True)
        assert not problems, '\n'.join(problems)
