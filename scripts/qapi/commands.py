# SPDX-License-Identifier: GPL-2.0-or-later
"""Command handlers' prototypes (qapi-commands-MODULE.h) and the command table (qapi-commands.c).

Pending commands have a prototype, so that handlers can be written and compiled, but no table entry.
"""

from .names import c_name


def _arg(command):
    return command.arg if command.arg and not command.arg.is_empty else None


def _prototype(command):
    name = c_name(command.name)
    if not command.gen:
        params = ['json_object *args', 'json_object **ret']
    else:
        params = [f'const {_arg(command).name} *arg'] if _arg(command) else []
        if command.returns:
            params.append(f'{command.returns.in_c}*ret')
    params.append('GError **errp')
    return f'bool coroutine_fn qmp_{name}({", ".join(params)})'


def _header(schema, module):
    lines = ['#include "qapi/dispatch.h"', f'#include "qapi/qapi-types-{module}.h"', '']
    for command in (c for c in schema.commands if c.module == module):
        lines.append(f'{_prototype(command)} G_GNUC_WARN_UNUSED_RESULT;')
    return '\n'.join(lines)


def _thunk(command):
    name = c_name(command.name)
    args = ['arg'] if _arg(command) else []
    args += ['ret'] if command.returns else []
    return [f'static bool coroutine_fn call_{name}(const void *arg, void *ret, GError **errp)', '{',
            f'    return qmp_{name}({", ".join(args + ["errp"])});', '}', '']


def _flags(command):
    features = {f.name for f in command.features}
    flags = [('QMP_COMMAND_OOB', command.allow_oob), ('QMP_COMMAND_OFF_MAIN', command.off_main),
             ('QMP_COMMAND_PRECONFIG', command.allow_preconfig), ('QMP_COMMAND_AT_END', command.at_end),
             ('QMP_COMMAND_NO_SUCCESS_RESPONSE', not command.success_response),
             ('QMP_COMMAND_DEPRECATED', 'deprecated' in features),
             ('QMP_COMMAND_UNSTABLE', 'unstable' in features)]
    return ' | '.join(name for name, on in flags if on) or '0'


def _row(command):
    name = c_name(command.name)
    row = f'    {{.name = "{command.name}", .flags = {_flags(command)}'
    if not command.gen:
        return row + f', .call_json = qmp_{name}}},'
    if _arg(command):
        row += f', .arg = &{command.arg.descriptor}'
    if command.returns:
        row += f', .ret = &qapi_type_{command.returns.name}'
    return row + f', .call = call_{name}}},'


_FIND = '''
static int compare_name(const void *name, const void *command)
{
    return strcmp(name, ((const QmpCommand *)command)->name);
}

const QmpCommand *qmp_find_command(const char *name)
{
    return bsearch(name, qmp_commands, qmp_command_count, sizeof(qmp_commands[0]), compare_name);
}
'''


def _table(schema):
    offered = sorted(schema.offered(), key=lambda c: c.name)
    lines = ['#include "qapi/qapi-commands.h"', '', '#include <stdlib.h>', '#include <string.h>', '']
    for command in offered:
        if command.gen:
            lines += _thunk(command)
    lines.append('const QmpCommand qmp_commands[] = {')
    lines += [_row(c) for c in offered] + ['    {.name = NULL},', '};']
    lines.append(f'const size_t qmp_command_count = {len(offered)};')
    return '\n'.join(lines) + _FIND


def generate(schema, out):
    for module in schema.modules:
        out.header(f'qapi-commands-{module}.h', f'commands of qapi/{module}.json', _header(schema, module))
    out.header('qapi-commands.h', 'all commands',
               ''.join(f'#include "qapi/qapi-commands-{m}.h"\n' for m in schema.modules))
    out.source('qapi-commands.c', 'the command table', _table(schema))
