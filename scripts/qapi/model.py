# SPDX-License-Identifier: GPL-2.0-or-later
"""The checked schema."""

from dataclasses import dataclass, field
from typing import Optional

from .names import c_name, upper
from .source import Doc, Where


class Type:
    """What every type can say about itself. `in_c` is how a value of it is declared in a struct."""
    name: str
    in_c: str
    by_value = False      # stored in the struct itself; an optional one needs has_NAME
    json: Optional[str] = None

    @property
    def descriptor(self):
        return f'qapi_type_{self.name}'

    @property
    def list_name(self):
        return f'{self.name}List'


@dataclass(eq=False)
class Builtin(Type):
    """A type the language knows without definition; `json` is its name in introspection."""
    name: str
    in_c: str
    json: str
    by_value: bool = True


BUILTINS = {b.name: b for b in (
    Builtin('str', 'char *', 'string', False),
    Builtin('bool', 'bool ', 'boolean'),
    Builtin('int', 'int64_t ', 'int'),
    Builtin('int8', 'int8_t ', 'int'),
    Builtin('int16', 'int16_t ', 'int'),
    Builtin('int32', 'int32_t ', 'int'),
    Builtin('int64', 'int64_t ', 'int'),
    Builtin('uint8', 'uint8_t ', 'int'),
    Builtin('uint16', 'uint16_t ', 'int'),
    Builtin('uint32', 'uint32_t ', 'int'),
    Builtin('uint64', 'uint64_t ', 'int'),
    Builtin('size', 'uint64_t ', 'int'),
    Builtin('number', 'double ', 'number'),
    Builtin('null', '', 'null', False),
    Builtin('any', 'json_object *', 'value', False),
)}


@dataclass
class Feature:
    name: str


@dataclass
class EnumValue:
    name: str
    features: list


@dataclass
class Member:
    name: str
    type: Type
    optional: bool
    features: list
    where: Where

    @property
    def c(self):
        return c_name(self.name)

    @property
    def has(self):
        """True when absence is recorded in a has_NAME member: NULL is a value of a list."""
        return self.optional and (self.type.by_value or isinstance(self.type, List))


@dataclass(eq=False)
class Definition:
    name: str
    where: Where
    module: str
    doc: Optional[Doc]
    features: list


@dataclass(eq=False)
class Enum(Definition, Type):
    values: list = field(default_factory=list)
    prefix: str = ''
    by_value = True
    json = 'string'

    @property
    def in_c(self):
        return f'{self.name} '

    def constant(self, value):
        name = value if isinstance(value, str) else value.name
        return f"{self.prefix or upper(self.name)}_{upper(name)}"


@dataclass(eq=False)
class Struct(Definition, Type):
    """A struct or union: `members` are its own, `base` adds more; a union has a tag and branches."""
    members: list = field(default_factory=list)
    base: Optional['Struct'] = None
    tag: Optional[Member] = None
    branches: dict = field(default_factory=dict)     # tag value -> Struct, or None
    implicit: bool = False
    json = 'object'

    @property
    def in_c(self):
        return f'{self.name} *'

    def all_members(self):
        return (self.base.all_members() if self.base else []) + self.members

    @property
    def is_empty(self):
        return not self.all_members() and not self.tag


@dataclass
class Branch:
    name: str
    type: Type

    @property
    def c(self):
        return c_name(self.name)


@dataclass(eq=False)
class Alternate(Definition, Type):
    """One of several JSON types; at most one branch for each."""
    branches: list = field(default_factory=list)

    @property
    def in_c(self):
        return f'{self.name} *'


@dataclass(eq=False)
class List(Type):
    element: Type
    json = 'array'

    @property
    def name(self):
        return self.element.list_name

    @property
    def in_c(self):
        return f'{self.name} *'


@dataclass(eq=False)
class Command(Definition):
    arg: Optional[Struct] = None
    returns: Optional[Type] = None
    gen: bool = True
    success_response: bool = True
    allow_oob: bool = False
    off_main: bool = False
    at_end: bool = False
    allow_preconfig: bool = False
    pending: bool = False


@dataclass(eq=False)
class Event(Definition):
    arg: Optional[Struct] = None


@dataclass
class Schema:
    modules: list = field(default_factory=list)
    includes: dict = field(default_factory=dict)
    types: dict = field(default_factory=dict)
    lists: dict = field(default_factory=dict)
    commands: list = field(default_factory=list)
    events: list = field(default_factory=list)

    def types_of(self, module, kind=Type):
        return [t for t in self.types.values() if isinstance(t, kind) and t.module == module]

    def offered(self):
        """The commands that can be called."""
        return [c for c in self.commands if not c.pending]
