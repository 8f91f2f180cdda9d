# SPDX-License-Identifier: GPL-2.0-or-later
"""The QMP reference for people, in Markdown."""

from . import model


def _type(type_):
    if isinstance(type_, model.List):
        return f'array of {_type(type_.element)}'
    if isinstance(type_, model.Builtin):
        return {'str': 'string', 'bool': 'boolean', 'size': 'size (bytes)', 'any': 'any value'}.get(
            type_.name, type_.name)
    return f'[{type_.name}](#{type_.name.lower()})'


def _line(text):
    return ' '.join(text.split())


def _member(member, doc):
    notes = ['optional'] if member.optional else []
    notes += [f.name for f in member.features]
    text = f"- `{member.name}` ({', '.join([_type(member.type)] + notes)})"
    said = _line(doc.members.get(member.name, '')) if doc else ''
    return text + (f': {said}' if said else '')


def _features(item):
    lines = []
    for feature in item.features:
        said = _line(item.doc.features.get(feature.name, ''))
        lines.append(f'- feature `{feature.name}`' + (f': {said}' if said else ''))
    return lines


def _struct_body(struct, doc):
    lines = []
    if struct.base:
        lines.append(f'- all members of {_type(struct.base)}')
    lines += [_member(m, doc) for m in struct.members]
    for value, branch in struct.branches.items():
        if branch and not branch.is_empty:
            lines.append(f'- when `{struct.tag.name}` is `{value}`: all members of {_type(branch)}')
    return lines


def _arguments(item):
    if not item.arg or item.arg.is_empty:
        return []
    if item.arg.implicit:
        return [_member(m, item.doc) for m in item.arg.members]
    return [f'- all members of {_type(item.arg)}']


def _command(command):
    lines = [f'### {command.name}', '', command.doc.text, '']
    lines += _arguments(command) + _features(command) + ['']
    if command.returns:
        said = _line(command.doc.returns)
        lines += [f'Returns: {_type(command.returns)}' + (f'; {said}' if said else ''), '']
    if command.doc.errors:
        lines += [f'Errors: {_line(command.doc.errors)}', '']
    if command.allow_oob:
        lines += ['May be executed out of band.', '']
    return lines


def _definition(item):
    lines = [f'### {item.name}', '', item.doc.text, '']
    if isinstance(item, model.Enum):
        for value in item.values:
            said = _line(item.doc.members.get(value.name, ''))
            notes = ''.join(f' ({f.name})' for f in value.features)
            lines.append(f'- `{value.name}`{notes}' + (f': {said}' if said else ''))
    elif isinstance(item, model.Alternate):
        for branch in item.branches:
            said = _line(item.doc.members.get(branch.name, ''))
            lines.append(f'- {_type(branch.type)}' + (f': {said}' if said else ''))
    else:
        lines += _struct_body(item, item.doc)
    return lines + _features(item) + ['']


def text(schema):
    """The whole manual: commands, events, types, each sorted by name."""
    lines = ['% QMP reference', '', '# Commands', '']
    for command in sorted(schema.offered(), key=lambda c: c.name):
        lines += _command(command)
    lines += ['# Events', '']
    for event in sorted(schema.events, key=lambda e: e.name):
        lines += [f'### {event.name}', '', event.doc.text, ''] + _arguments(event) + ['']
    lines += ['# Types', '']
    for item in sorted(schema.types.values(), key=lambda t: t.name.lower()):
        if not getattr(item, 'implicit', False):
            lines += _definition(item)
    return '\n'.join(lines).rstrip() + '\n'
