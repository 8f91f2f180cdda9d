/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stream: what stands in it, in which order, written (savevm.c) and read (loadvm.c).
 *
 *   stream        := "QEVM" be32 3 [configuration] item* EOF [vmdescription]
 *   item          := START | PART | END | FULL section, or a command
 *
 * Live parts (RAM) send START while the guest runs, PART again and again, END when it is stopped;
 * devices are FULL sections, saved together while the guest is stopped.
 */
#ifndef FERRY_MIGRATION_SAVEVM_H
#define FERRY_MIGRATION_SAVEVM_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "migration/migration.h"
#include "vmstate/json-writer.h"
#include "vmstate/qemu-file.h"
#include "vmstate/register.h"

#define QEMU_VM_FILE_MAGIC   0x5145564du
#define QEMU_VM_FILE_VERSION 3u

/* The first byte of everything in a stream. */
enum {
    QEMU_VM_EOF = 0x00,
    QEMU_VM_SECTION_START = 0x01,
    QEMU_VM_SECTION_PART = 0x02,
    QEMU_VM_SECTION_END = 0x03,
    QEMU_VM_SECTION_FULL = 0x04,
    QEMU_VM_SUBSECTION = 0x05,
    QEMU_VM_VMDESCRIPTION = 0x06,
    QEMU_VM_CONFIGURATION = 0x07,
    QEMU_VM_COMMAND = 0x08,
    QEMU_VM_SECTION_FOOTER = 0x7e,
};

/* Commands from the source to the destination, on the main channel. */
typedef enum MigCommand {
    MIG_CMD_INVALID = 0,
    MIG_CMD_OPEN_RETURN_PATH = 1,
    MIG_CMD_PING = 2,
    MIG_CMD_POSTCOPY_ADVISE = 3,
    MIG_CMD_POSTCOPY_LISTEN = 4,
    MIG_CMD_POSTCOPY_RUN = 5,
    MIG_CMD_POSTCOPY_RAM_DISCARD = 6,
    MIG_CMD_PACKAGED = 7,
    MIG_CMD_ENABLE_COLO = 8,
    MIG_CMD_POSTCOPY_RESUME = 9,
    MIG_CMD_RECV_BITMAP = 10,
    MIG_CMD_SWITCHOVER_START = 11,
    MIG_CMD_MAX = 12,
} MigCommand;

/* Messages from the destination to the source, on the return path. */
typedef enum MigReturnMessage {
    MIG_RP_MSG_INVALID = 0,
    MIG_RP_MSG_SHUT = 1,
    MIG_RP_MSG_PONG = 2,
    MIG_RP_MSG_REQ_PAGES_ID = 3,
    MIG_RP_MSG_REQ_PAGES = 4,
    MIG_RP_MSG_RECV_BITMAP = 5,
    MIG_RP_MSG_RESUME_ACK = 6,
    MIG_RP_MSG_SWITCHOVER_ACK = 7,
    MIG_RP_MSG_MAX = 8,
} MigReturnMessage;

/* Most bytes that the state of all devices may have. */
#define SAVEVM_DEVICES_MAX (1024ull * 1024 * 1024)

/* What the guest is, for the configuration section. Set once by system/, before anything migrates. */
typedef struct MigrationIdentity {
    const char *machine; /* canonical type: "none", "pc-i440fx-7.2" */
    bool has_uuid;
    uint8_t uuid[16];
} MigrationIdentity;

void migration_set_identity(const MigrationIdentity *identity);
const MigrationIdentity *migration_get_identity(void);

/* --- configuration: configuration.c --- */

/* Writes the section with its type byte; json: NULL, or open for the member "configuration". */
int configuration_save(QEMUFile *f, const MigrationSettings *settings, JSONWriter *json,
                       GError **errp);
/* Reads it, the type byte being read, and compares it with this guest. */
int configuration_load(QEMUFile *f, const MigrationSettings *settings, GError **errp);

/* --- run state: global-state.c --- */

/* Registers the entry, after the machine's devices. */
void global_state_init(void);
/*
 * What the stream will say: the guest is in `state`. Without `always` (store-global-state=off) it says
 * nothing about running and paused, which a destination tells apart by its own -S. Big lock.
 */
void global_state_store(RunState state, bool always);
void global_state_forget(void);
/* Whether the stream has said; then in which state the guest was. */
bool global_state_arrived(RunState *state);

/* --- the source's thread --- */

/* The live parts of this migration, taken at its start. */
typedef struct SaveVMState SaveVMState;

/* Header, configuration. 0 or -errno (here and below: the file's error counts as well). */
int savevm_send_header(QEMUFile *f, const MigrationSettings *settings, GError **errp);
/* The list, and early set-up, before the header. NULL with an error; what was begun is cleaned up then. */
SaveVMState *savevm_prepare(const MigrationSettings *settings, GError **errp);
/* The START sections. */
int savevm_setup(SaveVMState *sv, QEMUFile *f, GError **errp);
/* A PART section of each live part in turn, until one is not done or all are: 1: all are. */
int savevm_iterate(SaveVMState *sv, QEMUFile *f, GError **errp);
/* Bytes that are left; exact: after a look at the log, which takes time. */
SaveVMPending savevm_pending_by_kind(SaveVMState *sv, bool exact);
/* The same, all of them. */
uint64_t savevm_pending(SaveVMState *sv, bool exact);
/* The END sections, without those that savevm_complete_postcopy() sends. The guest is stopped. */
int savevm_complete_live(SaveVMState *sv, QEMUFile *f, bool postcopy, GError **errp);
/* The END sections of a postcopy migration, after the guest has started at the destination. */
int savevm_complete_postcopy(SaveVMState *sv, QEMUFile *f, GError **errp);
/* A postcopy migration goes on over new channels. */
int savevm_resume_prepare(SaveVMState *sv, GError **errp);
/*
 * Everything from the first FULL section to the end of the stream, in memory. In *eof: the offset of the byte
 * that ends the sections, after which a destination may start the guest. Takes the big lock. NULL with an
 * error.
 */
GBytes *savevm_save_devices(const MigrationSettings *settings, size_t *eof, GError **errp);
/* Ends the live parts' work. NULL is allowed. */
void savevm_cleanup(SaveVMState *sv);

void savevm_send_command(QEMUFile *f, MigCommand cmd, const void *data, uint16_t len);
void savevm_send_ping(QEMUFile *f, uint32_t value);

/* --- the incoming thread --- */

/*
 * Loads a whole stream: 0, or -errno with one message that says what, where and why. Live parts are
 * loaded without the big lock, devices with it.
 */
int loadvm_state(MigrationIncomingState *mis, QEMUFile *f, GError **errp);
/*
 * A live part whose switchover_ack_needed() said so is ready for the guest to come: once, any thread,
 * during the load. With the capability switchover-ack the source is told when all are. 0 or -errno.
 */
int loadvm_approve_switchover(MigrationIncomingState *mis);

#endif
