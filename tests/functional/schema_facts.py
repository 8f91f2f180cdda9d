# SPDX-License-Identifier: GPL-2.0-or-later
"""Two descriptions of a QMP schema in one form, and their comparison.

Both the text form of tests/functional/qmp-surface-*.txt and the reply to query-qmp-schema become a Schema:
commands, events and types, where a type is referred to by name. Names mean nothing across schemas, so types
are compared by following them from the commands and events, pair by pair.
"""

import re
from dataclasses import dataclass, field

_BUILTIN = {'str', 'int', 'number', 'bool', 'null', 'any'}


@dataclass
class Member:
    name: str
    type: str
    optional: bool
    features: frozenset


@dataclass
class Type:
    """kind: object, enum or alternate. `members` of an enum are its values with their features."""
    kind: str
    members: dict
    tag: str = ''
    branches: dict = field(default_factory=dict)    # tag value -> {member name: Member}
    choices: list = field(default_factory=list)     # of an alternate: type references


@dataclass
class Entry:
    """A command or event. Argument and result are type references; '' is nothing."""
    arg: str
    ret: str
    features: frozenset


@dataclass
class Schema:
    commands: dict = field(default_factory=dict)
    events: dict = field(default_factory=dict)
    types: dict = field(default_factory=dict)


# ---- the text form

def _split(text, separator=','):
    """Split at separators outside brackets."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += char in '{[' and 1 or 0
        depth -= char in '}]' and 1 or 0
        if char == separator and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:].strip())
    return [p for p in parts if p]


def _features(text):
    match = re.search(r'\{([^}]*)\}$', text)
    return frozenset(match.group(1).split(', ')) if match else frozenset()


def _nested(type_):
    """A branch that is a union itself is one member without a name."""
    return {'': Member('', type_, False, frozenset())}


def _text_members(text):
    members = {}
    if text.strip() == '(nothing more)':
        return members
    if re.fullmatch(r'T\d+', text):
        return _nested(text)
    for part in _split(text):
        name, type_ = part.split(': ', 1)
        features = _features(type_)
        type_ = re.sub(r' *\{[^}]*\}$', '', type_)
        members[name.lstrip('*')] = Member(name.lstrip('*'), type_, name.startswith('*'), features)
    return members


class _TextReader:
    def __init__(self):
        self.schema = Schema()
        self.last = None
        self.branch_tag = False

    def _arg(self, name, text):
        """An inline member list becomes a type of its own."""
        if not text.startswith('{'):
            return text
        body = text[1:-1].strip()
        if not body:
            return ''
        self.schema.types[name] = Type('object', _text_members(body))
        return name

    def line(self, line):
        if match := re.match(r'command (\S+) (.*) -> (\S+)(?:  \[(.*)\])?$', line):
            name, arg, ret, features = match.groups()
            self.schema.commands[name] = Entry(self._arg('arg:' + name, arg), '' if ret == '{}' else ret,
                                               frozenset((features or '').split(', ')) - {''})
        elif match := re.match(r'event (\S+) (.*?)(?:  \[(.*)\])?$', line):
            name, arg, features = match.groups()
            self.schema.events[name] = Entry(self._arg('data:' + name, arg), '',
                                             frozenset((features or '').split(', ')) - {''})
        elif match := re.match(r'object (T\d+) \{(.*)\}', line):
            self.last = self.schema.types[match.group(1)] = Type('object', _text_members(match.group(2)))
        elif match := re.match(r'enum (T\d+) = (.*)', line):
            values = {re.sub(r'\{.*', '', v): _features(v) for v in match.group(2).split(' | ')}
            self.schema.types[match.group(1)] = Type('enum', values)
        elif match := re.match(r'alternate (T\d+) = (.*)', line):
            self.schema.types[match.group(1)] = Type('alternate', {}, choices=match.group(2).split(' | '))
        elif match := re.match(r'    by (\S+):$', line):
            self.last.tag = match.group(1)
        elif match := re.match(r'      (\S+): (.*)', line):
            self.last.branches[match.group(1)] = _text_members(match.group(2))


def from_text(text):
    reader = _TextReader()
    for line in text.splitlines():
        reader.line(line)
    return reader.schema


# ---- the reply to query-qmp-schema

def _json_members(entry):
    return {m['name']: Member(m['name'], m['type'], 'default' in m, frozenset(m.get('features', [])))
            for m in entry['members']}


def from_introspection(entries):
    by_name = {(e['meta-type'] in ('command', 'event'), e['name']): e for e in entries}

    def object_(name):
        return by_name[(False, name)]

    def reference(name):
        entry = object_(name)
        empty = entry['meta-type'] == 'object' and not entry['members'] and 'tag' not in entry
        return '' if empty else name

    def branch(name):
        return _nested(name) if 'tag' in object_(name) else _json_members(object_(name))

    schema = Schema()
    for entry in entries:
        name, meta = entry['name'], entry['meta-type']
        features = frozenset(entry.get('features', []))
        if meta == 'command':
            features |= {'oob'} if entry.get('allow-oob') else set()
            schema.commands[name] = Entry(reference(entry['arg-type']), reference(entry['ret-type']), features)
        elif meta == 'event':
            schema.events[name] = Entry(reference(entry['arg-type']), '', features)
        elif meta == 'object':
            branches = {v['case']: branch(v['type']) for v in entry.get('variants', [])}
            schema.types[name] = Type('object', _json_members(entry), entry.get('tag', ''), branches)
        elif meta == 'enum':
            schema.types[name] = Type('enum', {m['name']: frozenset(m.get('features', []))
                                               for m in entry['members']})
        elif meta == 'alternate':
            schema.types[name] = Type('alternate', {}, choices=[m['type'] for m in entry['members']])
    return schema


# ---- the comparison

class Comparison:
    """Differences of `ours` from `theirs` as lines "PLACE: WHAT", each found once.

    A place is a command or event followed by members, as in "blockdev-add.driver[nbd].export". A type met
    again through another way is not described again.
    """

    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs
        self.lines = []
        self.seen = set()

    def note(self, place, what):
        self.lines.append(f'{place}: {what}')

    def run(self):
        for kind in ('commands', 'events'):
            ours, theirs = getattr(self.ours, kind), getattr(self.theirs, kind)
            for name in sorted(ours):
                if name not in theirs:
                    self.note(name, f'{kind[:-1]} of our own')
                    continue
                self._entry(name, ours[name], theirs[name])
        return self.lines

    def _entry(self, name, ours, theirs):
        for feature in sorted(ours.features ^ theirs.features):
            self.note(name, f"feature {feature} {'added' if feature in ours.features else 'missing'}")
        self._type(name, ours.arg, theirs.arg)
        if ours.ret or theirs.ret:
            self._type(name + '->', ours.ret, theirs.ret)

    def _type(self, place, ours, theirs):
        if ours.startswith('[') and theirs.startswith('['):
            self._type(place + '[]', ours[1:-1], theirs[1:-1])
            return
        plain = _BUILTIN | {''}
        if ours in plain or theirs in plain or ours.startswith('[') or theirs.startswith('['):
            if ours != theirs:
                self.note(place, f'is {self._name(self.ours, ours)}, not {self._name(self.theirs, theirs)}')
            return
        if (ours, theirs) in self.seen:
            return
        self.seen.add((ours, theirs))
        a, b = self.ours.types[ours], self.theirs.types[theirs]
        if a.kind != b.kind:
            self.note(place, f'is {a.kind}, not {b.kind}')
        elif a.kind == 'enum':
            self._enum(place, a, b)
        elif a.kind == 'alternate':
            self._alternate(place, a, b)
        else:
            self._object(place, a, b)

    @staticmethod
    def _name(schema, reference):
        if reference.startswith('['):
            return 'an array'
        return schema.types[reference].kind if reference in schema.types else reference or 'nothing'

    def _enum(self, place, ours, theirs):
        for value in ours.members:
            if value not in theirs.members:
                self.note(place, f'value {value} added')
            elif ours.members[value] != theirs.members[value]:
                self.note(place, f'value {value} has other features')
        for value in theirs.members:
            if value not in ours.members:
                self.note(place, f'value {value} missing')

    def _kinds(self, schema, choices):
        """Branches by what tells them apart."""
        return {self._name(schema, c): c for c in choices}

    def _alternate(self, place, ours, theirs):
        a, b = self._kinds(self.ours, ours.choices), self._kinds(self.theirs, theirs.choices)
        for kind in a:
            if kind in b:
                self._type(f'{place}<{kind}>', a[kind], b[kind])
            else:
                self.note(place, f'alternative {kind} added')
        for kind in b:
            if kind not in a:
                self.note(place, f'alternative {kind} missing')

    def _object(self, place, ours, theirs):
        if ours.tag != theirs.tag:
            self.note(place, f"tag is '{ours.tag}', not '{theirs.tag}'")
        self._members(place, ours.members, theirs.members)
        for value, members in ours.branches.items():
            # A value of the tag that they lack is noted with its enum.
            if value in theirs.branches:
                self._members(f'{place}[{value}]', members, theirs.branches[value])

    def _members(self, place, ours, theirs):
        for name, member in ours.items():
            at = f'{place}.{name}'
            if name not in theirs:
                self.note(at, 'added')
                continue
            other = theirs[name]
            if member.optional != other.optional:
                self.note(at, 'optional' if member.optional else 'not optional')
            if member.features != other.features:
                self.note(at, 'has other features')
            self._type(at, member.type, other.type)
        for name in theirs:
            if name not in ours:
                self.note(f'{place}.{name}', 'missing')


def compare(ours, theirs):
    return Comparison(ours, theirs).run()
