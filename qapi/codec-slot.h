/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What encoding and decoding of QAPI values share; private to qapi/codec*.c. */
#ifndef FERRY_QAPI_CODEC_SLOT_H
#define FERRY_QAPI_CODEC_SLOT_H

#include "qapi/codec.h"

/* The type of the branch a union's discriminator selects; NULL for none, or no union. */
const QapiType *qapi_union_branch(const QapiType *type, const void *obj);

/* True when a value of this JSON type can be one of `type`. */
bool qapi_json_matches(const QapiType *type, json_type json);

/* The branch of an alternate that takes this JSON type, or NULL. */
const QapiMember *qapi_alternate_branch(const QapiType *type, json_type json);

/* A signed integer of any width. */
int64_t qapi_load_int(const QapiType *type, const void *slot);

#endif
