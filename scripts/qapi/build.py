# SPDX-License-Identifier: GPL-2.0-or-later
"""Expressions to the checked model: every rule of the language is enforced here.

A condition ('if') is decided here too, against the macros that config-host.h defines: what is switched off is not in
the model. So C types, introspection and manual always agree.
"""

import re

from . import model
from .names import c_name, camel
from .source import Obj, SchemaError

_KEYS = {
    'enum': {'data', 'prefix'},
    'struct': {'data', 'base'},
    'union': {'data', 'base', 'discriminator'},
    'alternate': {'data'},
    'command': {'data', 'boxed', 'returns', 'gen', 'success-response', 'allow-oob', 'allow-preconfig',
                'coroutine', 'off-main', 'at-end'},
    'event': {'data', 'boxed'},
}
_COMMON = {'if', 'features'}
_NEEDED = {'enum': {'data'}, 'struct': {'data'}, 'union': {'data', 'base', 'discriminator'},
           'alternate': {'data'}, 'command': set(), 'event': set()}
_FLAGS = {'boxed', 'gen', 'success-response', 'allow-oob', 'allow-preconfig', 'coroutine', 'off-main',
          'at-end'}


class Builder:
    """Builds a Schema in three passes: names, contents, rules that need the whole."""

    def __init__(self, reader, config):
        self.reader, self.config = reader, config
        self.schema = model.Schema(reader.modules, reader.includes)
        self.todo = []
        self.c_names = {}

    def build(self):
        for expr in self.reader.exprs:
            self._declare(expr)
        order = {'enum': 0, 'struct': 1, 'union': 2, 'alternate': 3, 'command': 4, 'event': 5}
        self.todo.sort(key=lambda item: order[item[0]])
        for kind, body, item in self.todo:
            getattr(self, '_fill_' + kind)(body, item)
        for kind, body, item in self.todo:
            if kind in ('struct', 'union'):
                self._check_struct(item)
            elif kind == 'alternate':
                self._check_alternate(item)
        self._check_pending()
        self._check_docs()
        self._drop_empty_modules()
        return self.schema

    # ---- pass 1: names

    def _declare(self, expr):
        body = expr.body
        kinds = [k for k in body if k in _KEYS]
        if len(kinds) != 1:
            raise SchemaError(body.where, 'a definition needs one of: ' + ', '.join(sorted(_KEYS)))
        kind = kinds[0]
        name = body[kind]
        if not isinstance(name, str) or not re.fullmatch(r'(x-)?[A-Za-z][A-Za-z0-9_-]*', name):
            raise SchemaError(body.where, f"the name of a {kind} must be letters, digits, '-' and '_'")
        what = f"{kind} '{name}'"
        for key in body:
            if key not in _KEYS[kind] | _COMMON | {kind}:
                raise SchemaError(body.at[key], f"{what} has unknown key '{key}'")
        for key in sorted(_NEEDED[kind] - set(body)):
            raise SchemaError(body.where, f"{what} lacks key '{key}'")
        for key in sorted(_FLAGS & set(body)):
            if not isinstance(body[key], bool):
                raise SchemaError(body.at[key], f"'{key}' of {what} must be true or false")
        self._check_doc_name(expr, what, name)
        if not self._enabled(body, what):
            return
        features = self._features(body, what)
        cls = {'enum': model.Enum, 'struct': model.Struct, 'union': model.Struct,
               'alternate': model.Alternate, 'command': model.Command, 'event': model.Event}[kind]
        item = cls(name, body.where, expr.module, expr.doc, features)
        if kind in ('command', 'event'):
            self._claim(f"{kind} {name}", what, body.where)
            (self.schema.commands if kind == 'command' else self.schema.events).append(item)
        else:
            self._add_type(item, what)
        self.todo.append((kind, body, item))

    def _add_type(self, item, what):
        if not re.fullmatch(r'[A-Z][A-Za-z0-9]*', item.name):
            raise SchemaError(item.where, f"{what}: type names are written in CamelCase")
        if item.name.endswith('List'):
            raise SchemaError(item.where, f"{what}: names ending in 'List' are kept for lists")
        self._claim(item.name, what, item.where)
        self.schema.types[item.name] = item

    def _claim(self, name, what, where):
        other = self.c_names.get(name)
        if other:
            raise SchemaError(where, f"{what} is already defined at {other}")
        self.c_names[name] = where

    @staticmethod
    def _check_doc_name(expr, what, name):
        if not expr.doc:
            raise SchemaError(expr.body.where, f"{what} lacks documentation")
        if expr.doc.name != name:
            raise SchemaError(expr.doc.where, f"documentation of '{expr.doc.name}' stands before {what}")

    # ---- conditions and features

    def _enabled(self, obj, what):
        return 'if' not in obj or self._condition(obj['if'], obj.at['if'], what)

    def _condition(self, cond, where, what):
        if isinstance(cond, str) and re.fullmatch(r'[A-Z][A-Z0-9_]*', cond):
            return cond in self.config
        if isinstance(cond, Obj) and len(cond) == 1:
            (key, value), = cond.items()
            if key == 'not':
                return not self._condition(value, where, what)
            if key in ('all', 'any') and isinstance(value, list) and value:
                results = [self._condition(v, where, what) for v in value]
                return all(results) if key == 'all' else any(results)
        raise SchemaError(where, f"'if' of {what} must be a macro name, or an object with one of "
                          "'all', 'any', 'not'")

    def _features(self, obj, what):
        features = []
        for entry in self._list(obj, 'features', what):
            entry = self._named(entry, obj.at.get('features'), f"a feature of {what}")
            if self._enabled(entry, what):
                features.append(model.Feature(entry['name']))
        return features

    def _list(self, obj, key, what):
        value = obj.get(key, [])
        if not isinstance(value, list):
            raise SchemaError(obj.at[key], f"'{key}' of {what} must be an array")
        return value

    @staticmethod
    def _named(entry, where, what, allowed=('if',)):
        """'x' is short for { 'name': 'x' }."""
        if isinstance(entry, str):
            obj = Obj(where)
            obj['name'], obj.at['name'] = entry, where
            return obj
        if not isinstance(entry, Obj) or not isinstance(entry.get('name'), str):
            raise SchemaError(where, f"{what} must be a name or an object with a 'name'")
        for key in entry:
            if key != 'name' and key not in allowed:
                raise SchemaError(entry.at[key], f"{what} has unknown key '{key}'")
        return entry

    # ---- pass 2: contents

    def _fill_enum(self, body, enum):
        what = f"enum '{enum.name}'"
        enum.prefix = body.get('prefix', '')
        seen = set()
        for entry in self._list(body, 'data', what):
            entry = self._named(entry, body.at['data'], f"a value of {what}", ('if', 'features'))
            if c_name(entry['name']).lower() in seen:
                raise SchemaError(body.at['data'], f"{what} has value '{entry['name']}' twice")
            seen.add(c_name(entry['name']).lower())
            if self._enabled(entry, what):
                enum.values.append(model.EnumValue(entry['name'], self._features(entry, what)))

    def _type(self, ref, where, what):
        if isinstance(ref, list):
            if len(ref) != 1 or not isinstance(ref[0], str):
                raise SchemaError(where, f"{what}: an array type is written ['ELEMENT']")
            element = self._type(ref[0], where, what)
            if element.name not in self.schema.lists:
                if element.name == 'null':
                    raise SchemaError(where, f"{what}: there are no arrays of null")
                self.schema.lists[element.name] = model.List(element)
            return self.schema.lists[element.name]
        found = isinstance(ref, str) and (model.BUILTINS.get(ref) or self.schema.types.get(ref))
        if not found:
            raise SchemaError(where, f"{what} uses unknown type '{ref}'")
        return found

    def _struct_ref(self, ref, where, what):
        found = self._type(ref, where, what)
        if not isinstance(found, model.Struct):
            raise SchemaError(where, f"{what} must be a struct or union, '{ref}' is not")
        return found

    def _members(self, data, where, what):
        if not isinstance(data, Obj):
            raise SchemaError(where, f"'data' of {what} must be an object")
        members = []
        for key, value in data.items():
            at = data.at[key]
            name = key[1:] if key.startswith('*') else key
            title = f"member '{name}' of {what}"
            if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_.-]*', name) or name in ('u', 'has'):
                raise SchemaError(at, f"{title}: this name can't be used")
            if name.startswith(('has-', 'has_')):
                raise SchemaError(at, f"{title}: names starting with 'has' are kept for presence")
            features = []
            if isinstance(value, Obj):
                for sub in value:
                    if sub not in ('type', 'if', 'features'):
                        raise SchemaError(value.at[sub], f"{title} has unknown key '{sub}'")
                if 'type' not in value:
                    raise SchemaError(at, f"{title} lacks key 'type'")
                if not self._enabled(value, title):
                    continue
                features = self._features(value, title)
                value = value['type']
            if value == 'null':
                raise SchemaError(at, f"{title}: 'null' is for alternates only")
            members.append(model.Member(name, self._type(value, at, title), key.startswith('*'),
                                        features, at))
        return members

    def _fill_struct(self, body, struct):
        what = f"struct '{struct.name}'"
        if 'base' in body:
            struct.base = self._struct_ref(body['base'], body.at['base'], f"'base' of {what}")
        struct.members = self._members(body['data'], body.at['data'], what)

    def _fill_union(self, body, union):
        what = f"union '{union.name}'"
        if isinstance(body['base'], Obj):
            union.members = self._members(body['base'], body.at['base'], what)
        else:
            union.base = self._struct_ref(body['base'], body.at['base'], f"'base' of {what}")
        tag = body['discriminator']
        union.tag = next((m for m in union.all_members() if m.name == tag), None)
        where = body.at['discriminator']
        if not union.tag:
            raise SchemaError(where, f"discriminator '{tag}' of {what} is not a member of its base")
        if not isinstance(union.tag.type, model.Enum) or union.tag.optional:
            raise SchemaError(where, f"discriminator '{tag}' of {what} must be an enum, not optional")
        self._fill_branches(body, union, what)

    def _fill_branches(self, body, union, what):
        data = body['data']
        if not isinstance(data, Obj):
            raise SchemaError(body.at['data'], f"'data' of {what} must be an object")
        values = [v.name for v in union.tag.type.values]
        branches = {}
        for key, value in data.items():
            title = f"branch '{key}' of {what}"
            if isinstance(value, Obj):
                if set(value) - {'type', 'if'} or 'type' not in value:
                    raise SchemaError(data.at[key], f"{title} must be a type, or 'type' and 'if'")
                if not self._enabled(value, title):
                    continue
                value = value['type']
            if key not in values:
                raise SchemaError(data.at[key], f"{title} is not a value of enum "
                                  f"'{union.tag.type.name}'")
            branches[key] = self._struct_ref(value, data.at[key], title)
        union.branches = {value: branches.get(value) for value in values}

    def _fill_alternate(self, body, alt):
        what = f"alternate '{alt.name}'"
        data = body['data']
        if not isinstance(data, Obj) or not data:
            raise SchemaError(body.at['data'], f"'data' of {what} must be an object with branches")
        for key, value in data.items():
            title = f"branch '{key}' of {what}"
            alt.branches.append(model.Branch(key, self._type(value, data.at[key], title)))

    def _argument(self, body, item, kind, suffix):
        """The struct a command or event carries; inline data becomes an implicit struct."""
        what = f"{kind} '{item.name}'"
        data = body.get('data')
        if data is None:
            return None
        if not isinstance(data, Obj):
            return self._struct_ref(data, body.at['data'], f"'data' of {what}")
        if body.get('boxed'):
            raise SchemaError(body.at['boxed'], f"{what} is boxed, so its 'data' must be a type's name")
        if not data:
            return None
        struct = model.Struct(camel(item.name) + suffix, item.where, item.module, item.doc, [])
        struct.implicit = True
        struct.members = self._members(data, body.at['data'], what)
        self._add_type(struct, f"the arguments of {what}")
        self._check_struct(struct)
        return struct

    def _fill_command(self, body, command):
        what = f"command '{command.name}'"
        command.arg = self._argument(body, command, 'command', 'Arg')
        if 'returns' in body:
            command.returns = self._type(body['returns'], body.at['returns'], f"'returns' of {what}")
            if command.returns.name == 'null':
                raise SchemaError(body.at['returns'], f"{what} can't return null")
        command.gen = body.get('gen', True)
        command.success_response = body.get('success-response', True)
        command.allow_oob = body.get('allow-oob', False)
        # What may overtake others must not need the main thread, in which they may stand.
        command.off_main = body.get('off-main', False) or command.allow_oob
        command.allow_preconfig = body.get('allow-preconfig', False)
        command.at_end = body.get('at-end', False) or command.name.startswith('query-')
        command.pending = command.name in self.reader.pending

    def _fill_event(self, body, event):
        event.arg = self._argument(body, event, 'event', 'Data')

    # ---- pass 3: rules that need the whole

    def _check_struct(self, struct):
        seen_types, base = set(), struct
        while base:
            if base.name in seen_types:
                raise SchemaError(struct.where, f"struct '{struct.name}' is its own base")
            seen_types.add(base.name)
            if base is not struct and base.tag:
                raise SchemaError(struct.where, f"base of '{struct.name}' must not be a union")
            base = base.base
        names = {}
        for member in struct.all_members():
            if member.c in names:
                raise SchemaError(member.where, f"member '{member.name}' of '{struct.name}' clashes "
                                  f"with the one at {names[member.c]}")
            names[member.c] = member.where
        for value, branch in struct.branches.items():
            self._check_embeds(struct, branch, [struct.name])
            for member in branch.all_members() if branch else []:
                if member.c in names:
                    raise SchemaError(member.where, f"member '{member.name}' of branch '{value}' "
                                      f"clashes with a member of union '{struct.name}'")

    def _check_embeds(self, outer, inner, path):
        """A branch lives inside the union, so a union can't contain itself this way."""
        if inner is None:
            return
        if inner.name in path:
            raise SchemaError(outer.where, f"union '{outer.name}' contains itself")
        for branch in inner.branches.values():
            self._check_embeds(outer, branch, path + [inner.name])

    @staticmethod
    def _check_alternate(alt):
        seen = {}
        for branch in alt.branches:
            json = branch.type.json or ''
            if isinstance(branch.type, model.Alternate) or json == 'value':
                raise SchemaError(alt.where, f"branch '{branch.name}' of alternate '{alt.name}' "
                                  "can't be told from others by its JSON type")
            json = 'number' if json == 'int' else json
            if json in seen:
                raise SchemaError(alt.where, f"branches '{seen[json]}' and '{branch.name}' of alternate "
                                  f"'{alt.name}' have the same JSON type")
            seen[json] = branch.name

    def _check_pending(self):
        names = {c.name for c in self.schema.commands}
        for name, where in self.reader.pending.items():
            if name not in names:
                raise SchemaError(where, f"pending command '{name}' is not defined")

    def _check_docs(self):
        """What a block describes must exist, switched off or not."""
        for expr in self.reader.exprs:
            known = self._documentable(expr.body)
            for name in expr.doc.members:
                if name not in known:
                    raise SchemaError(expr.doc.where, f"'{name}' is documented for '{expr.doc.name}' "
                                      "but does not exist")

    def _drop_empty_modules(self):
        """Files that only include others need no output."""
        used = {e.module for e in self.reader.exprs}
        self.schema.modules = [m for m in self.reader.modules if m in used]
        self.schema.includes = {m: [i for i in inc if i in used]
                                for m, inc in self.reader.includes.items()}

    @staticmethod
    def _documentable(body):
        known = set()
        for source in (body.get('data'), body.get('base')):
            if isinstance(source, Obj):
                known |= {key.lstrip('*') for key in source}
            elif isinstance(source, list):
                known |= {v if isinstance(v, str) else v['name'] for v in source}
        return known


def build(reader, config):
    return Builder(reader, config).build()
