# SPDX-License-Identifier: GPL-2.0-or-later
"""C spellings of schema names."""

import re

# Words a C member can't be called: keywords, and macros of the compiler or the C library.
_RESERVED = set('''auto break case char const continue default do double else enum extern float for goto
    if inline int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while asm typeof unix linux errno i386 stdin stdout stderr'''.split())


def c_name(name):
    """A member or branch: dashes become underscores, reserved words get the prefix q_."""
    name = re.sub(r'[^A-Za-z0-9_]', '_', name)
    return 'q_' + name if name in _RESERVED or name[0].isdigit() else name


def camel(name):
    """drive-mirror and BLOCK_JOB_READY to DriveMirror and BlockJobReady."""
    if name.isupper():
        name = name.lower()
    return ''.join(part[:1].upper() + part[1:] for part in re.split(r'[-_.]', name))


def upper(name):
    """BlockdevDriver to BLOCKDEV_DRIVER, NBDServer to NBD_SERVER."""
    name = re.sub(r'([A-Z]+)([A-Z][a-z])', r'\1_\2', name)
    name = re.sub(r'([a-z0-9])([A-Z])', r'\1_\2', name)
    return re.sub(r'[^A-Za-z0-9]', '_', name).upper()
