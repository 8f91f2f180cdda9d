/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Intrusive lists: libc's <sys/queue.h>, plus the loops that survive removal of the current
 * element.
 */
#ifndef FERRY_UTIL_QUEUE_H
#define FERRY_UTIL_QUEUE_H

#include <stdbool.h>
#include <sys/queue.h>

/* `next` runs one element ahead of `var`, so that `var` may be removed and freed. */
#undef LIST_FOREACH_SAFE
#define LIST_FOREACH_SAFE(var, head, field, next) \
    for ((next) = LIST_FIRST(head); ((var) = (next)) && ((next) = LIST_NEXT(next, field), true);)

#undef TAILQ_FOREACH_SAFE
#define TAILQ_FOREACH_SAFE(var, head, field, next) \
    for ((next) = TAILQ_FIRST(head); ((var) = (next)) && ((next) = TAILQ_NEXT(next, field), true);)

#endif
