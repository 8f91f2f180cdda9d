# SPDX-License-Identifier: GPL-2.0-or-later
"""The QAPI schema compiler: reads qapi/*.json and writes C types, commands, events and documentation.

source    text to expressions (tokens, include, documentation blocks)
model     the checked schema: types, commands, events
build     expressions to model, with every rule of the language
names     C spellings of schema names
ctypes_   C structs, enums and their descriptor tables
commands  handler prototypes and the command table
events    event senders
introspect  the reply to query-qmp-schema
reference   the manual for people
"""
