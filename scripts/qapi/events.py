# SPDX-License-Identifier: GPL-2.0-or-later
"""Event senders: qapi-events-MODULE.h and qapi-events.{h,c}."""

from .names import c_name

_MAX_PARAMS = 6


def _params(event):
    """The data's members as C parameters, or the struct when they are too many."""
    if not event.arg:
        return ['void'], None
    params = []
    for member in event.arg.all_members():
        if member.has:
            params.append((f'bool has_{member.c.removeprefix("q_")}', f'has_{member.c.removeprefix("q_")}'))
        const = 'const ' if member.type.in_c.endswith('*') else ''
        params.append((f'{const}{member.type.in_c}{member.c}', member.c))
    if len(params) > _MAX_PARAMS or event.arg.tag:
        return [f'const {event.arg.name} *data'], None
    return [p for p, _ in params], [name for _, name in params]


def _prototype(event):
    params, _ = _params(event)
    return f'void qapi_event_send_{c_name(event.name.lower())}({", ".join(params)})'


def _sender(event):
    _, fields = _params(event)
    lines = [_prototype(event), '{']
    if not event.arg:
        return lines + [f'    qapi_event_emit("{event.name}", NULL);', '}', '']
    if fields is not None:
        lines.append(f'    const {event.arg.name} value = {{')
        pointers = {m.c: m.type.in_c for m in event.arg.all_members() if m.type.in_c.endswith('*')}
        for name in fields:
            cast = f'({pointers[name]})' if name in pointers else ''
            lines.append(f'        .{name} = {cast}{name},')
        lines += ['    };', '']
    target = '&value' if fields is not None else 'data'
    return lines + [f'    qapi_event_emit("{event.name}", {event.arg.name}_to_json({target}));', '}', '']


def generate(schema, out):
    for module in schema.modules:
        lines = ['#include "qapi/event.h"', f'#include "qapi/qapi-types-{module}.h"', '']
        lines += [f'{_prototype(e)};' for e in schema.events if e.module == module]
        out.header(f'qapi-events-{module}.h', f'events of qapi/{module}.json', '\n'.join(lines))
    out.header('qapi-events.h', 'all events',
               ''.join(f'#include "qapi/qapi-events-{m}.h"\n' for m in schema.modules))
    lines = ['#include "qapi/qapi-events.h"', '']
    for event in schema.events:
        lines += _sender(event)
    out.source('qapi-events.c', 'event senders', '\n'.join(lines))
