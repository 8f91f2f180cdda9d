# SPDX-License-Identifier: GPL-2.0-or-later
"""An independent record of what clients wrote, and the clients that write it over NBD.

Each writer has its own connection and its own stripes of the disk, has one request under way at a time, and puts
into the record what the server acknowledged. Stripes are no multiple of any granule or cluster, so neighbours share them.
Two questions can then be asked of an image:

  check()         it holds exactly the acknowledged writes
  check_crash()   it holds every write acknowledged before a flush that succeeded; of what came after, each sector
                  holds one of the values it has been given since
"""
import mmap
import random
import threading
import time

from .guard import HangError, time_scale
from .images import MIB, read_raw
from .peers import nbd_connect

SECTOR = 512
STRIPE = 212 * 1024 + SECTOR
CHUNK = MIB
SHOWN = 8


class Model:
    """The bytes a disk must hold. `unsure` and `recent` map a sector to the other values it may hold."""

    def __init__(self, size, initial=None):
        self.size = size
        self.data = mmap.mmap(-1, size)
        self.unsure = {}        # after a failed write or a discard
        self.recent = {}        # not covered by a flush yet; kept only by writers with crash=True
        if initial is not None:
            self.load(initial)

    def load(self, path, fmt='raw'):
        """Takes the contents of an image as what the disk holds now."""
        contents = read_raw(path, fmt)
        self.data[:len(contents)] = contents[:]

    def sectors(self, offset, length):
        return range(offset // SECTOR, -(-(offset + length) // SECTOR))

    def sector(self, number):
        return self.data[number * SECTOR:(number + 1) * SECTOR]

    def overlay(self, offset, data):
        """The sectors a write touches as they are after it: {number: bytes}."""
        first, last = offset // SECTOR, -(-(offset + len(data)) // SECTOR)
        area = bytearray(self.data[first * SECTOR:last * SECTOR])
        area[offset - first * SECTOR:offset - first * SECTOR + len(data)] = data
        return {n: bytes(area[(n - first) * SECTOR:(n - first + 1) * SECTOR]) for n in range(first, last)}

    # Questions

    def check(self, path, fmt='raw'):
        """AssertionError unless an image holds exactly the acknowledged writes."""
        self._check(path, fmt, [self.unsure])

    def check_crash(self, path, fmt='raw'):
        """AssertionError if an image lost a write that was acknowledged and flushed."""
        self._check(path, fmt, [self.unsure, self.recent])

    def _check(self, path, fmt, allowances):
        contents = read_raw(path, fmt)
        assert len(contents) == self.size, f'{path}: {len(contents)} bytes, expected {self.size}'
        wrong = []
        for start in range(0, self.size, CHUNK):
            got, expected = contents[start:start + CHUNK], self.data[start:start + CHUNK]
            if got == expected:
                continue
            for at in range(0, len(got), SECTOR):
                value = got[at:at + SECTOR]
                if value == expected[at:at + SECTOR]:
                    continue
                number = (start + at) // SECTOR
                if not any(value in allowed.get(number, ()) for allowed in allowances):
                    wrong.append((number, value))
        assert not wrong, self._explain(path, wrong)

    def _explain(self, path, wrong):
        lines = [f'{path}: {len(wrong)} sectors differ from what was acknowledged; the first at byte '
                 f'{wrong[0][0] * SECTOR}, the last at {wrong[-1][0] * SECTOR}']
        for number, value in wrong[:SHOWN]:
            found = 'zeroes' if not any(value) else value[:16].hex()
            expected = self.sector(number)
            wanted = 'zeroes' if not any(expected) else expected[:16].hex()
            lines.append(f'  sector {number}: {found} instead of {wanted}')
        return '\n'.join(lines)


class Writer(threading.Thread):
    """Random writes, zeroes, trims and flushes over one connection until stop(); `count` requests acknowledged.

    mix: relative weights of 'write', 'zero', 'trim', 'flush' (and 'read', which checks what it reads).
    rate: bytes dirtied a second, at most. align: of offsets and lengths. fatal=False: an error ends the writer
    quietly and stays in `error` (for tests that kill the server).
    """

    MIX = {'write': 16, 'zero': 2, 'flush': 1}

    def __init__(self, uri, model, seed, index=0, of=1, mix=None, sizes=(512, 4096, 65536, 131072), rate=None, align=SECTOR,
                 crash=False, fatal=True, limit=None):
        super().__init__(name=f'writer{index}', daemon=True)
        self.uri, self.model, self.index, self.of = uri, model, index, of
        self.rng = random.Random(seed * 1000 + index)
        self.mix = mix or self.MIX
        self.sizes, self.rate, self.align, self.crash, self.fatal, self.limit = sizes, rate, align, crash, fatal, limit
        self.base = random.Random(seed ^ index).randbytes(2 * max(sizes) + MIB)
        self.count = 0
        self.bytes = 0
        self.error = None
        self.latencies_ns = []
        self._stop_it = threading.Event()
        self._progress = threading.Condition()

    # Control

    def stop(self, limit_s=60):
        """Ends it after the request under way and a flush; raises what went wrong in it."""
        self._stop_it.set()
        self.finish(limit_s)

    def finish(self, limit_s=60):
        """Waits until it has made the `limit` requests it was given; raises what went wrong in it."""
        self.join(limit_s * time_scale())
        if self.is_alive():
            raise HangError(f'{self.name}: no end within {limit_s} s')
        if self.error and self.fatal:
            raise AssertionError(f'{self.name}: {self.error}') from self.error

    def wait_count(self, more, limit_s=60):
        """Waits until `more` further requests have been acknowledged: proof that clients are being served."""
        end = time.monotonic() + limit_s * time_scale()
        with self._progress:
            goal = self.count + more
            while self.count < goal:
                if self.error or not self.is_alive():
                    raise AssertionError(f'{self.name} ended: {self.error}')
                if not self._progress.wait(end - time.monotonic()):
                    raise HangError(f'{self.name}: {self.count} of {goal} requests within {limit_s} s')

    # Requests

    def run(self):
        try:
            handle = nbd_connect(self.uri)
            kinds, weights = list(self.mix), list(self.mix.values())
            while not self._stop_it.is_set() and (self.limit is None or self.count < self.limit):
                start = time.monotonic_ns()
                done = getattr(self, '_' + self.rng.choices(kinds, weights)[0])(handle)
                took = time.monotonic_ns() - start
                self.latencies_ns.append(took)
                with self._progress:
                    self.count += 1
                    self.bytes += done
                    self._progress.notify_all()
                if self.rate and done:      # a pace, not a synchronisation
                    self._stop_it.wait(max(0.0, done / self.rate - took / 1e9))
            self._flush(handle)
            handle.shutdown()
        except Exception as error:      # reported by stop()
            self.error = error
        finally:
            with self._progress:
                self._progress.notify_all()

    def _place(self):
        """A random extent within one of our stripes."""
        stripes = -(-self.model.size // STRIPE)
        mine = self.rng.randrange(-(-(stripes - self.index) // self.of)) * self.of + self.index
        start, end = mine * STRIPE, min((mine + 1) * STRIPE, self.model.size)
        length = min(self.rng.choice(self.sizes), end - start)
        if self.align < SECTOR:
            length = self.rng.randint(1, length)
        offset = start + self.rng.randrange((end - start - length) // self.align + 1) * self.align
        return offset, length

    def _change(self, offset, data, request):
        """One request that makes `data` the contents at offset."""
        model = self.model
        after = model.overlay(offset, data) if self.crash else None
        if after:
            for number, value in after.items():
                model.recent.setdefault(number, [model.sector(number)]).append(value)
        try:
            request()
        except Exception:
            for number, value in (after or model.overlay(offset, data)).items():
                model.unsure.setdefault(number, [model.sector(number)]).append(value)
            raise
        model.data[offset:offset + len(data)] = data
        if model.unsure:
            for number in model.sectors(offset, len(data)):
                model.unsure.pop(number, None)
        return len(data)

    def _write(self, handle):
        offset, length = self._place()
        start = self.rng.randrange(len(self.base) - length)
        data = self.base[start:start + length]
        return self._change(offset, data, lambda: handle.pwrite(data, offset))

    def _zero(self, handle):
        offset, length = self._place()
        return self._change(offset, bytes(length), lambda: handle.zero(length, offset))

    def _trim(self, handle):
        """Afterwards each sector holds what it held, or zeroes."""
        offset, length = self._place()
        offset, length = offset - offset % SECTOR, length - length % SECTOR
        if not length:
            return 0
        for number in self.model.sectors(offset, length):
            for held in (self.model.unsure, self.model.recent) if self.crash else (self.model.unsure,):
                held.setdefault(number, [self.model.sector(number)]).append(bytes(SECTOR))
        handle.trim(length, offset)
        return length

    def _read(self, handle):
        offset, length = self._place()
        got = handle.pread(length, offset)
        if got != self.model.data[offset:offset + length] and \
                not any(n in self.model.unsure for n in self.model.sectors(offset, length)):
            raise AssertionError(f'read of {length} bytes at {offset} differs from what was acknowledged')
        return 0

    def _flush(self, handle):
        handle.flush()
        if self.crash:      # one request at a time: everything we have written is covered
            for number in [n for n in list(self.model.recent)
                           if n * SECTOR // STRIPE % self.of == self.index and n not in self.model.unsure]:
                self.model.recent.pop(number, None)
        return 0


def run_writers(uri, model, seed, count=3, **options):
    """Starts several writers with disjoint stripes; prints the seed."""
    print(f'writers: seed {seed}, {count} of them')
    writers = [Writer(uri, model, seed, index, count, **options) for index in range(count)]
    for writer in writers:
        writer.start()
    return writers
