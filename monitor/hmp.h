/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HMP commands: what people type. Any folder registers its own at start-up; handlers run in
 * coroutines of the main thread and print their output.
 */
#ifndef FERRY_MONITOR_HMP_H
#define FERRY_MONITOR_HMP_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>
#include "util/coroutine.h"

/* Where a command prints; valid until its handler returns. */
typedef struct HMPOutput HMPOutput;

/* argv[0..argc): the words behind the name, quotes and backslashes undone, NULL-terminated. */
typedef struct HMPCommand HMPCommand;
typedef void coroutine_fn HMPHandler(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv);

struct HMPCommand {
    const char *name; /* "stop|s": other names follow a bar */
    /*
     * "[-f] device [speed]": the options, then the words. The handler gets no other option and no more
     * words than these.
     */
    const char *args;
    const char *help; /* one line */
    HMPHandler *handler;
    bool any_time; /* begins nothing: runs while the process ends, too. All of "info" do. */
};

/* `cmd` lives on. */
void hmp_register_command(const HMPCommand *cmd);
/* The same for a word that follows "info". */
void hmp_register_info(const HMPCommand *cmd);

void hmp_printf(HMPOutput *out, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/*
 * A user types and waits for the prompt: the handler may take its time. False for
 * human-monitor-command, whose session has other commands to run.
 */
bool hmp_may_wait(const HMPOutput *out);
/* Prints "Error: message" and frees err. NULL prints nothing. */
void hmp_error(HMPOutput *out, GError *err);
/*
 * Runs a QMP command; takes over args (NULL: none). On success the caller owns the result; else the
 * error was printed and NULL comes back.
 */
json_object *coroutine_fn hmp_co_qmp(HMPOutput *out, const char *command, json_object *args);

#endif
