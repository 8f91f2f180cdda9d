# SPDX-License-Identifier: GPL-2.0-or-later
"""C types and their descriptor tables: qapi-types-MODULE.{h,c} and qapi-types.h."""

from . import model
from .names import c_name


def _member_decls(struct):
    lines = []
    for member in struct.all_members():
        if member.has:
            lines.append(f'    bool has_{member.c.removeprefix("q_")};')
        lines.append(f'    {member.type.in_c}{member.c};')
    return lines


def _branches(union):
    """The branches that hold something, by value name."""
    return {v: t for v, t in union.branches.items() if t and not t.is_empty}


def _enum(enum):
    lines = [f'typedef enum {enum.name} {{']
    lines += [f'    {enum.constant(v)},' for v in enum.values]
    lines += [f'    {enum.constant("_MAX")},', f'}} {enum.name};']
    lines += [f'extern const QapiType {enum.descriptor};',
              f'const char *{enum.name}_str({enum.name} value);',
              f'bool {enum.name}_parse(const char *name, {enum.name} *value, GError **errp);', '']
    return lines


def _struct(struct):
    lines = [f'struct {struct.name} {{'] + _member_decls(struct)
    inner = _branches(struct)
    if inner:
        lines.append('    union {')
        lines += [f'        {t.name} {c_name(v)};' for v, t in inner.items()]
        lines.append('    } u;')
    if len(lines) == 1:
        lines.append('    char empty_;')
    return lines + ['};', '']


def _alternate(alt):
    lines = [f'struct {alt.name} {{', '    json_type type;', '    union {']
    for branch in alt.branches:
        if isinstance(branch.type, model.Struct):
            lines.append(f'        {branch.type.name} {branch.c};')
        elif branch.type.name != 'null':
            lines.append(f'        {branch.type.in_c}{branch.c};')
    return lines + ['    } u;', '};', '']


def _functions(name):
    return [f'extern const QapiType qapi_type_{name};',
            f'{name} *{name}_from_json(json_object *json, QapiDecodeFlags flags, GError **errp);',
            f'json_object *{name}_to_json(const {name} *value);',
            f'void qapi_free_{name}({name} *value);',
            f'G_DEFINE_AUTOPTR_CLEANUP_FUNC({name}, qapi_free_{name})', '']


def _function_bodies(name):
    return [f'{name} *{name}_from_json(json_object *json, QapiDecodeFlags flags, GError **errp)', '{',
            f'    return qapi_decode(&qapi_type_{name}, json, flags, errp);', '}',
            f'json_object *{name}_to_json(const {name} *value)', '{',
            f'    return qapi_encode(&qapi_type_{name}, value);', '}',
            f'void qapi_free_{name}({name} *value)', '{',
            f'    qapi_free(&qapi_type_{name}, value);', '}', '']


def _embedded(item):
    """The structs that live inside a type by value and so must be complete before it."""
    if isinstance(item, model.Alternate):
        return [b.type for b in item.branches if isinstance(b.type, model.Struct)]
    return list(_branches(item).values()) if isinstance(item, model.Struct) else []


def _in_order(items):
    done, order = set(), []

    def visit(item):
        if item.name in done:
            return
        done.add(item.name)
        for inner in _embedded(item):
            if inner.module == item.module:
                visit(inner)
        order.append(item)

    for item in items:
        visit(item)
    return order


def _header(schema, module):
    types = schema.types_of(module)
    objects = [t for t in types if not isinstance(t, model.Enum)]
    lists = [t for t in types if t.name in schema.lists]
    lines = ['#include "qapi/codec.h"']
    lines += [f'#include "qapi/qapi-types-{m}.h"' for m in schema.includes[module]] + ['']
    for enum in (t for t in types if isinstance(t, model.Enum)):
        lines += _enum(enum)
    lines += [f'typedef struct {t.name} {t.name};' for t in objects]
    lines += [f'typedef struct {t.list_name} {t.list_name};' for t in lists] + ['']
    for item in _in_order(objects):
        lines += _struct(item) if isinstance(item, model.Struct) else _alternate(item)
    for item in lists:
        lines += [f'struct {item.list_name} {{', f'    {item.list_name} *next;',
                  f'    {item.in_c}value;', '};', '']
    for item in objects:
        lines += _functions(item.name)
    for item in lists:
        lines += _functions(item.list_name)
    return '\n'.join(lines)


def _member_row(owner, member, field, has):
    offset = f'offsetof({owner}, has_{has})' if has else 'QAPI_NO_HAS'
    return (f'    {{"{member.name}", &{member.type.descriptor}, offsetof({owner}, {field}), {offset}, '
            f'{"true" if getattr(member, "optional", False) else "false"}}},')


def _enum_table(enum):
    lines = [f'static const char *const values_{enum.name}[] = {{']
    lines += [f'    [{enum.constant(v)}] = "{v.name}",' for v in enum.values]
    lines += ['    NULL', '};', f'const QapiType {enum.descriptor} = {{', f'    .name = "{enum.name}",',
              '    .kind = QAPI_KIND_ENUM,', f'    .size = sizeof({enum.name}),',
              f'    .count = {len(enum.values)},', f'    .values = values_{enum.name},', '};',
              f'const char *{enum.name}_str({enum.name} value)', '{',
              f'    return qapi_enum_str(&{enum.descriptor}, (int)value);', '}',
              f'bool {enum.name}_parse(const char *name, {enum.name} *value, GError **errp)', '{',
              '    int found;', '',
              f'    if (!qapi_enum_parse(&{enum.descriptor}, name, &found, errp)) {{',
              '        return false;', '    }', f'    *value = ({enum.name})found;', '    return true;',
              '}', '']
    return lines


def _struct_table(struct):
    name, members = struct.name, struct.all_members()
    lines = []
    if members:
        lines.append(f'static const QapiMember members_{name}[] = {{')
        lines += [_member_row(name, m, m.c, m.c.removeprefix('q_') if m.has else None) for m in members]
        lines.append('};')
    if struct.tag:
        lines.append(f'static const QapiType *const branches_{name}[] = {{')
        for value, branch in struct.branches.items():
            target = f'&{branch.descriptor}' if branch and not branch.is_empty else 'NULL'
            lines.append(f'    [{struct.tag.type.constant(value)}] = {target},')
        lines += ['    NULL', '};']
    lines += [f'const QapiType {struct.descriptor} = {{', f'    .name = "{name}",',
              '    .kind = QAPI_KIND_STRUCT,', f'    .size = sizeof({name}),', f'    .count = {len(members)},']
    if members:
        lines.append(f'    .members = members_{name},')
    if struct.tag:
        lines.append(f'    .tag_offset = offsetof({name}, {struct.tag.c}),')
        lines.append(f'    .branches = branches_{name},')
        if _branches(struct):
            lines.append(f'    .u_offset = offsetof({name}, u),')
    return lines + ['};'] + _function_bodies(name)


def _alternate_table(alt):
    lines = [f'static const QapiMember members_{alt.name}[] = {{']
    for branch in alt.branches:
        field = 'u' if branch.type.name == 'null' else f'u.{branch.c}'
        lines.append(_member_row(alt.name, branch, field, None))
    lines += ['};', f'const QapiType {alt.descriptor} = {{', f'    .name = "{alt.name}",',
              '    .kind = QAPI_KIND_ALTERNATE,', f'    .size = sizeof({alt.name}),',
              f'    .count = {len(alt.branches)},', f'    .members = members_{alt.name},',
              f'    .u_offset = offsetof({alt.name}, u),', '};']
    return lines + _function_bodies(alt.name)


def _list_table(item):
    name = item.list_name
    return [f'const QapiType qapi_type_{name} = {{', f'    .name = "{name}",', '    .kind = QAPI_KIND_LIST,',
            f'    .size = sizeof({name}),', f'    .value_offset = offsetof({name}, value),',
            f'    .element = &{item.descriptor},', '};'] + _function_bodies(name)


def _source(schema, module):
    lines = [f'#include "qapi/qapi-types-{module}.h"', '', '#include <stddef.h>', '']
    for item in schema.types_of(module):
        if isinstance(item, model.Enum):
            lines += _enum_table(item)
        elif isinstance(item, model.Struct):
            lines += _struct_table(item)
        else:
            lines += _alternate_table(item)
        if item.name in schema.lists:
            lines += _list_table(item)
    return '\n'.join(lines)


def generate(schema, out):
    for module in schema.modules:
        out.header(f'qapi-types-{module}.h', f'types of qapi/{module}.json', _header(schema, module))
        out.source(f'qapi-types-{module}.c', f'types of qapi/{module}.json', _source(schema, module))
    out.header('qapi-types.h', 'all types',
               ''.join(f'#include "qapi/qapi-types-{m}.h"\n' for m in schema.modules))
