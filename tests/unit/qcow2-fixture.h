/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of qcow2 over real files: images from JSON. What fails, fails the test. */
#ifndef FERRY_TESTS_UNIT_QCOW2_FIXTURE_H
#define FERRY_TESTS_UNIT_QCOW2_FIXTURE_H

#include <glib.h>

#include "block/qcow2/qcow2.h"
#include "tests/unit/block-fixture.h"
#include "util/error.h"

/* A qcow2 image from the options of blockdev-create. */
static void coroutine_fn create_qcow2(const char *json)
{
    g_autoptr(GError) err = NULL;
    json_object *obj = json_tokener_parse(json);
    BlockdevCreateOptions *o = BlockdevCreateOptions_from_json(obj, QAPI_DECODE_JSON, &err);

    g_assert_no_error(err);
    json_object_put(obj);
    g_assert_true(bdrv_qcow2.bdrv_co_create(o, &err) || err);
    g_assert_no_error(err);
    qapi_free_BlockdevCreateOptions(o);
}

#endif
