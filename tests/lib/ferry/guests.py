# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of a few instructions, assembled from tests/guests."""
import subprocess
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / 'guests'


def build_guest(name, folder):
    """The ELF file of tests/guests/multiboot-NAME.S, made in `folder`."""
    path = folder / f'{name}.elf'
    linker = f'-Wl,-T,{SOURCES}/multiboot.ld,--build-id=none,--no-warn-rwx-segments'
    subprocess.run(['cc', '-m32', '-nostdlib', '-static', f'-I{SOURCES.parents[1]}', linker, '-o', path, SOURCES / f'multiboot-{name}.S'],
                   check=True, timeout=60)
    return str(path)
