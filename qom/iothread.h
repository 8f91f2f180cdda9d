/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object type iothread: user_creatable_get() gives an IOThread (util/iothread.h). */
#ifndef FERRY_QOM_IOTHREAD_H
#define FERRY_QOM_IOTHREAD_H

#include "qom/user-creatable.h"

extern const UserCreatableOps iothread_object_ops;

#endif
