/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP sessions: from the bytes of a chardev to requests, and from results and events to bytes.
 *
 *   WAITING      nobody is connected: no session exists
 *   NEGOTIATING  greeting sent; only qmp_capabilities is taken
 *   COMMAND      every command is taken; events are sent
 *
 * A session lives from connect to disconnect, or longer while a command of it still runs; the
 * result of that command then goes nowhere. In-band requests run one after the other in the
 * session's runner coroutine, out-of-band ones at once in coroutines of their own. Reading stops
 * while QMP_QUEUE_MAX requests wait or the client does not read its replies, and so does the
 * runner, which bounds what a session holds.
 */
#include "monitor/qmp-int.h"

#include <string.h>
#include <unistd.h>
#include "qapi/dispatch.h"
#include "qapi/json.h"
#include "util/aio.h"

/* In-band requests that wait; the one that runs is not counted. */
#define QMP_QUEUE_MAX 8
/* No command starts and nothing is read while more than this is unsent. */
#define QMP_OUTPUT_HIGH (1024 * 1024)
/* A client that lets events pile up beyond this is disconnected. */
#define QMP_OUTPUT_MAX (64 * 1024 * 1024)

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
    bool pretty;
    NamedFds *named_fds; /* outlive a session, as clients reconnect */
    QmpSession *session; /* NULL: nobody is connected */
    TAILQ_ENTRY(MonitorQMP) next;
} MonitorQMP;

struct QmpSession {
    unsigned refs;   /* the monitor while connected, and each coroutine that runs a command */
    MonitorQMP *mon; /* NULL: the client is gone */
    QmpState state;
    bool eof; /* the client sends no more: disconnect when all is done */
    JsonStream *stream;
    GByteArray *input;             /* read, not yet parsed, because the queue was full */
    size_t parsed;                 /* bytes at the head of input that are */
    bool parsing;                  /* session_parse() is on the stack */
    struct QmpRequestList arrived; /* out of the parser, not yet sorted */
    uint64_t messages;             /* complete ones so far */
    MsgFds *msg_fds;
    struct QmpRequestList queue;
    unsigned queued;
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

static struct {
    TAILQ_HEAD(, MonitorQMP) monitors;
    LIST_HEAD(, QmpRunning) running;
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
    g_free(session);
}

/* --- output --- */

static void monitor_send(MonitorQMP *mon, json_object *json)
{
    int flags = JSON_C_TO_STRING_NOSLASHESCAPE |
                (mon->pretty ? JSON_C_TO_STRING_PRETTY : JSON_C_TO_STRING_PLAIN);
    size_t len;
    const char *text = json_object_to_json_string_length(json, flags, &len);
    g_autofree char *valid = NULL;

    /* File names and the like may hold any bytes; JSON is UTF-8. */
    if (!g_utf8_validate_len(text, len, NULL)) {
        text = valid = g_utf8_make_valid(text, (gssize)len);
        len = strlen(valid);
    }
    if (qemu_chr_fe_pending(&mon->fe) + len + strlen("\r\n") > QMP_OUTPUT_MAX) {
        /* Half a message would be worse than none. */
        qemu_chr_fe_abort(&mon->fe);
        return;
    }
    qemu_chr_fe_write(&mon->fe, text, len);
    qemu_chr_fe_write(&mon->fe, "\r\n", strlen("\r\n"));
}

static bool session_output_full(const QmpSession *session)
{
    return session->mon && qemu_chr_fe_pending(&session->mon->fe) > QMP_OUTPUT_HIGH;
}

/* Takes over the reply; NULL sends nothing. */
static void session_reply(QmpSession *session, json_object *reply)
{
    if (reply && session->mon) {
        monitor_send(session->mon, reply);
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

    LIST_INSERT_HEAD(&qmp.running, &running, next);
    reply =
        req->error ? qmp_error_reply(NULL, req->error) : qmp_co_answer(&session->state, req->json);
    LIST_REMOVE(&running, next);
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

/* Starts or queues what has arrived. */
static void session_sort_arrived(QmpSession *session)
{
    QmpRequest *req;

    while ((req = TAILQ_FIRST(&session->arrived))) {
        TAILQ_REMOVE(&session->arrived, req, next);
        if (!req->error && session->state.oob && qmp_is_oob_request(req->json)) {
            session_start_oob(session, req);
        } else {
            TAILQ_INSERT_TAIL(&session->queue, req, next);
            session->queued++;
            session_start_runner(session);
        }
    }
}

/* Parses until the input or the room in the queue is used up. */
static void session_parse(QmpSession *session)
{
    if (session->parsing) {
        return; /* a command that was started below goes on there */
    }
    session->parsing = true;
    session->refs++;
    while (session->mon && session->parsed < session->input->len &&
           session->queued < QMP_QUEUE_MAX) {
        const uint8_t *next = session->input->data + session->parsed;
        size_t len = session->input->len - session->parsed;
        const uint8_t *end = memchr(next, '}', len); /* a request cannot end before that */

        len = end ? (size_t)(end - next) + 1 : len;
        session->parsed += len;
        json_stream_feed(session->stream, (const char *)next, len);
        session_sort_arrived(session);
    }
    session->parsing = false;
    if (session->mon && session->parsed == session->input->len) {
        g_byte_array_set_size(session->input, 0);
        session->parsed = 0;
        msg_fds_settle(session->msg_fds,
                       session->messages + (json_stream_is_idle(session->stream) ? 0 : 1));
        qemu_chr_fe_accept_input(&session->mon->fe);
    }
    session_unref(session);
}

static size_t monitor_qmp_can_read(void *opaque)
{
    MonitorQMP *mon = opaque;
    QmpSession *session = mon->session;

    if (!session || session->input->len || session->queued >= QMP_QUEUE_MAX ||
        session_output_full(session)) {
        return 0;
    }
    return CHR_READ_BUF_LEN;
}

static void monitor_qmp_read(void *opaque, const uint8_t *buf, size_t len)
{
    MonitorQMP *mon = opaque;

    g_byte_array_append(mon->session->input, buf, (guint)len);
    session_parse(mon->session);
}

static void monitor_qmp_receive_fds(void *opaque, const int *fds, size_t nfds)
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

static void monitor_qmp_drained(void *opaque)
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

static void monitor_qmp_opened(MonitorQMP *mon)
{
    QmpSession *session = g_new0(QmpSession, 1);
    json_object *greeting = qmp_greeting();

    session->refs = 1;
    session->mon = mon;
    session->stream = json_stream_new(session_take_value, session);
    session->input = g_byte_array_new();
    session->msg_fds = msg_fds_new();
    TAILQ_INIT(&session->queue);
    TAILQ_INIT(&session->arrived);
    mon->session = session;
    monitor_send(mon, greeting);
    json_object_put(greeting);
}

static void monitor_qmp_closed(MonitorQMP *mon)
{
    QmpSession *session = mon->session;

    if (!session) {
        return;
    }
    mon->session = NULL;
    session->mon = NULL;
    session_drop_queue(session);
    if (session->runner_waiting) {
        aio_co_wake(session->runner_waiting);
        session->runner_waiting = NULL;
    }
    session_unref(session);
}

static void monitor_qmp_eof(QmpSession *session)
{
    session->refs++;
    session->eof = true;
    json_stream_end(session->stream);
    session_sort_arrived(session);
    session_end_if_done(session);
    session_unref(session);
}

static void monitor_qmp_event(void *opaque, QEMUChrEvent event)
{
    MonitorQMP *mon = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        monitor_qmp_closed(mon);
        monitor_qmp_opened(mon);
        break;
    case CHR_EVENT_EOF:
        if (mon->session) {
            monitor_qmp_eof(mon->session);
        }
        break;
    case CHR_EVENT_CLOSED:
        monitor_qmp_closed(mon);
        break;
    case CHR_EVENT_MUX_IN:
    case CHR_EVENT_MUX_OUT:
        break;
    }
}

static const CharFrontendOps monitor_qmp_ops = {
    .can_read = monitor_qmp_can_read,
    .read = monitor_qmp_read,
    .receive_fds = monitor_qmp_receive_fds,
    .event = monitor_qmp_event,
    .drained = monitor_qmp_drained,
};

bool monitor_new_qmp(Chardev *chr, bool pretty, GError **errp)
{
    MonitorQMP *mon = g_new0(MonitorQMP, 1);

    mon->pretty = pretty;
    mon->named_fds = named_fds_new();
    TAILQ_INSERT_TAIL(&qmp.monitors, mon, next);
    if (!qemu_chr_fe_init(&mon->fe, chr, &monitor_qmp_ops, mon, QMP_OUTPUT_MAX, errp)) {
        TAILQ_REMOVE(&qmp.monitors, mon, next);
        named_fds_free(mon->named_fds);
        g_free(mon);
        return false;
    }
    return true;
}

void qmp_cleanup(void)
{
    MonitorQMP *mon;

    while ((mon = TAILQ_FIRST(&qmp.monitors))) {
        TAILQ_REMOVE(&qmp.monitors, mon, next);
        qemu_chr_fe_deinit(&mon->fe);
        monitor_qmp_closed(mon);
        named_fds_free(mon->named_fds);
        g_free(mon);
    }
}

/* --- for the rest of the folder --- */

void qmp_broadcast(json_object *event)
{
    MonitorQMP *mon;

    TAILQ_FOREACH(mon, &qmp.monitors, next) {
        if (mon->session && mon->session->state.negotiated) {
            monitor_send(mon, event);
        }
    }
}

static QmpRunning *current(void)
{
    Coroutine *self = qemu_in_coroutine() ? qemu_coroutine_self() : NULL;
    QmpRunning *running;

    LIST_FOREACH(running, &qmp.running, next) {
        if (running->co == self) {
            return running;
        }
    }
    return NULL;
}

QmpState *qmp_current_state(void)
{
    QmpRunning *running = current();

    return running ? &running->session->state : NULL;
}

NamedFds *qmp_current_named_fds(void)
{
    QmpRunning *running = current();

    return running && running->session->mon ? running->session->mon->named_fds : NULL;
}

int monitor_take_fd(void)
{
    QmpRunning *running = current();

    return running ? msg_fds_take(running->session->msg_fds, running->number) : -1;
}
