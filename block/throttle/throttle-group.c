/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Throttle groups. */
#include "block/throttle/throttle-group.h"

#include <string.h>

/* A request that waits; lives on its coroutine's stack. */
struct ThrottledRequest {
    ThrottleGroupMember *member;
    Coroutine *co;
    AioContext *ctx;
    QemuCoSleep sleep; /* in use while it holds the token */
    bool has_token;
    bool let_go; /* bypass: leave the queue without asking the buckets */
    TAILQ_ENTRY(ThrottledRequest) next;
};

struct ThrottleGroup {
    char *name;
    int refcnt; /* atomic */
    TAILQ_ENTRY(ThrottleGroup) all;

    pthread_mutex_t lock; /* protects what follows */
    ThrottleState ts;
    TAILQ_HEAD(, ThrottleGroupMember) members;
    ThrottledRequest *token[2]; /* holder of the token of a direction, NULL: no request waits */
};

/* Main thread. */
/* Under groups_lock: nodes leave their groups in the threads of their graphs. */
static TAILQ_HEAD(, ThrottleGroup) groups = TAILQ_HEAD_INITIALIZER(groups);
static pthread_mutex_t groups_lock = PTHREAD_MUTEX_INITIALIZER;

static int64_t now_ns(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

ThrottleGroup *throttle_group_find(const char *name)
{
    ThrottleGroup *group;

    pthread_mutex_lock(&groups_lock);
    TAILQ_FOREACH(group, &groups, all) {
        if (!strcmp(group->name, name)) {
            throttle_group_ref(group);
            break;
        }
    }
    pthread_mutex_unlock(&groups_lock);
    return group;
}

ThrottleGroup *throttle_group_get(const char *name)
{
    ThrottleGroup *group = throttle_group_find(name);
    ThrottleConfig cfg;

    if (group) {
        return group;
    }
    group = g_new0(ThrottleGroup, 1);
    group->name = g_strdup(name);
    group->refcnt = 1;
    pthread_mutex_init(&group->lock, NULL);
    TAILQ_INIT(&group->members);
    throttle_config_init(&cfg);
    throttle_init(&group->ts, &cfg, now_ns());
    pthread_mutex_lock(&groups_lock);
    TAILQ_INSERT_TAIL(&groups, group, all);
    pthread_mutex_unlock(&groups_lock);
    return group;
}

void throttle_group_ref(ThrottleGroup *group)
{
    __atomic_fetch_add(&group->refcnt, 1, __ATOMIC_RELAXED);
}

void throttle_group_unref(ThrottleGroup *group)
{
    bool last;

    if (!group) {
        return;
    }
    pthread_mutex_lock(&groups_lock);
    last = __atomic_sub_fetch(&group->refcnt, 1, __ATOMIC_ACQ_REL) == 0;
    if (last) {
        TAILQ_REMOVE(&groups, group, all);
    }
    pthread_mutex_unlock(&groups_lock);
    if (!last) {
        return;
    }
    pthread_mutex_destroy(&group->lock);
    g_free(group->name);
    g_free(group);
}

bool throttle_group_in_use(const ThrottleGroup *group)
{
    return __atomic_load_n(&group->refcnt, __ATOMIC_ACQUIRE) > 1;
}

const char *throttle_group_name(const ThrottleGroup *group)
{
    return group->name;
}

typedef struct TokenKick {
    ThrottleGroup *group;
    AioContext *ctx;
} TokenKick;

/* In the holder's thread: its wait was computed with limits that are gone. */
static void kick_token_bh(void *opaque)
{
    TokenKick *kick = opaque;
    ThrottleGroup *group = kick->group;

    pthread_mutex_lock(&group->lock);
    for (int i = 0; i < 2; i++) {
        if (group->token[i] && group->token[i]->ctx == kick->ctx) {
            qemu_co_sleep_wake(&group->token[i]->sleep);
        }
    }
    pthread_mutex_unlock(&group->lock);
    throttle_group_unref(group);
    g_free(kick);
}

static void schedule_kick(ThrottleGroup *group, AioContext *ctx)
{
    TokenKick *kick = g_new(TokenKick, 1);

    throttle_group_ref(group);
    *kick = (TokenKick){.group = group, .ctx = ctx};
    aio_bh_schedule_oneshot(ctx, kick_token_bh, kick);
}

void throttle_group_set_config(ThrottleGroup *group, const ThrottleConfig *cfg)
{
    pthread_mutex_lock(&group->lock);
    throttle_set_config(&group->ts, cfg, now_ns());
    for (int i = 0; i < 2; i++) {
        if (group->token[i]) {
            schedule_kick(group, group->token[i]->ctx);
        }
    }
    pthread_mutex_unlock(&group->lock);
}

void throttle_group_get_config(ThrottleGroup *group, ThrottleConfig *cfg)
{
    pthread_mutex_lock(&group->lock);
    *cfg = group->ts.cfg;
    pthread_mutex_unlock(&group->lock);
}

/* --- members --- */

void throttle_member_init(ThrottleGroupMember *member, ThrottleGroup *group)
{
    member->group = group;
    member->bypass = 0;
    TAILQ_INIT(&member->queue[0]);
    TAILQ_INIT(&member->queue[1]);
    pthread_mutex_lock(&group->lock);
    TAILQ_INSERT_TAIL(&group->members, member, next);
    pthread_mutex_unlock(&group->lock);
}

void throttle_member_destroy(ThrottleGroupMember *member)
{
    ThrottleGroup *group = member->group;

    g_assert(TAILQ_EMPTY(&member->queue[0]) && TAILQ_EMPTY(&member->queue[1]));
    pthread_mutex_lock(&group->lock);
    TAILQ_REMOVE(&group->members, member, next);
    pthread_mutex_unlock(&group->lock);
    member->group = NULL;
    throttle_group_unref(group);
}

/* Gives the token to the first request of the next member in turn after `from`. Lock held. */
static void pass_token(ThrottleGroup *group, ThrottleGroupMember *from, bool is_write)
{
    ThrottleGroupMember *m = from;
    ThrottledRequest *req = NULL;

    group->token[is_write] = NULL;
    do {
        m = TAILQ_NEXT(m, next) ? TAILQ_NEXT(m, next) : TAILQ_FIRST(&group->members);
        req = TAILQ_FIRST(&m->queue[is_write]);
        /* One that was let go is on its way out already. */
        while (req && req->let_go) {
            req = TAILQ_NEXT(req, next);
        }
    } while (!req && m != from);
    if (req) {
        req->has_token = true;
        group->token[is_write] = req;
        aio_co_wake(req->co);
    }
}

/*
 * Holds the token: sleeps as long as the buckets say. Lock held on entry and return, not while
 * asleep.
 */
static void coroutine_fn sleep_with_token(ThrottleGroup *group, ThrottledRequest *req,
                                          bool is_write)
{
    int64_t wait_ns;

    while (!req->let_go && !req->member->bypass &&
           (wait_ns = throttle_compute_wait(&group->ts, is_write, now_ns())) > 0) {
        pthread_mutex_unlock(&group->lock);
        qemu_co_sleep_ns_wakeable(&req->sleep, QEMU_CLOCK_REALTIME, wait_ns);
        pthread_mutex_lock(&group->lock);
    }
}

void coroutine_fn throttle_member_co_wait(ThrottleGroupMember *member, int64_t bytes, bool is_write)
{
    ThrottleGroup *group = member->group;
    ThrottledRequest req = {
        .member = member,
        .co = qemu_coroutine_self(),
        .ctx = qemu_get_current_aio_context(),
    };

    pthread_mutex_lock(&group->lock);
    if (!member->bypass &&
        (group->token[is_write] || throttle_compute_wait(&group->ts, is_write, now_ns()) > 0)) {
        TAILQ_INSERT_TAIL(&member->queue[is_write], &req, next);
        if (!group->token[is_write]) {
            req.has_token = true;
            group->token[is_write] = &req;
        }
        while (!req.has_token && !req.let_go) {
            pthread_mutex_unlock(&group->lock);
            qemu_coroutine_yield();
            pthread_mutex_lock(&group->lock);
        }
        if (req.has_token) {
            sleep_with_token(group, &req, is_write);
        }
        TAILQ_REMOVE(&member->queue[is_write], &req, next);
        throttle_account(&group->ts, is_write, bytes);
        if (req.has_token) {
            pass_token(group, member, is_write);
        }
    } else {
        throttle_account(&group->ts, is_write, bytes);
    }
    pthread_mutex_unlock(&group->lock);
}

void throttle_member_bypass_begin(ThrottleGroupMember *member)
{
    ThrottleGroup *group = member->group;
    ThrottledRequest *req;

    pthread_mutex_lock(&group->lock);
    if (member->bypass++ == 0) {
        for (int i = 0; i < 2; i++) {
            TAILQ_FOREACH(req, &member->queue[i], next) {
                if (req->let_go) {
                    continue;
                }
                if (req->has_token && aio_context_in_own_thread(req->ctx)) {
                    qemu_co_sleep_wake(&req->sleep);
                } else if (req->has_token) {
                    schedule_kick(group, req->ctx);
                } else {
                    req->let_go = true;
                    aio_co_wake(req->co);
                }
            }
        }
    }
    pthread_mutex_unlock(&group->lock);
}

void throttle_member_bypass_end(ThrottleGroupMember *member)
{
    pthread_mutex_lock(&member->group->lock);
    g_assert(member->bypass > 0);
    member->bypass--;
    pthread_mutex_unlock(&member->group->lock);
}
