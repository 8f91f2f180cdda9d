/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RAM in a migration, from memory to memory: the rest of the migration, blocks, and both ends. */
#include "tests/unit/migration-ram-world.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/populated.h"
#include "migration/multifd.h"
#include "util/error.h"

/* --- the rest of the migration, as these tests want it --- */

RAMWorld world;

bool migration_should_stop(MigrationState *s)
{
    return false;
}

bool migration_rate_exceeded(MigrationState *s)
{
    return ++world.runs >= world.runs_per_section;
}

uint64_t migration_transferred_bytes(MigrationState *s)
{
    return 0;
}

void migrate_fail(MigrationState *s, GError *err)
{
    g_clear_error(&world.error);
    world.error = err;
}

static int open_extra(int flags, GError **errp)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", world.file);
    int fd = open(path, flags | O_CLOEXEC);

    if (fd < 0) {
        error_setg_errno(errp, errno, "no further descriptor");
    }
    world.opened++;
    return fd;
}

int migration_connector_open_extra(MigrationConnector *c, bool direct, GError **errp)
{
    return open_extra(O_WRONLY | (direct ? O_DIRECT : 0), errp);
}

int migration_listener_open_extra(MigrationListener *listener, bool direct, GError **errp)
{
    return open_extra(O_RDONLY | (direct ? O_DIRECT : 0), errp);
}

void migration_end_phase(MigrationState *s, MigrationPhase phase, uint64_t *since)
{
    stat64_set(&s->phase_ns[phase], 1);
}

int multifd_send_run(MigrationState *s, const RAMRun *run, bool detect_zero)
{
    g_string_append_printf(world.channels, "%s %" PRIu64 "+%u%s%s;", run->sb->block->idstr,
                           run->first, run->n, detect_zero ? " detect" : "",
                           run->untouched ? " untouched" : "");
    return 0;
}

int multifd_send_sync(MigrationState *s)
{
    g_string_append_printf(world.channels, "sync@%" PRIu64 ";", qemu_file_transferred(world.f));
    return 0;
}

void multifd_recv_set_ram(MigrationIncomingState *mis, RAMRecv *ram)
{
    world.recv_ram = ram;
}

int multifd_recv_sync(MigrationIncomingState *mis, GError **errp)
{
    g_assert_nonnull(world.recv_ram);
    world.recv_syncs++;
    return 0;
}

/* --- blocks and both ends --- */

RAMBlock *name_block(RAMBlock *block, const char *name)
{
    g_autoptr(GError) err = NULL;

    g_assert_nonnull(block);
    g_assert_true(ram_block_set_idstr(block, name, &err));
    g_assert_no_error(err);
    ram_block_set_migratable(block, true);
    return block;
}

RAMBlock *make_block(const char *name, uint64_t size, uint32_t flags)
{
    const RAMBlockOptions options = {.what = name,
                                     .size = size,
                                     .max_size = flags & RAM_RESIZEABLE ? 4 * size : 0,
                                     .flags = flags,
                                     .fd = -1,
                                     .no_hugepages = true};
    g_autoptr(GError) err = NULL;
    RAMBlock *block = ram_block_new(&options, &err);

    g_assert_no_error(err);
    return name_block(block, name);
}

RAMBlock *make_rom(uint64_t size)
{
    int fd = memfd_create("rom", MFD_CLOEXEC);
    const RAMBlockOptions options = {.what = "rom", .size = size, .flags = RAM_READONLY, .fd = fd};
    g_autoptr(GError) err = NULL;
    RAMBlock *block;

    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    g_assert_cmpint(pwrite(fd, ROM_TEXT, sizeof(ROM_TEXT), ROM_TEXT_AT), ==, sizeof(ROM_TEXT));
    block = ram_block_new(&options, &err);
    g_assert_no_error(err);
    return name_block(block, "rom");
}

void assert_rom(const RAMBlock *rom)
{
    g_assert_cmpmem(rom->host + ROM_TEXT_AT, sizeof(ROM_TEXT), ROM_TEXT, sizeof(ROM_TEXT));
}

void guest_write(RAMBlock *block, uint64_t offset, const void *data, size_t size)
{
    memcpy(block->host + offset, data, size);
    ram_block_set_dirty(block, offset, size);
}

void guest_fill(RAMBlock *block, uint64_t offset, uint8_t value, size_t size)
{
    memset(block->host + offset, value, size);
    ram_block_set_dirty(block, offset, size);
}

/* Bytes that differ from page to page. */
void fill_pages(RAMBlock *block, uint64_t first, uint64_t n, uint32_t seed)
{
    for (uint64_t page = first; page < first + n; page++) {
        uint32_t *words = (uint32_t *)(block->host + page * PAGE);

        for (unsigned i = 0; i < PAGE / 4; i++) {
            words[i] = (uint32_t)(page * 2654435761u + i * 40503u + seed) | 1;
        }
        ram_block_set_dirty(block, page * PAGE, PAGE);
    }
}

MigrationSettings *changed_settings(ChangeSettings *change)
{
    g_autoptr(MigrationSettings) present = migration_settings_get();
    MigrationSettings *settings = g_new0(MigrationSettings, 1);

    *settings = *present;
    settings->refcount = 1;
    if (change) {
        change(settings);
    }
    return settings;
}

void source_begin(Source *src, ChangeSettings *change)
{
    g_autoptr(GError) err = NULL;

    memset(src, 0, sizeof(*src));
    world.runs_per_section = UINT_MAX;
    world.runs = 0;
    g_mutex_init(&src->s.lock);
    src->s.settings = changed_settings(change);
    src->s.rate.window_limit = UINT64_MAX;
    src->f = world.f = qemu_file_new_memory_output(G_MAXINT);
    src->rs = ram_save_state_new(&src->s, &err);
    g_assert_no_error(err);
}

void source_setup(Source *src)
{
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(ram_save_setup(src->rs, src->f, &err), ==, 0);
    g_assert_no_error(err);
}

int source_iterate(Source *src)
{
    g_autoptr(GError) err = NULL;
    int ret;

    world.runs = 0;
    ret = ram_save_iterate(src->rs, src->f, &err);
    g_assert_no_error(err);
    g_assert_cmpint(ret, >=, 0);
    return ret;
}

GBytes *source_end(Source *src)
{
    g_autoptr(GError) err = NULL;
    GBytes *bytes;

    g_assert_cmpint(ram_save_complete(src->rs, src->f, &err), ==, 0);
    g_assert_no_error(err);
    g_assert_cmpuint(src->rs->dirty_pages, ==, 0);
    g_assert_cmpuint(stat64_get(&src->s.counters.remaining_bytes), ==, 0);
    bytes = qemu_file_memory_steal(src->f);
    g_assert_nonnull(bytes);
    ram_save_state_free(src->rs);
    (void)!qemu_fclose(src->f);
    g_free(src->s.settings);
    g_mutex_clear(&src->s.lock);
    return bytes;
}

/* Everything in one stream, without changes meanwhile. */
GBytes *save_all(ChangeSettings *change)
{
    Source src;

    source_begin(&src, change);
    source_setup(&src);
    while (source_iterate(&src) == 0) {
    }
    return source_end(&src);
}

int load_file(QEMUFile *f, MigrationSettings *settings, GError **errp)
{
    MigrationIncomingState mis = {.settings = settings};
    RAMLoadState *rl = ram_load_new(&mis, errp);
    int ret = rl ? 0 : -ENOMEM;

    if (rl && world.place) {
        ram_recv_set_place(rl->recv, world.place);
    }
    while (ret == 0 && !qemu_file_at_end(f)) {
        ret = ram_load_section(rl, f, RAM_SAVE_VERSION, errp);
    }
    if (ret == 0) {
        ret = ram_load_complete(rl, errp);
    }
    ram_load_free(rl);
    return ret;
}

int load_all(GBytes *bytes, ChangeSettings *change, GError **errp)
{
    g_autofree MigrationSettings *settings = changed_settings(change);
    QEMUFile *f = qemu_file_new_memory_input(bytes);
    int ret = load_file(f, settings, errp);

    (void)!qemu_fclose(f);
    return ret;
}

void load_ok(GBytes *bytes, ChangeSettings *change)
{
    g_autoptr(GError) err = NULL;
    int ret = load_all(bytes, change, &err);

    g_assert_no_error(err);
    g_assert_cmpint(ret, ==, 0);
}

/* A block of the same name and size takes the other's place. */
RAMBlock *make_twin(RAMBlock *block, uint32_t flags)
{
    ram_block_unset_idstr(block);
    return make_block(block->idstr, block->max_length, flags);
}

void assert_same(const RAMBlock *a, const RAMBlock *b)
{
    uint64_t length = ram_block_used_length(a);

    g_assert_cmpuint(length, ==, ram_block_used_length(b));
    for (uint64_t at = 0; at < length; at += PAGE) {
        if (memcmp(a->host + at, b->host + at, PAGE)) {
            g_error("%s differs in the page at 0x%" PRIx64, a->idstr, at);
        }
    }
}

uint64_t touched_pages(const RAMBlock *block)
{
    uint64_t pages = block->max_length / PAGE, n = 0;
    g_autofree uint64_t *map = g_new(uint64_t, pages / 64 + 1);

    g_assert_true(ram_block_populated(block, 0, block->max_length, map));
    for (uint64_t page = 0; page < pages; page++) {
        n += map[page / 64] >> page % 64 & 1;
    }
    return n;
}

void xbzrle(MigrationSettings *settings)
{
    settings->caps[MIGRATION_CAPABILITY_XBZRLE] = true;
    settings->params.xbzrle_cache_size = 64 * PAGE;
}
