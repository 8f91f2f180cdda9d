/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object type throttle-group. */
#ifndef FERRY_BLOCK_THROTTLE_GROUP_OBJECT_H
#define FERRY_BLOCK_THROTTLE_GROUP_OBJECT_H

#include "qom/user-creatable.h"

extern const UserCreatableOps throttle_group_object_ops;

#endif
