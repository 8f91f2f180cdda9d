/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP sessions: from the bytes of a chardev to requests, and from results and events to bytes.
 *
 *   WAITING no client is connected: no session exists NEGOTIATING greeting sent; only
 *   qmp_capabilities is taken
 *   COMMAND      every command is taken; events are sent
 *
 * A session lives from connect to disconnect, or longer while a command of it still runs; the
 * result of that command then goes nowhere. In-band requests run one after the other in the
 * session's runner coroutine, out-of-band ones at once in coroutines of their own. Reading stops
 * while QMP_QUEUE_MAX requests wait or the client does not read its replies, and so does the
 * runner, which bounds what a session holds.
 *
 * A session belongs to the context of its chardev: the monitors' thread, or the main thread. A handler
 * may run in the main thread meanwhile; it finds its session through the list of running commands.
 * Events come from any thread and go through the monitor's outbox, which is emptied before each reply.
 */
#include "monitor/qmp-int.h"

#include <string.h>
#include <unistd.h>
#include "qapi/dispatch.h"
#include "qapi/json.h"
#include "util/aio.h"
#include "util/timer.h"

/* In-band requests that wait; the one that runs is not counted. */
#define QMP_QUEUE_MAX 8
/* No command starts and nothing is read while more than this is unsent. */
#define QMP_OUTPUT_HIGH (1024 * 1024)
/* A client that lets events pile up beyond this is disconnected. */
#define QMP_OUTPUT_MAX (64 * 1024 * 1024)
/* The end of the process waits so long for queries. It has waited for other commands before. */
#define LAST_COMMANDS_NS NANOSECONDS_PER_SECOND

typedef struct QmpRequest {
    uint64_t number;   /* of the message in its session */
    json_object *json; /* NULL: null */
    GError *error;     /* the input was no JSON */
    TAILQ_ENTRY(QmpRequest) next;
} QmpRequest;
TAILQ_HEAD(QmpRequestList, QmpRequest);

typedef struct QmpSession QmpSession;

typedef struct MonitorQMP {
    CharFrontend fe;
    AioContext *ctx;
    bool pretty;
    NamedFds *named_fds; /* outlive a session, as clients reconnect */
    QmpSession *session; /* NULL: no client is connected */
    QEMUBH *outbox_bh;   /* empties the outbox */

    /* qmp.lock */
    bool listening;      /* the client has negotiated */
    GQueue outbox;       /* char *: events for the client */
    size_t outbox_bytes; /* beyond QMP_OUTPUT_MAX the client loses the connection, not an event */
    TAILQ_ENTRY(MonitorQMP) next;
} MonitorQMP;

struct QmpSession {
    unsigned refs;   /* the monitor while connected, and each coroutine that runs a command */
    MonitorQMP *mon; /* NULL: the client is gone */
    QmpState state;
    bool listening; /* the monitor's: events are sent */
    bool eof;       /* the client sends no more: disconnect when all is done */
    JsonStream *stream;
    GByteArray *input;             /* read, not yet parsed, because the queue was full */
    size_t parsed;                 /* bytes at the head of input that are */
    struct QmpRequestList arrived; /* out of the parser, not yet sorted */
    uint64_t messages;             /* complete ones so far */
    MsgFds *msg_fds;
    NamedFds *named_fds; /* the monitor's */
    struct QmpRequestList queue;
    unsigned queued;
    struct QmpRequestList overtaking; /* out-of-band ones, not yet started */
    bool runner_active;
    unsigned oob_running;
    Coroutine *runner_waiting; /* for the client to read */
};

/* A command that runs: how its handler finds the session. */
typedef struct QmpRunning {
    Coroutine *co;
    QmpSession *session;
    uint64_t number;
    LIST_ENTRY(QmpRunning) next;
} QmpRunning;

/* The lock is held for moments only, and no other is taken under it. */
static struct {
    GMutex lock;
    TAILQ_HEAD(, MonitorQMP) monitors; /* lock; changed by the main thread */
    LIST_HEAD(, QmpRunning) running;   /* lock */
    QEMUBH *idle_bh; /* lock; scheduled when no command runs any more; NULL: not awaited */
} qmp = {.monitors = TAILQ_HEAD_INITIALIZER(qmp.monitors)};

static void session_parse(QmpSession *session);

/* --- requests --- */

static void request_free(QmpRequest *req)
{
    json_object_put(req->json);
    g_clear_error(&req->error);
    g_free(req);
}

static void drop_requests(struct QmpRequestList *list)
{
    QmpRequest *req;

    while ((req = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, req, next);
        request_free(req);
    }
}

static void session_drop_queue(QmpSession *session)
{
    drop_requests(&session->queue);
    drop_requests(&session->arrived);
    drop_requests(&session->overtaking);
    session->queued = 0;
}

static void session_unref(QmpSession *session)
{
    if (--session->refs) {
        return;
    }
    session_drop_queue(session);
    json_stream_free(session->stream);
    g_byte_array_unref(session->input);
    msg_fds_free(session->msg_fds);
    named_fds_unref(session->named_fds);
    g_free(session);
}

/* --- output --- */

/* A message as it is sent; the caller frees. */
static char *message_text(json_object *json, bool pretty)
{
    int flags = JSON_C_TO_STRING_NOSLASHESCAPE |
                (pretty ? JSON_C_TO_STRING_PRETTY : JSON_C_TO_STRING_PLAIN);
    size_t len;
    const char *text = json_object_to_json_string_length(json, flags, &len);
    g_autofree char *valid = NULL;

    /* File names and the like may hold any bytes; JSON is UTF-8. */
    if (!g_utf8_validate_len(text, len, NULL)) {
        text = valid = g_utf8_make_valid(text, (gssize)len);
    }
    return g_strconcat(text, "\r\n", NULL);
}

static void send_text(MonitorQMP *mon, const char *text)
{
    size_t len = strlen(text);

    if (qemu_chr_fe_pending(&mon->fe) + len > QMP_OUTPUT_MAX) {
        /* Half a message would be worse than none. */
        qemu_chr_fe_abort(&mon->fe);
        return;
    }
    qemu_chr_fe_write(&mon->fe, text, len);
}

static void send_json(MonitorQMP *mon, json_object *json)
{
    g_autofree char *text = message_text(json, mon->pretty);

    send_text(mon, text);
}

/* Whether events are for this client from now on; those that wait are dropped. */
static void set_listening(MonitorQMP *mon, bool on)
{
    char *text;

    g_mutex_lock(&qmp.lock);
    mon->listening = on;
    mon->outbox_bytes = 0;
    while ((text = g_queue_pop_head(&mon->outbox))) {
        g_free(text);
    }
    g_mutex_unlock(&qmp.lock);
}

static void empty_outbox(void *opaque)
{
    MonitorQMP *mon = opaque;

    for (;;) {
        g_autofree char *text = NULL;
        bool full;

        g_mutex_lock(&qmp.lock);
        text = g_queue_pop_head(&mon->outbox);
        full = mon->outbox_bytes > QMP_OUTPUT_MAX;
        if (text && !full) {
            mon->outbox_bytes -= strlen(text);
        }
        g_mutex_unlock(&qmp.lock);
        if (full) {
            set_listening(mon, false);
            qemu_chr_fe_abort(&mon->fe);
            return;
        }
        if (!text) {
            return;
        }
        send_text(mon, text);
    }
}

static bool session_output_full(const QmpSession *session)
{
    return session->mon && qemu_chr_fe_pending(&session->mon->fe) > QMP_OUTPUT_HIGH;
}

/* Takes over the reply; NULL sends nothing. */
static void session_reply(QmpSession *session, json_object *reply)
{
    MonitorQMP *mon = session->mon;

    if (mon) {
        empty_outbox(mon); /* what the command brought about comes before its reply */
    }
    if (mon && session->state.negotiated && !session->listening) {
        session->listening = true;
        set_listening(mon, true); /* before the client knows: it misses nothing after the reply */
    }
    if (reply && mon) {
        send_json(mon, reply);
    }
    json_object_put(reply);
}

static void session_end_if_done(QmpSession *session)
{
    if (session->eof && session->mon && !session->runner_active && !session->queued &&
        !session->oob_running) {
        qemu_chr_fe_disconnect(&session->mon->fe);
    }
}

/* --- running --- */

static void coroutine_fn session_co_run(QmpSession *session, QmpRequest *req, bool oob)
{
    QmpRunning running = {.co = qemu_coroutine_self(), .session = session, .number = req->number};
    json_object *reply;

    g_mutex_lock(&qmp.lock);
    LIST_INSERT_HEAD(&qmp.running, &running, next);
    g_mutex_unlock(&qmp.lock);
    reply =
        req->error ? qmp_error_reply(NULL, req->error) : qmp_co_answer(&session->state, req->json);
    g_mutex_lock(&qmp.lock);
    LIST_REMOVE(&running, next);
    if (qmp.idle_bh && LIST_EMPTY(&qmp.running)) {
        qemu_bh_schedule(qmp.idle_bh);
    }
    g_mutex_unlock(&qmp.lock);
    session_reply(session, reply);
    if (!oob) {
        msg_fds_expire(session->msg_fds, req->number);
    }
    request_free(req);
}

/* Runs the in-band requests of a session in order; ends when there is none. */
static void coroutine_fn session_co_runner(void *opaque)
{
    QmpSession *session = opaque;
    QmpRequest *req;

    while (session->mon && (req = TAILQ_FIRST(&session->queue))) {
        if (session_output_full(session)) {
            session->runner_waiting = qemu_coroutine_self();
            qemu_coroutine_yield();
            continue;
        }
        TAILQ_REMOVE(&session->queue, req, next);
        session->queued--;
        session_parse(session); /* there is room for one more */
        session_co_run(session, req, false);
    }
    session->runner_active = false;
    session_end_if_done(session);
    session_unref(session);
}

static void session_start_runner(QmpSession *session)
{
    if (!session->runner_active && session->queued) {
        session->runner_active = true;
        session->refs++;
        qemu_coroutine_enter(qemu_coroutine_create(session_co_runner, session));
    }
}

typedef struct QmpOob {
    QmpSession *session;
    QmpRequest *req;
} QmpOob;

static void coroutine_fn session_co_oob(void *opaque)
{
    QmpOob *oob = opaque;

    session_co_run(oob->session, oob->req, true);
    oob->session->oob_running--;
    session_end_if_done(oob->session);
    session_unref(oob->session);
    g_free(oob);
}

static void session_start_oob(QmpSession *session, QmpRequest *req)
{
    QmpOob *oob = g_new0(QmpOob, 1);

    oob->session = session;
    oob->req = req;
    session->oob_running++;
    session->refs++;
    qemu_coroutine_enter(qemu_coroutine_create(session_co_oob, oob));
}

/* --- input --- */

/* The parser found a value or an error; nothing runs before it has returned. */
static void session_take_value(void *opaque, json_object *value, const GError *err)
{
    QmpSession *session = opaque;
    QmpRequest *req = g_new0(QmpRequest, 1);

    req->number = ++session->messages;
    req->json = value;
    req->error = err ? g_error_copy(err) : NULL;
    TAILQ_INSERT_TAIL(&session->arrived, req, next);
}

/* Sorts what has arrived; starts nothing. */
static void session_sort_arrived(QmpSession *session)
{
    QmpRequest *req;

    while ((req = TAILQ_FIRST(&session->arrived))) {
        TAILQ_REMOVE(&session->arrived, req, next);
        if (!req->error && session->state.oob && qmp_is_oob_request(req->json)) {
            TAILQ_INSERT_TAIL(&session->overtaking, req, next);
        } else {
            TAILQ_INSERT_TAIL(&session->queue, req, next);
            session->queued++;
        }
    }
}

static void session_start_requests(QmpSession *session)
{
    QmpRequest *req;

    session->refs++;
    session_start_runner(session);
    while ((req = TAILQ_FIRST(&session->overtaking))) {
        TAILQ_REMOVE(&session->overtaking, req, next);
        session_start_oob(session, req);
    }
    session_unref(session);
}

/*
 * Parses until the input or the room in the queue is used up. Only then commands start: their
 * handlers, in another thread, must find each descriptor with the number of its message.
 */
static void session_parse(QmpSession *session)
{
    bool all;

    while (session->parsed < session->input->len && session->queued < QMP_QUEUE_MAX) {
        const uint8_t *next = session->input->data + session->parsed;
        size_t len = session->input->len - session->parsed;
        const uint8_t *end = memchr(next, '}', len); /* a request cannot end before that */

        len = end ? (size_t)(end - next) + 1 : len;
        session->parsed += len;
        json_stream_feed(session->stream, (const char *)next, len);
        session_sort_arrived(session);
    }
    all = session->parsed == session->input->len;
    if (all) {
        g_byte_array_set_size(session->input, 0);
        session->parsed = 0;
        msg_fds_settle(session->msg_fds,
                       session->messages + (json_stream_is_idle(session->stream) ? 0 : 1));
    } else {
        msg_fds_settle(session->msg_fds, MSG_FDS_ANY);
    }
    session->refs++;
    session_start_requests(session);
    if (all && session->mon) {
        qemu_chr_fe_accept_input(&session->mon->fe);
    }
    session_unref(session);
}

static size_t session_room(void *opaque)
{
    MonitorQMP *mon = opaque;
    QmpSession *session = mon->session;

    if (!session || session->input->len || session->queued >= QMP_QUEUE_MAX ||
        session_output_full(session)) {
        return 0;
    }
    return CHR_READ_BUF_LEN;
}

static void session_read(void *opaque, const uint8_t *buf, size_t len)
{
    MonitorQMP *mon = opaque;

    g_byte_array_append(mon->session->input, buf, (guint)len);
    session_parse(mon->session);
}

static void session_take_fds(void *opaque, const int *fds, size_t nfds)
{
    MonitorQMP *mon = opaque;

    if (mon->session) {
        msg_fds_add(mon->session->msg_fds, fds, nfds);
    } else {
        for (size_t i = 0; i < nfds; i++) {
            close(fds[i]);
        }
    }
}

static void session_drained(void *opaque)
{
    MonitorQMP *mon = opaque;
    Coroutine *co = mon->session ? mon->session->runner_waiting : NULL;

    if (co) {
        mon->session->runner_waiting = NULL;
        aio_co_wake(co);
    }
    qemu_chr_fe_accept_input(&mon->fe);
}

/* --- sessions come and go --- */

static void session_open(MonitorQMP *mon)
{
    QmpSession *session = g_new0(QmpSession, 1);
    json_object *greeting = qmp_greeting();

    session->refs = 1;
    session->mon = mon;
    session->stream = json_stream_new(session_take_value, session);
    session->input = g_byte_array_new();
    session->msg_fds = msg_fds_new();
    session->named_fds = named_fds_ref(mon->named_fds);
    TAILQ_INIT(&session->queue);
    TAILQ_INIT(&session->arrived);
    TAILQ_INIT(&session->overtaking);
    mon->session = session;
    send_json(mon, greeting);
    json_object_put(greeting);
}

static void session_close(MonitorQMP *mon)
{
    QmpSession *session = mon->session;

    if (!session) {
        return;
    }
    mon->session = NULL;
    session->mon = NULL;
    set_listening(mon, false);
    session_drop_queue(session);
    if (session->runner_waiting) {
        aio_co_wake(session->runner_waiting);
        session->runner_waiting = NULL;
    }
    session_unref(session);
}

static void session_end_of_input(QmpSession *session)
{
    session->refs++;
    session->eof = true;
    json_stream_end(session->stream);
    session_sort_arrived(session);
    session_start_requests(session);
    session_end_if_done(session);
    session_unref(session);
}

static void session_event(void *opaque, QEMUChrEvent event)
{
    MonitorQMP *mon = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        session_close(mon);
        session_open(mon);
        break;
    case CHR_EVENT_EOF:
        if (mon->session) {
            session_end_of_input(mon->session);
        }
        break;
    case CHR_EVENT_CLOSED:
        session_close(mon);
        break;
    case CHR_EVENT_MUX_IN:
    case CHR_EVENT_MUX_OUT:
        break;
    }
}

static const CharFrontendOps session_frontend_ops = {
    .can_read = session_room,
    .read = session_read,
    .receive_fds = session_take_fds,
    .event = session_event,
    .drained = session_drained,
    .line_mode = true,
};

static void monitor_free(MonitorQMP *mon)
{
    set_listening(mon, false);
    qemu_bh_delete(mon->outbox_bh);
    named_fds_unref(mon->named_fds);
    g_free(mon);
}

bool monitor_new_qmp(Chardev *chr, bool pretty, GError **errp)
{
    MonitorQMP *mon = g_new0(MonitorQMP, 1);

    mon->ctx = qemu_get_current_aio_context();
    mon->pretty = pretty;
    mon->named_fds = named_fds_new();
    mon->outbox_bh = aio_bh_new(mon->ctx, empty_outbox, mon);
    g_queue_init(&mon->outbox);
    if (!qemu_chr_fe_init(&mon->fe, chr, &session_frontend_ops, mon, QMP_OUTPUT_MAX, errp)) {
        monitor_free(mon);
        return false;
    }
    g_mutex_lock(&qmp.lock);
    TAILQ_INSERT_TAIL(&qmp.monitors, mon, next);
    g_mutex_unlock(&qmp.lock);
    return true;
}

/* In the monitor's thread: sends what the client takes at once, then ends the session. */
static void hang_up(MonitorQMP *mon)
{
    empty_outbox(mon);
    qemu_chr_fe_deinit(&mon->fe);
    session_close(mon);
}

static MonitorQMP *take_monitor(void)
{
    MonitorQMP *mon;

    g_mutex_lock(&qmp.lock);
    mon = TAILQ_FIRST(&qmp.monitors);
    if (mon) {
        TAILQ_REMOVE(&qmp.monitors, mon, next);
    }
    g_mutex_unlock(&qmp.lock);
    return mon;
}

static void wake_cleanup(void *opaque)
{
    qemu_co_sleep_wake(opaque);
}

/* True: no command runs any more. A query may still be at work when the disks that it asks have been closed. */
static bool coroutine_fn co_wait_for_commands(void)
{
    int64_t end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + LAST_COMMANDS_NS, left_ns;
    QemuCoSleep sleep = {0};
    bool idle;

    g_mutex_lock(&qmp.lock);
    qmp.idle_bh = aio_bh_new(qemu_get_aio_context(), wake_cleanup, &sleep);
    while (!(idle = LIST_EMPTY(&qmp.running)) &&
           (left_ns = end_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME)) > 0) {
        g_mutex_unlock(&qmp.lock);
        qemu_co_sleep_ns_wakeable(&sleep, QEMU_CLOCK_REALTIME, left_ns);
        g_mutex_lock(&qmp.lock);
    }
    g_clear_pointer(&qmp.idle_bh, qemu_bh_delete);
    g_mutex_unlock(&qmp.lock);
    return idle;
}

void coroutine_fn qmp_co_cleanup(void)
{
    AioContext *main_ctx = qemu_get_aio_context();
    MonitorQMP *mon;
    bool idle = true;

    while ((mon = take_monitor())) {
        Chardev *chr = mon->fe.chr;

        aio_co_reschedule_self(mon->ctx);
        hang_up(mon);
        aio_co_reschedule_self(main_ctx);
        if (mon->ctx != main_ctx) {
            idle = qemu_chr_co_move(chr, main_ctx, true) && idle;
        }
        monitor_free(mon);
    }
    idle = co_wait_for_commands() && idle;
    /* A command that hangs comes back to the thread when it is done. */
    if (idle) {
        monitor_thread_stop();
    }
}

/* --- for the rest of the folder --- */

void qmp_broadcast(json_object *event)
{
    MonitorQMP *mon;

    g_mutex_lock(&qmp.lock);
    TAILQ_FOREACH(mon, &qmp.monitors, next) {
        if (mon->listening && mon->outbox_bytes <= QMP_OUTPUT_MAX) {
            char *text = message_text(event, mon->pretty);

            mon->outbox_bytes += strlen(text);
            g_queue_push_tail(&mon->outbox, text);
            qemu_bh_schedule(mon->outbox_bh);
        }
    }
    g_mutex_unlock(&qmp.lock);
}

/* The command that runs in this coroutine, which keeps it; NULL: none. */
static QmpRunning *current(void)
{
    Coroutine *self = qemu_in_coroutine() ? qemu_coroutine_self() : NULL;
    QmpRunning *running;

    g_mutex_lock(&qmp.lock);
    LIST_FOREACH(running, &qmp.running, next) {
        if (running->co == self) {
            break;
        }
    }
    g_mutex_unlock(&qmp.lock);
    return running;
}

QmpState *qmp_current_state(void)
{
    QmpRunning *running = current();

    return running ? &running->session->state : NULL;
}

NamedFds *qmp_current_named_fds(void)
{
    QmpRunning *running = current();

    return running ? running->session->named_fds : NULL;
}

int monitor_take_fd(void)
{
    QmpRunning *running = current();

    return running ? msg_fds_take(running->session->msg_fds, running->number) : -1;
}
