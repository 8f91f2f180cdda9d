/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Intrusive lists: libc's <sys/queue.h>, plus the loops that survive removal of the current
 * element.
 */
#ifndef FERRY_UTIL_QUEUE_H
#define FERRY_UTIL_QUEUE_H

#include <sys/queue.h>

#ifndef LIST_FOREACH_SAFE
#define LIST_FOREACH_SAFE(var, head, field, next) \
    for ((var) = LIST_FIRST(head); (var) && ((next) = LIST_NEXT(var, field), 1); (var) = (next))
#endif

#ifndef TAILQ_FOREACH_SAFE
#define TAILQ_FOREACH_SAFE(var, head, field, next) \
    for ((var) = TAILQ_FIRST(head); (var) && ((next) = TAILQ_NEXT(var, field), 1); (var) = (next))
#endif

#endif
