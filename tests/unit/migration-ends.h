/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Both ends of a migration's connections, for tests: a listener that keeps what arrives, connectors
 * that are waited for, and a folder that goes when the program ends.
 */
#ifndef FERRY_TESTS_UNIT_MIGRATION_ENDS_H
#define FERRY_TESTS_UNIT_MIGRATION_ENDS_H

#include "migration/channel.h"

/* Begins the program, with the main loop and the folder; then runs its tests. */
void migration_ends_init(int *argc, char ***argv);
int migration_ends_run(void);

extern char *test_dir;
/* g_free(). */
char *path_in_dir(const char *name);
void write_file(const char *name, const char *text);

/* Runs the main loop until *done. */
void run_until(const bool *done);
void set_param(const char *name, const char *value);
void set_cap(MigrationCapability cap);

/* --- the destination --- */

enum { ARRIVALS_MAX = 16 };

typedef struct Destination {
    MigrationListener *listener;
    QIOChannel *channels[ARRIVALS_MAX];
    unsigned n;
    MigrationHello hello; /* of the last channel */
    GError *error;
    bool arrived; /* a channel or an error */
    bool stop;    /* at the first channel */
} Destination;

bool try_listen(Destination *dst, const char *uri, GError **errp);
void listen_at(Destination *dst, const char *uri);
void destination_clear(Destination *dst);
/* Where the listener really is; g_free(). */
char *listener_uri(const Destination *dst);

/* --- the source --- */

typedef struct ConnectCall {
    MigrationConnector *c;
    QIOChannel *ioc;
    GError *err;
    bool done;
} ConnectCall;

MigrationConnector *try_connector(const char *uri, GError **errp);
MigrationConnector *new_connector(const char *uri);
void start_connect(ConnectCall *call);
/* Waits. */
QIOChannel *connect_to(MigrationConnector *c);

/* Proves to be a source. */
void say_hello(QIOChannel *ioc);

/* --- bytes --- */

void send_bytes(QIOChannel *ioc, const char *text);
/* Waits. */
void expect_bytes(QIOChannel *ioc, const char *expected);

#endif
