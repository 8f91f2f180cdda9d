/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RAM in a migration, for tests: the saved contents of some blocks go into memory, and from there
 * into other blocks of the same names. The rest of the migration (bandwidth, channels) is played
 * here.
 */
#ifndef FERRY_TESTS_UNIT_MIGRATION_RAM_WORLD_H
#define FERRY_TESTS_UNIT_MIGRATION_RAM_WORLD_H

#include <glib.h>
#include <stdint.h>

#include "migration/ram-load.h"
#include "migration/ram-save.h"

#define PAGE ((uint64_t)4096)
#define SEED 20260

#define ROM_TEXT    "rom"
#define ROM_TEXT_AT 100 /* byte */

typedef struct RAMWorld {
    unsigned runs_per_section; /* UINT_MAX: no limit */
    unsigned runs;
    GString
        *channels; /* what they were told: "BLOCK FIRST+N [detect] [untouched];", "sync@OFFSET;" */
    QEMUFile *f;   /* the main channel, whose offset that is */
    unsigned recv_syncs;
    RAMRecv *recv_ram;     /* where the channels put pages */
    const RAMPlace *place; /* where loads put them; NULL: into memory */
    int file;              /* of mapped-ram: opened again for its threads */
    unsigned opened;       /* how often */
    GError *error;         /* what a thread failed with; NULL: nothing */
} RAMWorld;

extern RAMWorld world;

typedef void ChangeSettings(MigrationSettings *settings);

/* --- blocks --- */

/* Named and migratable; RAM_RESIZEABLE: up to four times its size. */
RAMBlock *make_block(const char *name, uint64_t size, uint32_t flags);
/* One made in another way: named and migratable. Returns it. */
RAMBlock *name_block(RAMBlock *block, const char *name);
/* "rom", which can't be written, with ROM_TEXT in it. */
RAMBlock *make_rom(uint64_t size);
void assert_rom(const RAMBlock *rom);
/* A block of the same name and size takes the other's place. */
RAMBlock *make_twin(RAMBlock *block, uint32_t flags);
void assert_same(const RAMBlock *a, const RAMBlock *b);
uint64_t touched_pages(const RAMBlock *block);
/* What a guest does: write, then mark. */
void guest_write(RAMBlock *block, uint64_t offset, const void *data, size_t size);
void guest_fill(RAMBlock *block, uint64_t offset, uint8_t value, size_t size);
/* Bytes that differ from page to page. */
void fill_pages(RAMBlock *block, uint64_t first, uint64_t n, uint32_t seed);

/* --- both ends --- */

typedef struct Source {
    MigrationState s;
    RAMSaveState *rs;
    QEMUFile *f;
} Source;

/* The present settings with changes (NULL: none); g_free(). */
MigrationSettings *changed_settings(ChangeSettings *change);
void source_begin(Source *src, ChangeSettings *change);
void source_setup(Source *src);
int source_iterate(Source *src);
GBytes *source_end(Source *src);
/* Everything in one stream, without changes meanwhile. */
GBytes *save_all(ChangeSettings *change);
/* Loads section after section up to the end of the file. 0 or -errno. */
int load_file(QEMUFile *f, MigrationSettings *settings, GError **errp);
/* The same from the bytes. */
int load_all(GBytes *bytes, ChangeSettings *change, GError **errp);
void load_ok(GBytes *bytes, ChangeSettings *change);
/* Settings: XBZRLE with a cache of 64 pages. */
void xbzrle(MigrationSettings *settings);

#endif
