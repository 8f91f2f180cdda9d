/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Throttle groups: limits that several nodes or devices share.
 *
 * A member queues its requests, reads and writes apart. In each direction one waiting request of the group
 * holds the token. It sleeps until the buckets let it start, and then hands the token to the next member in
 * turn. So no timer belongs to the group, and members may live in different threads.
 *
 * Groups are made and looked up in the main thread. Requests of a member wait in the threads that
 * its graph takes them from.
 */
#ifndef FERRY_BLOCK_THROTTLE_GROUP_H
#define FERRY_BLOCK_THROTTLE_GROUP_H

#include "util/aio.h"
#include "util/queue.h"
#include "util/throttle.h"

typedef struct ThrottleGroup ThrottleGroup;
typedef struct ThrottledRequest ThrottledRequest;
TAILQ_HEAD(ThrottledRequestList, ThrottledRequest);

typedef struct ThrottleGroupMember {
    ThrottleGroup *group; /* referenced */
    /* Under the group's lock. */
    struct ThrottledRequestList queue[2]; /* [is_write], the token's holder included */
    unsigned bypass;                      /* > 0: limits do not apply (drained section) */
    TAILQ_ENTRY(ThrottleGroupMember) next;
} ThrottleGroupMember;

/* The group of that name; a new one without limits when there is none. One reference. */
ThrottleGroup *throttle_group_get(const char *name);
/* The same, NULL when there is none. */
ThrottleGroup *throttle_group_find(const char *name);
void throttle_group_ref(ThrottleGroup *group);
void throttle_group_unref(ThrottleGroup *group);
/* A member holds a reference besides that of its object. */
bool throttle_group_in_use(const ThrottleGroup *group);
const char *throttle_group_name(const ThrottleGroup *group);
/*
 * cfg was checked by throttle_config_is_valid(). Waiting requests look at the new limits at once.
 */
void throttle_group_set_config(ThrottleGroup *group, const ThrottleConfig *cfg);
void throttle_group_get_config(ThrottleGroup *group, ThrottleConfig *cfg);

/* Takes over the caller's reference to group. */
void throttle_member_init(ThrottleGroupMember *member, ThrottleGroup *group);
/* No request of the member is waiting. */
void throttle_member_destroy(ThrottleGroupMember *member);
/* Waits until the limits let a request of `bytes` start, and counts it. */
void coroutine_fn throttle_member_co_wait(ThrottleGroupMember *member, int64_t bytes,
                                          bool is_write);
/* From now on, until the matching end, requests do not wait; those that do go on. Nests. */
void throttle_member_bypass_begin(ThrottleGroupMember *member);
void throttle_member_bypass_end(ThrottleGroupMember *member);

#endif
