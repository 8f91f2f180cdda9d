# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk images: made with fixed random data, looked at with stock qemu-img and qemu-io."""
import json
import mmap
import os
import random
import subprocess
from pathlib import Path

MIB = 1 << 20
TOOL_LIMIT_S = 300


def run_tool(*command, status=(0,)):
    """Runs a tool to its end; returns its standard output. Another status is an AssertionError with its output."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors='replace', check=False,
                          stdin=subprocess.DEVNULL, timeout=TOOL_LIMIT_S)
    assert done.returncode in status, \
        f'{" ".join(map(str, command))}: status {done.returncode}\n{done.stdout}{done.stderr}'
    return done.stdout


def qemu_img(*args, status=(0,)):
    """Stock qemu-img."""
    return run_tool('qemu-img', *args, status=status)


def qemu_io(path, *commands, fmt='raw', options=(), status=(0,)):
    """Stock qemu-io on an image: qemu_io(path, 'write -P 1 0 64k', 'flush')."""
    words = [w for c in commands for w in ('-c', c)]
    return run_tool('qemu-io', '-f', fmt, *options, *words, path, status=status)


def fill(path, size, seed, data=None, chunk=64 << 10):
    """A raw file of `size` bytes: `data` bytes of it random (all by default), in chunks scattered by `seed`.

    What is not data is a hole. Prints the seed, so that a failure can be run again.
    """
    print(f'image {Path(path).name}: seed {seed}')
    rng = random.Random(seed)
    base = rng.randbytes(4 * MIB)
    chunks = -(-size // chunk)
    wanted = chunks if data is None else min(chunks, -(-data // chunk))
    chosen = range(chunks) if wanted == chunks else sorted(rng.sample(range(chunks), wanted))
    with open(path, 'wb') as file:
        file.truncate(size)
        for index in chosen:
            start = rng.randrange(0, len(base) - chunk)
            file.seek(index * chunk)
            file.write(base[start:start + min(chunk, size - index * chunk)])
    return path


def make_image(path, size, fmt='raw', seed=None, data=None, options=None, backing=None, backing_fmt='raw'):
    """An image of a format; with a seed it holds what fill() makes of it, without one it is empty."""
    more = ['-o', options] if options else []
    if seed is None:
        if backing:
            more += ['-b', str(backing), '-F', backing_fmt]
        qemu_img('create', '-q', '-f', fmt, *more, path, size)
    elif fmt == 'raw':
        fill(path, size, seed, data)
    else:
        raw = f'{path}.raw'
        fill(raw, size, seed, data)
        qemu_img('convert', '-q', '-f', 'raw', '-O', fmt, *more, raw, path)
        os.unlink(raw)
    return path


def compare(a, b, a_fmt='raw', b_fmt='raw'):
    """AssertionError unless two images have the same size and hold the same bytes, judged by stock qemu-img."""
    sizes = [json.loads(qemu_img('info', '-U', '--output=json', '-f', fmt, path))['virtual-size']
             for path, fmt in ((a, a_fmt), (b, b_fmt))]
    assert sizes[0] == sizes[1], f'{a} has {sizes[0]} bytes, {b} has {sizes[1]}'
    qemu_img('compare', '-U', '-f', a_fmt, '-F', b_fmt, a, b)


def check_qcow2(path, leaks=False):
    """AssertionError unless qemu-img check finds the image clean; leaks=True allows leaked clusters (after a crash)."""
    return qemu_img('check', '-U', '-f', 'qcow2', path, status=(0, 3) if leaks else (0,))


def map_image(path, fmt='raw'):
    """The extents of an image, as qemu-img map's JSON."""
    return json.loads(qemu_img('map', '-U', '--output=json', '-f', fmt, path))


def allocated(path):
    """Bytes the file system holds for a file."""
    return os.stat(path).st_blocks * 512


def read_raw(path, fmt='raw'):
    """The contents of an image as a read-only buffer, read by stock qemu-img unless it is raw."""
    raw = path
    if fmt != 'raw':
        raw = f'{path}.contents'
        qemu_img('convert', '-U', '-q', '-f', fmt, '-O', 'raw', path, raw)
    with open(raw, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        contents = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) if size else b''
    if raw != path:
        os.unlink(raw)
    return contents
