# SPDX-License-Identifier: GPL-2.0-or-later
"""The reply to query-qmp-schema: qapi-introspect.c, or the JSON itself.

Only what an offered command or an event can reach is described. Names of types are no part of the
interface, so they are replaced by numbers.
"""

import json

from . import model

_MASKED = {'str': 'str', 'bool': 'bool', 'number': 'number', 'null': 'null', 'any': 'any'}


class _Introspection:
    def __init__(self):
        self.entries = []
        self.numbers = {}
        self.todo = []

    def _number(self, key, item):
        if key not in self.numbers:
            self.numbers[key] = str(len(self.numbers))
            self.todo.append(item)
        return self.numbers[key]

    def use(self, type_):
        """The name to refer to a type by; None is the empty object."""
        if type_ is None:
            return self._number('', None)
        if isinstance(type_, model.Builtin):
            name = _MASKED.get(type_.name, 'int')
            if ('b', name) not in self.numbers:
                self.numbers[('b', name)] = None
                self.entries.append({'name': name, 'json-type': type_.json, 'meta-type': 'builtin'})
            return name
        if isinstance(type_, model.List):
            element = self.use(type_.element)
            name = f'[{element}]'
            if ('l', name) not in self.numbers:
                self.numbers[('l', name)] = None
                self.entries.append({'name': name, 'element-type': element, 'meta-type': 'array'})
            return name
        return self._number(type_.name, type_)

    def add(self, name, meta, features, **body):
        body = {'name': name, **{k.replace('_', '-'): v for k, v in body.items()}}
        if features:
            body['features'] = [f.name for f in features]
        body['meta-type'] = meta
        self.entries.append(body)

    def _member(self, member):
        entry = {'name': member.name, 'type': self.use(member.type)}
        if member.optional:
            entry['default'] = None
        if member.features:
            entry['features'] = [f.name for f in member.features]
        return entry

    def _describe(self, item):
        if item is None:
            self.add(self.numbers[''], 'object', [], members=[])
            return
        name = self.numbers[item.name]
        if isinstance(item, model.Enum):
            values = [{'name': v.name, **({'features': [f.name for f in v.features]} if v.features else {})}
                      for v in item.values]
            self.add(name, 'enum', item.features, members=values, values=[v.name for v in item.values])
        elif isinstance(item, model.Alternate):
            self.add(name, 'alternate', item.features,
                     members=[{'type': self.use(b.type)} for b in item.branches])
        else:
            body = {'members': [self._member(m) for m in item.all_members()]}
            if item.tag:
                body['tag'] = item.tag.name
                body['variants'] = [{'case': value, 'type': self.use(branch)}
                                    for value, branch in item.branches.items()]
            self.add(name, 'object', item.features, **body)

    def finish(self):
        while self.todo:
            self._describe(self.todo.pop(0))
        return self.entries


def _arg(item):
    return item.arg if item.arg and not item.arg.is_empty else None


def describe(schema):
    """The list of SchemaInfo objects."""
    intro = _Introspection()
    for command in schema.offered():
        oob = {'allow_oob': True} if command.allow_oob else {}
        intro.add(command.name, 'command', command.features, arg_type=intro.use(_arg(command)),
                  ret_type=intro.use(command.returns), **oob)
    for event in schema.events:
        intro.add(event.name, 'event', event.features, arg_type=intro.use(_arg(event)))
    return intro.finish()


def text(schema):
    return json.dumps(describe(schema), separators=(', ', ': '))


def generate(schema, out):
    lines = ['#include "qapi/dispatch.h"', '', 'const char qmp_schema_text[] =']
    entries = [json.dumps(e, separators=(', ', ': ')) for e in describe(schema)]
    for i, entry in enumerate(entries):
        entry = ('[' if i == 0 else '') + entry + (', ' if i + 1 < len(entries) else ']')
        lines.append('    "' + entry.replace('\\', '\\\\').replace('"', '\\"') + '"')
    out.source('qapi-introspect.c', 'the reply to query-qmp-schema', '\n'.join(lines) + ';\n')
