# SPDX-License-Identifier: GPL-2.0-or-later
"""Schema text to expressions.

A schema file is a sequence of objects in a JSON-like notation: strings stand in single quotes and are
plain ASCII without escapes, `#` starts a comment. A comment block between two `##` lines documents the
definition that follows it.
"""

import os
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Where:
    """A place in a schema file."""
    path: str
    line: int

    def __str__(self):
        return f'{self.path}:{self.line}'


class SchemaError(Exception):
    """A mistake in the schema, with its place."""

    def __init__(self, where, message):
        super().__init__(f'{where}: {message}')


class Obj(dict):
    """An object of the notation; remembers where it and each of its keys stand."""

    def __init__(self, where):
        super().__init__()
        self.where = where
        self.at = {}


@dataclass
class Doc:
    """A documentation block, split by what it describes."""
    where: Where
    name: str = ''
    text: str = ''
    members: dict = field(default_factory=dict)
    features: dict = field(default_factory=dict)
    returns: str = ''
    errors: str = ''


@dataclass
class Expr:
    """A top-level object with its documentation and the module (file) it belongs to."""
    body: Obj
    doc: Doc
    module: str


_TOKEN = re.compile(r"""(?P<space>[ \t\r\n]+)|(?P<doc>\#\#[ \t]*\n(?:\#(?!\#).*\n)*?\#\#[ \t]*(?:\n|$))
                        |(?P<comment>\#(?!\#[ \t]*(?:\n|$)).*)|(?P<punct>[{}\[\]:,])|'(?P<string>[^'\n]*)'
                        |(?P<word>true|false|null)""", re.X)


class _Tokens:
    """The tokens of one file, with one token of look-ahead in `kind` and `value`."""

    def __init__(self, path, text):
        self.path, self.text = path, text
        self.pos, self.line = 0, 1
        self.kind = self.value = None
        self.where = Where(path, 1)
        self.advance()

    def advance(self):
        while self.pos < len(self.text):
            match = _TOKEN.match(self.text, self.pos)
            self.where = Where(self.path, self.line)
            if not match:
                self._stray()
            self.pos = match.end()
            self.line += match.group().count('\n')
            if match.lastgroup in ('space', 'comment'):
                continue
            self.kind, self.value = match.lastgroup, match.group(match.lastgroup)
            if self.kind == 'string' and not re.fullmatch(r'[ -~]*', self.value):
                raise SchemaError(self.where, 'strings must be printable ASCII')
            return
        self.where = Where(self.path, self.line)
        self.kind, self.value = 'end', 'end of file'

    def _stray(self):
        char = self.text[self.pos]
        if char == "'":
            raise SchemaError(self.where, 'unterminated string')
        if self.text.startswith('##', self.pos):
            raise SchemaError(self.where, "documentation block is not closed by a '##' line")
        raise SchemaError(self.where, f"stray '{char}'")

    def expect(self, punct):
        if (self.kind, self.value) != ('punct', punct):
            raise SchemaError(self.where, f"expected '{punct}', found '{self.value}'")
        self.advance()

    def accept(self, punct):
        if (self.kind, self.value) == ('punct', punct):
            self.advance()
            return True
        return False


def _parse_value(tok):
    if tok.kind == 'string':
        value = tok.value
        tok.advance()
        return value
    if tok.kind == 'word':
        value = {'true': True, 'false': False, 'null': None}[tok.value]
        tok.advance()
        return value
    if (tok.kind, tok.value) == ('punct', '{'):
        return _parse_object(tok)
    if tok.accept('['):
        values = []
        while not tok.accept(']'):
            values.append(_parse_value(tok))
            if not tok.accept(','):
                tok.expect(']')
                break
        return values
    raise SchemaError(tok.where, f"expected a value, found '{tok.value}'")


def _parse_object(tok):
    obj = Obj(tok.where)
    tok.expect('{')
    while not tok.accept('}'):
        if tok.kind != 'string':
            raise SchemaError(tok.where, f"expected a key in quotes, found '{tok.value}'")
        key, where = tok.value, tok.where
        if key in obj:
            raise SchemaError(where, f"duplicate key '{key}'")
        tok.advance()
        tok.expect(':')
        obj[key] = _parse_value(tok)
        obj.at[key] = where
        if not tok.accept(','):
            tok.expect('}')
            break
    return obj


_DOC_TAG = re.compile(r'(?:@(?P<name>[A-Za-z0-9_.-]+):|(?P<word>Features|Returns|Errors):)[ ]*(?P<rest>.*)')


def _parse_doc(text, where):
    """Split a `##` block into the description, the members, the features and the results."""
    doc = Doc(where)
    sink, in_features = None, False
    parts = {}
    for number, raw in enumerate(text.splitlines()[1:-1], 1):
        line = raw[2:] if raw.startswith('# ') else raw[1:]
        match = _DOC_TAG.match(line)
        if not match:
            if sink is None:
                if line.strip():
                    raise SchemaError(Where(where.path, where.line + number),
                                      "documentation must start with '@NAME:'")
                continue
            parts[sink].append(line.strip())
            continue
        name, word = match.group('name'), match.group('word')
        if word == 'Features':
            in_features, sink = True, ('', 'ignored')
        elif word:
            sink = (word.lower(), '')
        elif sink is None:
            doc.name, sink = name, ('text', '')
        else:
            sink = ('features' if in_features else 'members', name)
        if sink in parts:
            raise SchemaError(Where(where.path, where.line + number), f"'{name or word}' is documented twice")
        parts[sink] = [match.group('rest').strip()]
    for (kind, name), lines in parts.items():
        body = '\n'.join(lines).strip()
        if kind in ('members', 'features'):
            getattr(doc, kind)[name] = body
        elif kind:
            setattr(doc, kind, body)
    if not doc.name:
        raise SchemaError(where, "documentation must start with '@NAME:'")
    return doc


class Reader:
    """Reads a schema and all files it includes, each once, in the order of first inclusion."""

    def __init__(self):
        self.exprs = []
        self.pending = {}
        self.modules = []
        self.includes = {}
        self.deps = []
        self._seen = set()

    def read(self, path, shown=None):
        path = os.path.normpath(path)
        shown = shown or path
        module = os.path.splitext(os.path.basename(path))[0]
        if path in self._seen:
            return module
        self._seen.add(path)
        self.deps.append(path)
        with open(path, encoding='utf-8') as file:
            tok = _Tokens(shown, file.read())
        self.includes[module] = []
        doc = None
        while tok.kind != 'end':
            if tok.kind == 'doc':
                if doc:
                    raise SchemaError(doc.where, f"'{doc.name}' is documented but not defined")
                doc = _parse_doc(tok.value, tok.where)
                tok.advance()
                continue
            body = _parse_object(tok)
            if 'include' in body or 'pragma' in body:
                if doc:
                    raise SchemaError(doc.where, 'documentation must stand before a definition')
                self._directive(body, path, shown, module)
                continue
            self.exprs.append(Expr(body, doc, module))
            doc = None
        if doc:
            raise SchemaError(doc.where, f"'{doc.name}' is documented but not defined")
        self.modules.append(module)
        return module

    def _directive(self, body, path, shown, module):
        if len(body) != 1:
            raise SchemaError(body.where, "'include' and 'pragma' stand alone in their object")
        if 'include' in body:
            name = body['include']
            target = os.path.join(os.path.dirname(path), name) if isinstance(name, str) else ''
            if not os.path.isfile(target):
                raise SchemaError(body.where, f"cannot read included file '{name}'")
            shown = os.path.join(os.path.dirname(shown), name)
            self.includes[module].append(self.read(target, shown))
            return
        pragma = body['pragma']
        if not isinstance(pragma, Obj) or set(pragma) != {'command-pending'}:
            raise SchemaError(body.where, "the only pragma is 'command-pending'")
        for name in pragma['command-pending']:
            if name in self.pending:
                raise SchemaError(body.where, f"'{name}' is listed as pending twice")
            self.pending[name] = body.where
