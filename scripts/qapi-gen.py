#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compile the QAPI schema: see scripts/qapi/__init__.py."""

import argparse
import re
import sys

from qapi import build, commands, ctypes_, events, introspect, output, reference, source


def _macros(path):
    if not path:
        return set()
    with open(path, encoding='utf-8') as file:
        return set(re.findall(r'^#define +(\w+)', file.read(), re.M))


def _parse_args():
    parser = argparse.ArgumentParser(description='Compile the QAPI schema into C and documentation.')
    parser.add_argument('schema', help='the schema file that includes all others')
    parser.add_argument('--config', help='header whose macros decide conditions')
    parser.add_argument('-D', dest='defines', action='append', default=[], metavar='MACRO',
                        help='a macro that is defined')
    parser.add_argument('-o', dest='folder', default='.', help='where the files go')
    parser.add_argument('--depfile', help='write a make rule with the schema files read')
    parser.add_argument('--reference', metavar='FILE', help='write only the manual')
    parser.add_argument('--introspect-only', action='store_true',
                        help='print the reply to query-qmp-schema and write nothing')
    parser.add_argument('--with-pending', action='store_true', help='count pending commands as offered')
    return parser.parse_args()


def main():
    args = _parse_args()
    reader = source.Reader()
    try:
        reader.read(args.schema)
        schema = build.build(reader, _macros(args.config) | set(args.defines))
    except (source.SchemaError, OSError) as error:
        print(f'qapi-gen: {error}', file=sys.stderr)
        return 1
    if args.with_pending:
        for command in schema.commands:
            command.pending = False
    if args.introspect_only:
        print(introspect.text(schema))
        return 0
    if args.reference:
        out = output.Output('')
        out.write(args.reference, reference.text(schema))
    else:
        out = output.Output(args.folder)
        for generator in (ctypes_, commands, events, introspect):
            generator.generate(schema, out)
    if args.depfile:
        target = args.reference or f'{args.folder}/qapi-types.h'
        out.write(args.depfile, f'{target}: ' + ' '.join(reader.deps) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
