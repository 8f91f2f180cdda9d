#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Mirror a live disk under write load, then migrate a guest that rewrites its memory, and prove that nothing was lost.

Called by scripts/demo, which installs and builds first. Works with any QEMU-compatible binary (--binary).
"""
import argparse
import contextlib
import io
import os
import shlex
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tests' / 'lib'))

import demo_guest   # noqa: E402  the path is set just above
import ferry        # noqa: E402
from ferry import stock     # noqa: E402
from ferry.guard import Watchdog, describe_process     # noqa: E402
from ferry.images import MIB, qemu_img        # noqa: E402

WRITERS = 3
WRITER_RATE = 8 * MIB       # bytes a second each
MIRROR_SPEED = 160 * MIB    # slow enough to watch
TICK_S = 0.1
STALL_S = 300               # hang guard: an act in which nothing moves for so long is given up
LOG_PERIOD_S = 10           # between lines of progress in a log
LAST_WORDS = 12             # lines of a program's standard error that are shown when it failed
ACTS = {
    'raw': 'a raw file to a raw file',
    'qcow2': 'a qcow2 image to a qcow2 image',
    'nbd': 'a raw file to an NBD server (stock qemu-nbd)',
}
GUEST_ACTS = {
    'guest': 'from Ferry to Ferry',
    'stock': 'from stock QEMU to Ferry and back',
}


class Failed(Exception):
    """What went wrong, in words for a user."""


class Screen:
    """Plain lines, and one line that is drawn over on a terminal or repeated now and then in a log."""

    def __init__(self):
        self.tty = sys.stdout.isatty()
        self.drawn = False
        self.least = None       # bytes that were left when there were fewest
        self.shown = None       # the last line of progress in a log: (when, tens of per cent)
        self.last = ''
        self.moved = time.monotonic()

    def sign_of_life(self, text):
        """Another text than before is progress: the guard against standstill waits on."""
        if text != self.last:
            self.last, self.moved = text, time.monotonic()

    def line(self, text=''):
        self.sign_of_life(text)
        if self.drawn:
            print()
            self.drawn = False
        print(text, flush=True)

    def step(self, text):
        self.line(f'  {text}')

    def draw(self, text, moved=True):
        if moved:
            self.sign_of_life(text)
        if self.tty:
            print(f'\r{text}\033[K', end='', flush=True)
            self.drawn = True

    def progress(self, remaining, percent, text):
        """Only what is less than ever before counts as progress: a mirror may run after its guest for ever."""
        if self.least is None or remaining < self.least:
            self.least = remaining
            self.sign_of_life(f'{percent:.1f} %, {text}')
        if self.tty:
            filled = int(percent * 30 / 100)
            self.draw(f'  [{"#" * filled}{"." * (30 - filled)}] {percent:5.1f} %  {text}', moved=False)
            return
        now, tens = time.monotonic(), int(percent) // 10
        if self.shown is None or tens > self.shown[1] or now - self.shown[0] >= LOG_PERIOD_S:
            self.shown = now, max(tens, self.shown[1] if self.shown else 0)
            print(f'  {percent:5.1f} %  {text}', flush=True)


def size(count):
    return f'{count / 2**30:.2f} GiB' if count >= 2**30 else f'{count / MIB:.0f} MiB'


def make_disk(lab, act, options):
    """The disk with random data, the record of what it holds, and the arguments that open it."""
    fmt = 'qcow2' if act == 'qcow2' else 'raw'
    total = options.size * MIB
    with contextlib.redirect_stdout(io.StringIO()):     # the seed is told above
        raw = ferry.fill(lab.work / 'seed.raw', total, options.seed, data=total * 6 // 10)
    model = ferry.Model(total, raw)
    disk = lab.work / f'disk.{fmt}'
    if fmt == 'raw':
        raw.rename(disk)
    else:
        qemu_img('convert', '-f', 'raw', '-O', fmt, raw, disk)
        raw.unlink()
    return disk, fmt, model


def make_target(lab, act, options):
    """Arguments of drive-mirror that name the copy, and where to look at it afterwards."""
    if act != 'nbd':
        copy = lab.work / f'copy.{act}'
        return {'target': str(copy), 'format': act}, copy, act, None
    copy = ferry.make_image(lab.work / 'copy.raw', options.size * MIB)
    server = lab.qemu_nbd(copy, export='copy')
    return {'target': server.uri, 'format': 'raw', 'mode': 'existing'}, copy, 'raw', server


def watch(vm, screen, until):
    """Draws the job's progress until an event of this name comes; returns the event."""
    start = time.monotonic()
    while True:
        found = vm.seen(until, device='demo') or vm.seen('BLOCK_JOB_COMPLETED', device='demo')
        job = vm.block_job('demo')
        if job and job['len']:
            took = time.monotonic() - start
            rate = job['offset'] / took if took > 0.2 else 0
            remaining = job['len'] - job['offset']
            left = f'{size(remaining)} left'
            screen.progress(remaining, 100 * job['offset'] / job['len'],
                            f'{size(job["offset"])} of {size(job["len"])}  {rate / MIB:4.0f} MiB/s  {left}')
        if found:
            return vm.wait(found[0]['event'], device='demo')
        time.sleep(TICK_S)      # how often the line is drawn


def served(writers):
    return sum(w.count for w in writers)


def mirror(lab, act, options, screen):
    """One act; returns how many requests the clients had acknowledged in all and after the pivot."""
    screen.step(f'making a disk of {size(options.size * MIB)} with random data (seed {options.seed})')
    disk, fmt, model = make_disk(lab, act, options)
    target, copy, copy_fmt, server = make_target(lab, act, options)
    node = f'driver={fmt},node-name=disk,file.driver=file,file.filename={disk}'
    if fmt == 'raw':
        node += ',discard=unmap'
    vm = lab.vmm('-blockdev', node, command=options.binary and shlex.split(options.binary))
    version = vm.qmp.greeting['version']
    screen.step(f'{Path(vm.argv[0]).name} {version.get("package") or version["qemu"]} is up after {vm.startup_s * 1000:.0f} ms')

    uri = vm.export('disk')
    with contextlib.redirect_stdout(io.StringIO()):
        writers = ferry.run_writers(uri, model, options.seed, WRITERS, rate=WRITER_RATE, sizes=(512, 4096, 65536))
    for writer in writers:
        writer.wait_count(20)
    screen.step(f'{WRITERS} NBD clients write to it, {size(WRITERS * WRITER_RATE)}/s together')

    screen.step(f'drive-mirror to {target["target"].replace(str(lab.work) + "/", "")}')
    vm.cmd('drive-mirror', job_id='demo', device='disk', sync='full', speed=MIRROR_SPEED, **target)
    start = time.monotonic()
    event = watch(vm, screen, 'BLOCK_JOB_READY')
    if event['event'] != 'BLOCK_JOB_READY':
        raise Failed(f'the mirror ended before both disks were in step: {event["data"].get("error", "it was cancelled")}')
    screen.step(f'READY after {time.monotonic() - start:.1f} s: source and copy are in step')

    for writer in writers:
        writer.wait_count(100)      # a while in phase two
    before = served(writers)
    start = time.monotonic()
    vm.cmd('block-job-complete', device='demo')
    event = vm.wait('BLOCK_JOB_COMPLETED', device='demo')
    if 'error' in event['data']:
        raise Failed(f'the disk could not be switched over to the copy: {event["data"]["error"]}')
    screen.step(f'pivoted to the copy in {(time.monotonic() - start) * 1000:.0f} ms while the clients kept writing')
    for writer in writers:
        writer.wait_count(50)       # these go to the copy alone
    for writer in writers:
        writer.stop()
    vm.quit()
    if server:
        server.close()

    record = lab.work / 'record.raw'
    with open(record, 'wb') as file:
        for start in range(0, model.size, MIB):
            chunk = model.data[start:start + MIB]
            if any(chunk):
                file.seek(start)
                file.write(chunk)
        file.truncate(model.size)
    screen.step('qemu-img compare: the copy against the record of every acknowledged write')
    ferry.compare(record, copy, 'raw', copy_fmt)
    if copy_fmt == 'qcow2':
        ferry.check_qcow2(copy)
        screen.step('qemu-img check: no errors')
    return served(writers), served(writers) - before


def last_words(lab, error):
    """What the programs of an act said before it failed, and which of them have ended."""
    _, _, said = str(error).partition('-- output:\n')       # of one that did not come up
    lines = ['    it said last:', *('      ' + line for line in said.splitlines()[-LAST_WORDS:])] if said and not lab.vms else []
    for one in [*lab.vms, *lab.servers]:
        status = one.process.poll() if one.process else None
        said = (one.stderr() if isinstance(one, ferry.VMM) else one.output()).strip().splitlines()
        if status is not None:
            how = f'was ended by {signal.Signals(-status).name}' if status < 0 else f'ended with status {status}'
            lines.append(f'    {one.name} {how}')
        if said:
            lines += [f'    {one.name} said last:', *('      ' + line for line in said[-LAST_WORDS:])]
    return '\n'.join(lines)


class Standstill:
    """Ends the programs of an act when nothing has moved for STALL_S, however long the act takes as long as something moves."""

    def __init__(self, lab, screen):
        self.lab, self.screen = lab, screen
        self.text = None
        self._arm(STALL_S)

    def _arm(self, seconds):
        self.watchdog = Watchdog(seconds, self._look)

    def _look(self):
        left = self.screen.moved + STALL_S * ferry.time_scale() - time.monotonic()
        if left > 0:
            self._arm(left / ferry.time_scale())
            return
        alive = [one for one in [*self.lab.vms, *self.lab.servers] if one.process.poll() is None]
        self.text = '\n'.join([f'nothing moved for {STALL_S} s, after: {self.screen.last.strip()}',
                               *(describe_process(one.process.pid) for one in alive)])
        for one in alive:
            one.process.kill()

    def stop(self):
        self.watchdog.stop()


def first_sentence(error):
    """The cause, without the traffic of monitors, which helps only the author of a test."""
    text = str(error).splitlines()
    return text[0] if text else type(error).__name__


def guarded(screen, act):
    """Runs act(lab) in a laboratory that is gone afterwards; its result, or None after telling what went wrong."""
    screen.shown = screen.least = None
    lab = ferry.Lab(limit_s=None)
    guard = Standstill(lab, screen)
    result = error = None
    try:
        result = act(lab)
    except Exception as caught:     # told to the user below
        error = caught
    finally:
        guard.stop()
        words = last_words(lab, error) if error or guard.text else ''
        try:
            lab.close()
        except Exception as caught:
            error = error or caught
    if error or guard.text:
        screen.line(f'  FAILED: {guard.text or first_sentence(error)}')
        if words:
            screen.line(words)
        if os.environ.get('FERRY_VERBOSE') and error:
            screen.line(str(error))
        return None
    return result


def play_mirror(act, options, screen):
    """True if the copy is right."""
    screen.line()
    screen.line(f'== mirror {ACTS[act]}')
    counts = guarded(screen, lambda lab: mirror(lab, act, options, screen))
    if counts:
        screen.line(f'  IDENTICAL: {counts[0]} requests of clients, {counts[1]} of them during or after the pivot; none lost')
    return bool(counts)


def play_guest(act, options, screen):
    """True if the memory is right after each move."""
    screen.line()
    screen.line(f'== migrate a guest {GUEST_ACTS[act]}')
    own = options.binary and shlex.split(options.binary)
    hosts = [('ferry-1', own), ('ferry-2', own)]
    if act == 'stock':
        other = stock.distribution()
        if not other:
            screen.step('skipped: there is no stock qemu-system-x86_64 on this machine')
            return True
        hosts = [('qemu-1', other), ('ferry', own), ('qemu-2', other)]

    def moves(lab):
        demo_guest.play(lab, screen, hosts, options.seed)
        return True
    return bool(guarded(screen, moves))


def play(act, options, screen):
    return (play_mirror if act in ACTS else play_guest)(act, options, screen)


def main():
    parser = argparse.ArgumentParser(prog='scripts/demo', description=__doc__.splitlines()[0])
    for act, title in ACTS.items():
        parser.add_argument(f'--{act}', dest='acts', action='append_const', const=act, help=f'only: mirror {title}')
    for act, title in GUEST_ACTS.items():
        parser.add_argument(f'--{act}', dest='acts', action='append_const', const=act, help=f'only: migrate {title}')
    parser.add_argument('--size', type=int, default=512, metavar='MIB', help='size of the disk [512]')
    parser.add_argument('--seed', type=int, default=2026, help='of the random data and writes')
    parser.add_argument('--binary', help='a QEMU-compatible binary instead of the one built here')
    options = parser.parse_args()
    if os.environ.get('PARSE_ONLY'):        # scripts/parse-first
        return 0

    def end(number, frame):
        signal.signal(number, signal.SIG_IGN)       # once: what follows cleans up
        raise KeyboardInterrupt(signal.Signals(number).name)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    os.environ.pop('FERRY_BINARY', None)
    screen = Screen()
    screen.line('Ferry moves disks and guests while they are written to, and nothing that was written is lost.')
    try:
        failed = [act for act in options.acts or [*ACTS, *GUEST_ACTS] if not play(act, options, screen)]
    except KeyboardInterrupt as signal_name:
        screen.line(f'demo: ended by {signal_name}; its programs and files are gone')
        return 130
    screen.line()
    screen.line(f'demo: {", ".join(failed)} failed' if failed else 'demo: every copy is right, of disks and of memory')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
