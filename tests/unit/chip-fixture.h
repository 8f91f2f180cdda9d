/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests of chips without a bus: qtest's clock, ports by their register table, lines that count their edges,
 * and sections as bytes.
 */
#ifndef FERRY_TESTS_UNIT_CHIP_FIXTURE_H
#define FERRY_TESTS_UNIT_CHIP_FIXTURE_H

#include <glib.h>
#include <json-c/json.h>
#include <string.h>
#include "accel/qtest/qtest.h"
#include "hw/core/irq.h"
#include "hw/core/register.h"
#include "util/aio.h"
#include "vmstate/json-writer.h"
#include "vmstate/qemu-file.h"
#include "vmstate/vmstate.h"

/* --- lines --- */

/* The input of something that listens. */
typedef struct Listener {
    IRQLine line;
    unsigned rises;
    int64_t risen_at; /* the last time */
} Listener;

static inline void listener_told(void *opaque, int n, int level)
{
    Listener *l = opaque;

    if (level) {
        l->rises++;
        l->risen_at = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    }
}

static inline void listener_init(Listener *l)
{
    *l = (Listener){0};
    irq_line_init(&l->line, listener_told, l, 0);
}

/* --- time --- */

static inline int64_t chip_now(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
}

static inline void chip_step_to(int64_t ns)
{
    g_assert_true(qtest_clock_set_ns(ns));
}

static inline void chip_step(int64_t ns)
{
    chip_step_to(chip_now() + ns);
}

static inline void chip_test_start(int *argc, char ***argv)
{
    g_autoptr(GError) err = NULL;

    g_test_init(argc, argv, NULL);
    g_assert_true(qemu_init_main_loop(&err));
    qtest_clock_init();
}

/* --- sections --- */

static inline GBytes *chip_save(const VMStateDescription *vmsd, void *chip)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(G_MAXINT);
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(vmstate_save_state(f, vmsd, chip, NULL, &err), ==, 0);
    g_assert_no_error(err);
    return qemu_file_memory_steal(f);
}

static inline bool chip_load(const VMStateDescription *vmsd, void *chip, GBytes *bytes)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_input(bytes);
    g_autoptr(GError) err = NULL;
    bool loaded = vmstate_load_state(f, vmsd, chip, vmsd->version_id, &err) == 0;

    g_assert_true(loaded == !err);
    return loaded;
}

/* The section with some bytes replaced. */
static inline GBytes *chip_patch(GBytes *bytes, size_t at, const void *with, size_t n)
{
    size_t size;
    const uint8_t *data = g_bytes_get_data(bytes, &size);
    uint8_t *copy = g_memdup2(data, size);

    g_assert_cmpuint(at + n, <=, size);
    memcpy(copy + at, with, n);
    return g_bytes_new_take(copy, size);
}

static inline bool chip_load_patched(const VMStateDescription *vmsd, void *chip, GBytes *bytes,
                                     size_t at, uint8_t value)
{
    g_autoptr(GBytes) bad = chip_patch(bytes, at, &value, 1);

    return chip_load(vmsd, chip, bad);
}

/* The section is described as `expected`, the JSON of stock QEMU. */
static inline void chip_assert_described(const VMStateDescription *vmsd, void *chip,
                                         const char *expected)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(G_MAXINT);
    JSONWriter *writer = json_writer_new(false);
    json_object *ours, *stocks = json_tokener_parse(expected);

    json_writer_start_object(writer, NULL);
    g_assert_cmpint(vmstate_save_state(f, vmsd, chip, writer, NULL), ==, 0);
    json_writer_end_object(writer);
    ours = json_tokener_parse(json_writer_get(writer));
    g_assert_nonnull(stocks);
    g_assert_cmpstr(json_object_to_json_string(ours), ==, json_object_to_json_string(stocks));
    json_object_put(ours);
    json_object_put(stocks);
    json_writer_free(writer);
}

#endif
