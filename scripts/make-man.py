#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Fills @OPTIONS@ of the manual page with what the program prints for -help.

usage: make-man.py PROGRAM TEMPLATE OUTPUT
"""
import subprocess
import sys


def roff(text):
    text = text.replace('\\', '\\e').replace('-', '\\-')
    return '\\&' + text if text.startswith(('.', "'")) else text


def options(help_text):
    """-help has a group title at the left margin, then options two columns in, and their descriptions further in."""
    lines = []
    for line in help_text.splitlines()[2:]:
        if not line.strip():
            continue
        if not line.startswith(' '):
            if line.endswith(':'):
                lines.append(f'.SS {roff(line.rstrip(":"))}')
        elif line.startswith('  -'):
            name, _, text = line.strip().partition('  ')
            lines += ['.TP', f'.B {roff(name)}']
            if text.strip():
                lines.append(roff(text.strip()))
        else:
            lines.append(roff(line.strip()))
    return '\n'.join(lines)


def main():
    program, template, output = sys.argv[1:]
    help_text = subprocess.run([program, '-help'], check=True, capture_output=True, text=True).stdout
    with open(template, encoding='utf-8') as f:
        page = f.read()
    with open(output, 'w', encoding='utf-8') as f:
        f.write(page.replace('@OPTIONS@', options(help_text)))


if __name__ == '__main__':
    main()
