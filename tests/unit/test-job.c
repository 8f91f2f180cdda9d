/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs: the life cycle's table, verbs in every state, transactions, and the order of what users are
 * told.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/job/job-int.h"
#include "qapi/event.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/iothread.h"

/* --- a job that does what the test says --- */

typedef struct TestJob {
    union {
        Job job;
        BlockJob common;
    };
    bool become_ready;
    bool hold;   /* stay in run() until released, completed or cancelled */
    bool finish; /* complete or soft cancel was asked for */
    int run_ret, prepare_ret;
    GString *log; /* "P" prepare, "C" commit, "A" abort, "X" clean */
} TestJob;

static int coroutine_fn test_run(Job *job, GError **errp)
{
    TestJob *t = (TestJob *)job;

    if (t->become_ready) {
        job_co_transition_to_ready(job);
    }
    while (t->hold && !t->finish && !job_is_cancelled(job)) {
        job_co_pause_point(job);
        if (t->hold && !t->finish && !job_is_cancelled(job)) {
            job_co_yield(job, true);
        }
    }
    if (t->run_ret < 0) {
        error_setg(errp, "it broke");
    }
    return t->run_ret;
}

static int coroutine_fn test_prepare(Job *job, GError **errp)
{
    TestJob *t = (TestJob *)job;

    g_string_append_c(t->log, 'P');
    if (t->prepare_ret < 0) {
        error_setg(errp, "not prepared");
    }
    return t->prepare_ret;
}

static void coroutine_fn test_commit(Job *job)
{
    g_string_append_c(((TestJob *)job)->log, 'C');
}

static void coroutine_fn test_abort(Job *job)
{
    g_string_append_c(((TestJob *)job)->log, 'A');
}

static void coroutine_fn test_clean(Job *job)
{
    g_string_append_c(((TestJob *)job)->log, 'X');
}

static bool test_complete(Job *job, GError **errp)
{
    ((TestJob *)job)->finish = true;
    job_enter(job);
    return true;
}

static bool test_cancel(Job *job, bool force)
{
    if (!force && job_is_ready(job)) {
        ((TestJob *)job)->finish = true;
        return false;
    }
    return true;
}

static const JobDriver test_driver = {
    .instance_size = sizeof(TestJob),
    .job_type = JOB_TYPE_MIRROR,
    .run = test_run,
    .prepare = test_prepare,
    .commit = test_commit,
    .abort = test_abort,
    .clean = test_clean,
    .complete = test_complete,
    .cancel = test_cancel,
};

/* --- what users are told --- */

static GString *told; /* "j:created j:running ..." */

/* Paused again, as a drain does it, when it is told to be running; and whether it counted as quiet. */
static Job *pause_at_running;
static bool quiet_at_running;

static void record_event(const char *name, json_object *data)
{
    json_object *id, *status;

    if (strcmp(name, "JOB_STATUS_CHANGE") == 0 && json_object_object_get_ex(data, "id", &id) &&
        json_object_object_get_ex(data, "status", &status)) {
        g_string_append_printf(told, "%s%s:%s", told->len ? " " : "", json_object_get_string(id),
                               json_object_get_string(status));
        if (pause_at_running && strcmp(json_object_get_string(status), "running") == 0) {
            quiet_at_running = __atomic_load_n(&pause_at_running->paused, __ATOMIC_SEQ_CST);
            job_pause(g_steal_pointer(&pause_at_running));
        }
    }
    json_object_put(data);
}

static void expect_told(const char *what)
{
    g_assert_cmpstr(told->str, ==, what);
    g_string_truncate(told, 0);
}

static TestJob *new_job(const char *id, JobTxn *txn, int flags)
{
    GError *err = NULL;
    TestJob *t = job_create(id, &test_driver, txn, qemu_get_aio_context(), flags, &err);

    g_assert_no_error(err);
    t->log = g_string_new(NULL);
    job_ref(&t->job); /* the test looks at it after its end */
    return t;
}

static void drop_job(TestJob *t)
{
    g_string_free(t->log, true);
    job_unref(&t->job);
}

static void run_until(TestJob *t, JobStatus status)
{
    while (t->job.status != status) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

/* --- the tables --- */

/*
 * Rows: undefined created running paused ready standby waiting pending aborting concluded null;
 * columns: JobEvent.
 */
static const char *const expected_next[JOB_STATUS__MAX] = {
    /* create start pause resume ready run-ended all-ran fail conclude dismiss */
    "created - - - - - - - - -",
    "- running - - - - - aborting - null",
    "- - paused - ready waiting - aborting - -",
    "- - - running - - - - - -",
    "- - standby - - waiting - aborting - -",
    "- - - ready - - - - - -",
    "- - - - - - pending aborting - -",
    "- - - - - - - aborting concluded -",
    "- - - - - - - - concluded -",
    "- - - - - - - - - null",
    "- - - - - - - - - -",
};

static void test_status_table(void)
{
    for (int s = 0; s < JOB_STATUS__MAX; s++) {
        g_auto(GStrv) next = g_strsplit(expected_next[s], " ", -1);

        g_assert_cmpuint(g_strv_length(next), ==, JOB_EVENT_MAX);
        for (int e = 0; e < JOB_EVENT_MAX; e++) {
            JobStatus got = job_next_status(s, e);

            g_assert_cmpstr(got == JOB_STATUS_UNDEFINED ? "-" : JobStatus_str(got), ==, next[e]);
        }
    }
}

/* Which verbs each status takes. */
static const char *const expected_verbs[JOB_STATUS__MAX] = {
    "",
    "cancel pause resume set-speed change",
    "cancel pause resume set-speed change",
    "cancel pause resume set-speed change",
    "cancel pause resume set-speed complete change",
    "cancel pause resume set-speed complete change",
    "cancel",
    "cancel finalize",
    "",
    "dismiss",
    "",
};

static void test_verb_table(void)
{
    for (int s = 0; s < JOB_STATUS__MAX; s++) {
        g_auto(GStrv) verbs = g_strsplit(expected_verbs[s], " ", -1);

        for (int v = 0; v < JOB_VERB__MAX; v++) {
            g_assert_cmpint(job_status_takes_verb(s, v), ==,
                            g_strv_contains((const char *const *)verbs, JobVerb_str(v)));
        }
    }
}

/* --- life --- */

static void test_success(void)
{
    TestJob *t = new_job("j", NULL, JOB_DEFAULT);

    job_start(&t->job);
    run_until(t, JOB_STATUS_NULL);
    expect_told("j:created j:running j:waiting j:pending j:concluded j:null");
    g_assert_cmpstr(t->log->str, ==, "PCX");
    g_assert_null(job_get("j"));
    drop_job(t);
}

static void test_failure(void)
{
    TestJob *t = new_job("j", NULL, JOB_MANUAL_DISMISS);
    g_autoptr(JobInfo) info = NULL;

    t->run_ret = -EIO;
    job_start(&t->job);
    run_until(t, JOB_STATUS_CONCLUDED);
    expect_told("j:created j:running j:aborting j:concluded");
    g_assert_cmpstr(t->log->str, ==, "AX");
    info = job_query(&t->job);
    g_assert_cmpstr(info->error, ==, "it broke");
    g_assert_true(job_dismiss(&t->job, NULL));
    expect_told("j:null");
    drop_job(t);
}

static void test_prepare_failure(void)
{
    TestJob *t = new_job("j", NULL, JOB_DEFAULT);

    t->prepare_ret = -EPERM;
    job_start(&t->job);
    run_until(t, JOB_STATUS_NULL);
    expect_told("j:created j:running j:waiting j:pending j:aborting j:concluded j:null");
    g_assert_cmpstr(t->log->str, ==, "PAX");
    g_assert_cmpint(t->job.ret, ==, -EPERM);
    drop_job(t);
}

static void test_early_fail(void)
{
    TestJob *t = new_job("j", NULL, JOB_DEFAULT);

    job_early_fail(&t->job);
    expect_told("j:created j:null");
    drop_job(t);
}

static void test_ids(void)
{
    static const char *const bad[] = {"", "1a", "-a", "a b", "a/b", "\303\244"};
    GError *err = NULL;
    TestJob *t = new_job("a-b.c_9", NULL, JOB_DEFAULT);

    g_assert_null(
        job_create("a-b.c_9", &test_driver, NULL, qemu_get_aio_context(), JOB_DEFAULT, &err));
    g_assert_cmpstr(err->message, ==, "Job ID 'a-b.c_9' already in use");
    g_clear_error(&err);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *text = g_strdup_printf("Invalid job ID '%s'", bad[i]);

        g_assert_null(
            job_create(bad[i], &test_driver, NULL, qemu_get_aio_context(), JOB_DEFAULT, &err));
        g_assert_cmpstr(err->message, ==, text);
        g_clear_error(&err);
    }
    job_early_fail(&t->job);
    drop_job(t);
    g_string_truncate(told, 0);
}

/* --- verbs in every state --- */

/* A job brought to `status`. */
static TestJob *job_in(JobStatus status)
{
    int flags = JOB_MANUAL_DISMISS | (status == JOB_STATUS_PENDING ? JOB_MANUAL_FINALIZE : 0);
    TestJob *t = new_job("j", NULL, flags);

    t->hold = status != JOB_STATUS_PENDING && status != JOB_STATUS_CONCLUDED;
    t->become_ready = status == JOB_STATUS_READY || status == JOB_STATUS_STANDBY;
    if (status != JOB_STATUS_CREATED) {
        job_start(&t->job);
    }
    if (status == JOB_STATUS_STANDBY) {
        run_until(t, JOB_STATUS_READY);
    }
    if (status == JOB_STATUS_PAUSED || status == JOB_STATUS_STANDBY) {
        g_assert_true(job_user_pause(&t->job, NULL));
    }
    run_until(t, status);
    return t;
}

static void end_job(TestJob *t)
{
    if (t->job.status != JOB_STATUS_CONCLUDED && t->job.status != JOB_STATUS_NULL) {
        g_assert_true(job_user_cancel(&t->job, true, NULL));
        run_until(t, JOB_STATUS_CONCLUDED);
    }
    if (t->job.status == JOB_STATUS_CONCLUDED) {
        g_assert_true(job_dismiss(&t->job, NULL));
    }
    drop_job(t);
}

static const JobStatus reachable[] = {JOB_STATUS_CREATED,  JOB_STATUS_RUNNING, JOB_STATUS_PAUSED,
                                      JOB_STATUS_READY,    JOB_STATUS_STANDBY, JOB_STATUS_PENDING,
                                      JOB_STATUS_CONCLUDED};

static void test_refusals(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(reachable); i++) {
        for (int v = 0; v < JOB_VERB__MAX; v++) {
            TestJob *t = job_in(reachable[i]);
            g_autofree char *text =
                g_strdup_printf("Job 'j' in state '%s' cannot accept command verb '%s'",
                                JobStatus_str(reachable[i]), JobVerb_str(v));
            GError *err = NULL;
            bool ok = job_apply_verb(&t->job, v, &err);

            g_assert_cmpint(ok, ==, job_status_takes_verb(reachable[i], v));
            if (!ok) {
                g_assert_cmpstr(err->message, ==, text);
                g_clear_error(&err);
            }
            end_job(t);
        }
    }
    g_string_truncate(told, 0);
}

static void test_pause_resume(void)
{
    TestJob *t = job_in(JOB_STATUS_RUNNING);
    GError *err = NULL;

    g_assert_false(job_user_resume(&t->job, &err));
    g_assert_cmpstr(err->message, ==, "Can't resume a job that was not paused");
    g_clear_error(&err);
    g_assert_true(job_user_pause(&t->job, NULL));
    g_assert_false(job_user_pause(&t->job, &err));
    g_assert_cmpstr(err->message, ==, "Job is already paused");
    g_clear_error(&err);
    run_until(t, JOB_STATUS_PAUSED);
    /* A drained section on top: only the last resume lets it go on. */
    job_pause(&t->job);
    g_assert_true(job_user_resume(&t->job, NULL));
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    g_assert_cmpint(t->job.status, ==, JOB_STATUS_PAUSED);
    job_resume(&t->job);
    run_until(t, JOB_STATUS_RUNNING);
    expect_told("j:created j:running j:paused j:running");
    end_job(t);
    g_string_truncate(told, 0);
}

/* A drain that begins while users are told of the end of a pause: it must not find the job quiet. */
static void test_pause_during_resume(void)
{
    TestJob *t = job_in(JOB_STATUS_PAUSED);

    g_string_truncate(told, 0);
    pause_at_running = &t->job;
    g_assert_true(job_user_resume(&t->job, NULL));
    while (pause_at_running) {
        aio_poll(qemu_get_aio_context(), true);
    }
    run_until(t, JOB_STATUS_PAUSED);
    g_assert_false(quiet_at_running);
    expect_told("j:running j:paused");
    job_resume(&t->job);
    run_until(t, JOB_STATUS_RUNNING);
    end_job(t);
}

static void test_cancel_everywhere(void)
{
    static const JobStatus cancellable[] = {JOB_STATUS_CREATED, JOB_STATUS_RUNNING,
                                            JOB_STATUS_PAUSED,  JOB_STATUS_READY,
                                            JOB_STATUS_STANDBY, JOB_STATUS_PENDING};

    for (size_t i = 0; i < G_N_ELEMENTS(cancellable); i++) {
        TestJob *t = job_in(cancellable[i]);

        g_assert_true(job_user_cancel(&t->job, true, NULL));
        run_until(t, JOB_STATUS_CONCLUDED);
        g_assert_cmpint(t->job.ret, ==, -ECANCELED);
        g_assert_cmpstr(t->job.err->message, ==, "Operation canceled");
        g_assert_true(g_str_has_suffix(told->str, "j:aborting j:concluded"));
        g_assert_true(g_str_has_suffix(t->log->str, "AX"));
        end_job(t);
        g_string_truncate(told, 0);
    }
}

typedef struct Failure {
    TestJob *t;
    BlockErrorAction action;
    int over; /* atomic */
} Failure;

static void coroutine_fn fail_co_entry(void *opaque)
{
    Failure *f = opaque;

    f->action = block_job_co_error_action(&f->t->common, BLOCKDEV_ON_ERROR_STOP, false, EIO);
    __atomic_store_n(&f->over, 1, __ATOMIC_RELEASE);
}

/*
 * A request fails in an iothread while a drain holds the job. Before the main thread hears of it the job
 * is cancelled: it must not wait for a user to resume it.
 */
static void test_cancel_overtakes_an_error(void)
{
    IOThread *iothread = iothread_new("io", NULL);
    TestJob *t = job_in(JOB_STATUS_RUNNING);
    Failure f = {.t = t};

    job_pause(&t->job);
    run_until(t, JOB_STATUS_PAUSED);
    aio_co_schedule(iothread_get_aio_context(iothread), qemu_coroutine_create(fail_co_entry, &f));
    while (__atomic_load_n(&t->job.pause_count, __ATOMIC_SEQ_CST) < 2) {
        g_thread_yield();
    }
    g_assert_true(job_user_cancel(&t->job, false, NULL));
    while (!__atomic_load_n(&f.over, __ATOMIC_ACQUIRE)) {
        aio_poll(qemu_get_aio_context(), false);
    }
    g_assert_cmpint(f.action, ==, BLOCK_ERROR_ACTION_REPORT);
    job_resume(&t->job);
    run_until(t, JOB_STATUS_CONCLUDED);
    end_job(t);
    iothread_free(iothread);
    g_string_truncate(told, 0);
}

/* What a drain holds may be cancelled; a pause that comes after would keep it for ever. */
static void test_a_cancelled_job_is_not_paused(void)
{
    TestJob *t = job_in(JOB_STATUS_RUNNING);
    GError *err = NULL;

    job_pause(&t->job);
    run_until(t, JOB_STATUS_PAUSED);
    g_assert_true(job_user_cancel(&t->job, true, NULL));
    g_assert_false(job_user_pause(&t->job, &err));
    g_assert_cmpstr(err->message, ==, "Job 'j' is being cancelled");
    g_clear_error(&err);
    job_resume(&t->job);
    run_until(t, JOB_STATUS_CONCLUDED);
    end_job(t);
    g_string_truncate(told, 0);
}

/* After READY a cancel without force lets the job end well; on a paused job it is refused. */
static void test_soft_cancel(void)
{
    TestJob *t = job_in(JOB_STATUS_STANDBY);
    GError *err = NULL;

    g_assert_false(job_user_cancel(&t->job, false, &err));
    g_assert_true(
        g_str_has_prefix(err->message, "The block job for device 'j' is currently paused"));
    g_clear_error(&err);
    g_assert_true(job_user_resume(&t->job, NULL));
    run_until(t, JOB_STATUS_READY);
    g_assert_true(job_user_cancel(&t->job, false, NULL));
    run_until(t, JOB_STATUS_CONCLUDED);
    g_assert_cmpint(t->job.ret, ==, 0);
    g_assert_cmpstr(t->log->str, ==, "PCX");
    expect_told("j:created j:running j:ready j:standby j:ready j:waiting j:pending j:concluded");
    end_job(t);
    g_string_truncate(told, 0);
}

static void test_finalize(void)
{
    TestJob *t = job_in(JOB_STATUS_PENDING);

    g_assert_cmpstr(t->log->str, ==, "");
    g_assert_true(job_finalize(&t->job, NULL));
    run_until(t, JOB_STATUS_CONCLUDED);
    g_assert_cmpint(t->job.status, ==, JOB_STATUS_CONCLUDED);
    g_assert_cmpstr(t->log->str, ==, "PCX");
    end_job(t);
    g_string_truncate(told, 0);
}

/* --- transactions --- */

static void test_txn_success(void)
{
    JobTxn *txn = job_txn_new();
    TestJob *a = new_job("a", txn, JOB_DEFAULT), *b = new_job("b", txn, JOB_DEFAULT);

    job_txn_unref(txn);
    b->hold = true;
    job_start(&a->job);
    job_start(&b->job);
    run_until(a, JOB_STATUS_WAITING);
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    g_assert_cmpint(a->job.status, ==, JOB_STATUS_WAITING);
    b->finish = true;
    job_enter(&b->job);
    run_until(b, JOB_STATUS_NULL);
    expect_told("a:created b:created a:running b:running a:waiting b:waiting a:pending b:pending "
                "a:concluded a:null b:concluded b:null");
    g_assert_cmpstr(a->log->str, ==, "PCX");
    g_assert_cmpstr(b->log->str, ==, "PCX");
    drop_job(a);
    drop_job(b);
}

/* One fails while others wait, run and have not been started: none is committed. */
static void test_txn_failure(void)
{
    JobTxn *txn = job_txn_new();
    TestJob *a = new_job("a", txn, JOB_DEFAULT), *b = new_job("b", txn, JOB_DEFAULT),
            *c = new_job("c", txn, JOB_DEFAULT), *d = new_job("d", txn, JOB_DEFAULT);

    job_txn_unref(txn);
    b->hold = true;
    d->hold = true;
    d->run_ret = -EIO;
    job_start(&a->job);
    job_start(&b->job);
    job_start(&d->job);
    run_until(a, JOB_STATUS_WAITING);
    run_until(b, JOB_STATUS_RUNNING);
    d->finish = true;
    job_enter(&d->job);
    run_until(b, JOB_STATUS_NULL);
    g_assert_cmpint(a->job.ret, ==, -ECANCELED);
    g_assert_cmpint(b->job.ret, ==, -ECANCELED);
    g_assert_cmpint(c->job.ret, ==, -ECANCELED);
    g_assert_cmpint(d->job.ret, ==, -EIO);
    g_assert_cmpstr(a->log->str, ==, "AX");
    g_assert_cmpstr(b->log->str, ==, "AX");
    g_assert_cmpstr(c->log->str, ==, "AX");
    g_assert_cmpstr(d->log->str, ==, "AX");
    while (d->job.status != JOB_STATUS_NULL || c->job.status != JOB_STATUS_NULL) {
        aio_poll(qemu_get_aio_context(), true);
    }
    drop_job(a);
    drop_job(b);
    drop_job(c);
    drop_job(d);
    g_string_truncate(told, 0);
}

static void test_txn_prepare_failure(void)
{
    JobTxn *txn = job_txn_new();
    TestJob *a = new_job("a", txn, JOB_DEFAULT), *b = new_job("b", txn, JOB_DEFAULT);

    job_txn_unref(txn);
    b->prepare_ret = -ENOSPC;
    job_start(&a->job);
    job_start(&b->job);
    run_until(b, JOB_STATUS_NULL);
    g_assert_cmpint(a->job.ret, ==, -ECANCELED);
    g_assert_cmpint(b->job.ret, ==, -ENOSPC);
    g_assert_cmpstr(a->log->str, ==, "PAX");
    g_assert_cmpstr(b->log->str, ==, "PAX");
    drop_job(a);
    drop_job(b);
    g_string_truncate(told, 0);
}

static void coroutine_fn cancel_all_entry(void *opaque)
{
    job_co_cancel_sync_all();
}

static void test_cancel_all(void)
{
    JobTxn *txn = job_txn_new();
    TestJob *a = new_job("a", txn, JOB_DEFAULT), *b = new_job("b", txn, JOB_DEFAULT),
            *c = new_job("c", NULL, JOB_DEFAULT), *d = new_job("d", NULL, JOB_MANUAL_DISMISS);

    job_txn_unref(txn);
    a->hold = true;
    c->hold = true;
    job_start(&a->job);
    job_start(&b->job);
    job_start(&d->job);
    run_until(d, JOB_STATUS_CONCLUDED);
    run_until(b, JOB_STATUS_WAITING);
    aio_run_coroutine(cancel_all_entry, NULL);
    g_assert_cmpint(a->job.status, ==, JOB_STATUS_NULL);
    g_assert_cmpint(b->job.status, ==, JOB_STATUS_NULL);
    g_assert_cmpint(c->job.status, ==, JOB_STATUS_NULL);
    g_assert_cmpint(d->job.status, ==, JOB_STATUS_CONCLUDED);
    drop_job(a);
    drop_job(b);
    drop_job(c);
    end_job(d);
    g_string_truncate(told, 0);
}

/* --- waits --- */

static int waits_woken;

static int coroutine_fn wait_run(Job *job, GError **errp)
{
    /* A wake-up that came before the wait is not lost. */
    job_enter(job);
    job_co_yield(job, true);
    waits_woken++;
    job_co_sleep_ns(job, 3600 * NANOSECONDS_PER_SECOND);
    waits_woken++;
    job_co_sleep_ns(job, 1);
    waits_woken++;
    return 0;
}

static void test_waits(void)
{
    static const JobDriver driver = {
        .instance_size = sizeof(TestJob), .job_type = JOB_TYPE_MIRROR, .run = wait_run};
    TestJob *t = job_create("w", &driver, NULL, qemu_get_aio_context(), JOB_DEFAULT, NULL);

    job_ref(&t->job);
    waits_woken = 0;
    job_start(&t->job);
    while (waits_woken < 1) {
        aio_poll(qemu_get_aio_context(), true);
    }
    job_enter(&t->job);
    run_until(t, JOB_STATUS_NULL);
    g_assert_cmpint(waits_woken, ==, 3);
    job_unref(&t->job);
    g_string_truncate(told, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    told = g_string_new(NULL);
    qapi_event_set_sink(record_event);

    g_test_add_func("/job/table/status", test_status_table);
    g_test_add_func("/job/table/verbs", test_verb_table);
    g_test_add_func("/job/life/success", test_success);
    g_test_add_func("/job/life/failure", test_failure);
    g_test_add_func("/job/life/prepare-failure", test_prepare_failure);
    g_test_add_func("/job/life/early-fail", test_early_fail);
    g_test_add_func("/job/life/ids", test_ids);
    g_test_add_func("/job/verbs/refusals", test_refusals);
    g_test_add_func("/job/verbs/pause-resume", test_pause_resume);
    g_test_add_func("/job/verbs/pause-during-resume", test_pause_during_resume);
    g_test_add_func("/job/verbs/cancel-everywhere", test_cancel_everywhere);
    g_test_add_func("/job/verbs/cancel-overtakes-error", test_cancel_overtakes_an_error);
    g_test_add_func("/job/verbs/cancelled-is-not-paused", test_a_cancelled_job_is_not_paused);
    g_test_add_func("/job/verbs/soft-cancel", test_soft_cancel);
    g_test_add_func("/job/verbs/finalize", test_finalize);
    g_test_add_func("/job/txn/success", test_txn_success);
    g_test_add_func("/job/txn/failure", test_txn_failure);
    g_test_add_func("/job/txn/prepare-failure", test_txn_prepare_failure);
    g_test_add_func("/job/txn/cancel-all", test_cancel_all);
    g_test_add_func("/job/waits", test_waits);
    return g_test_run();
}
