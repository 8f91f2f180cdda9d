/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The 8254 interval timer. In what follows T is the number of ticks since the counter was loaded, N the
 * initial count.
 *
 *   mode  OUT is low                 GATE low              GATE rises   a new count is taken
 *   0     until T = N                stops counting                     at once
 *   1     until T = N                                      starts       with the next trigger
 *   2     in the last tick of N      stops, OUT high       starts anew  after N ticks
 *   3     in the second half of N    stops, OUT high       starts anew  after the half
 *   4     in the tick T = N          stops counting                     at once
 *   5     in the tick T = N                                starts       with the next trigger
 */
#include "hw/timer/i8254.h"

#include <errno.h>
#include <string.h>
#include "util/error.h"
#include "util/int-math.h"
#include "vmstate/vmstate-fields.h"

#define SELECT_READ_BACK  3    /* in bits 7 and 6 of a control word */
#define READ_BACK_STATUS  0x10 /* 0 latches */
#define READ_BACK_COUNT   0x20 /* 0 latches */
#define STATUS_OUT        0x80
#define STATUS_NULL_COUNT 0x40
#define COUNT_MAX         0x10000
#define COUNT_MAX_BCD     10000
#define TICKS_REFRESH     18
#define NO_TICK           UINT64_MAX
#define LOAD_TIME_MIN     (INT64_MIN / 2) /* 146 years: what has passed since then is a number of ns */

/* --- time --- */

static int64_t now_ns(const I8254 *s)
{
    return device_clock_ns(&s->clock);
}

static int64_t ns_add(int64_t a, int64_t b)
{
    int64_t sum;

    return add_i64(a, b, &sum) ? sum : b < 0 ? INT64_MIN : INT64_MAX;
}

static uint64_t ns_to_ticks(int64_t ns)
{
    return ns > 0 ? muldiv64((uint64_t)ns, I8254_HZ, NANOSECONDS_PER_SECOND) : 0;
}

/* The first ns of a tick. */
static int64_t ticks_to_ns(uint64_t ticks)
{
    uint64_t ns = muldiv64(ticks, NANOSECONDS_PER_SECOND, I8254_HZ);

    ns += ns < INT64_MAX && muldiv64(ns, I8254_HZ, NANOSECONDS_PER_SECOND) < ticks;
    return (int64_t)MIN(ns, (uint64_t)INT64_MAX);
}

/* T. A load time in the future is a stream's, and counts as now. */
static uint64_t ticks_at(const I8254Counter *c, int64_t now)
{
    int64_t elapsed, until = c->stopped ? MIN(now, c->stopped_at) : now;

    if (__builtin_sub_overflow(until, c->count_load_time, &elapsed)) {
        elapsed = until > 0 ? INT64_MAX : 0;
    }
    return ns_to_ticks(elapsed);
}

/* --- what follows from T --- */

/* 6 and 7 are other names of 2 and 3. */
static unsigned mode_of(const I8254Counter *c)
{
    return c->mode > 5 ? c->mode - 4u : c->mode;
}

static bool is_periodic(const I8254Counter *c)
{
    return mode_of(c) == 2 || mode_of(c) == 3;
}

static bool is_triggered(const I8254Counter *c)
{
    return mode_of(c) == 1 || mode_of(c) == 5;
}

/* Ticks of mode 3 with OUT high. */
static uint64_t high_half(const I8254Counter *c)
{
    return ((uint64_t)c->count + 1) / 2;
}

/* What is in the counter; the initial count itself may be 0x10000. */
static unsigned value_at(const I8254Counter *c, int64_t now)
{
    uint64_t t = ticks_at(c, now), n = (uint64_t)c->count, p = t % n;
    uint64_t modulus = c->bcd ? COUNT_MAX_BCD : COUNT_MAX;

    if (c->wait != I8254_COUNTS) {
        return (unsigned)n;
    }
    switch (mode_of(c)) {
    case 2:
        return (unsigned)(n - p);
    case 3: /* counts down by two, twice */
        p = p < high_half(c) ? p : p - high_half(c);
        return (unsigned)((n & ~UINT64_C(1)) - 2 * p);
    default: /* goes on below zero */
        return (unsigned)((n + 2 * modulus - t % modulus) % modulus);
    }
}

static bool out_at(const I8254Counter *c, int64_t now)
{
    uint64_t t = ticks_at(c, now), n = (uint64_t)c->count;

    if (c->wait != I8254_COUNTS) {
        return mode_of(c) != 0;
    }
    switch (mode_of(c)) {
    case 0:
        return t >= n && c->write_state != I8254_WORD_HIGH;
    case 1:
        return t >= n;
    case 2:
        return !c->gate || t % n != n - 1;
    case 3:
        return !c->gate || t % n < high_half(c);
    default:
        return t != n;
    }
}

/* The first tick after t in which OUT is not what it is in t. */
static uint64_t next_change(const I8254Counter *c, uint64_t t)
{
    uint64_t n = (uint64_t)c->count, p = t % n;

    if (c->stopped || c->wait != I8254_COUNTS || (is_periodic(c) && n == 1)) {
        return NO_TICK;
    }
    switch (mode_of(c)) {
    case 2:
        return p < n - 1 ? t + (n - 1 - p) : t + 1;
    case 3:
        return p < high_half(c) ? t - p + high_half(c) : t - p + n;
    case 4:
    case 5:
        return t < n ? n : t == n ? n + 1 : NO_TICK;
    default:
        return t < n ? n : NO_TICK;
    }
}

/* OUT has risen in a tick after `from`, not after `to`. */
static bool rises_within(const I8254Counter *c, uint64_t from, uint64_t to)
{
    uint64_t n = (uint64_t)c->count;

    if (c->wait != I8254_COUNTS) {
        return false;
    }
    switch (mode_of(c)) {
    case 2:
    case 3:
        return n > 1 && to / n > from / n;
    case 4:
    case 5:
        return from <= n && to > n;
    default:
        return from < n && to >= n;
    }
}

/* --- changes of a counter --- */

/* Takes a count whose time has come; true: it has. */
static bool take_next_count(I8254Counter *c, int64_t now)
{
    if (!c->next_count || c->stopped || now < c->next_count_at) {
        return false;
    }
    c->count = c->next_count;
    c->count_load_time = c->next_load_time;
    c->next_count = 0;
    return true;
}

/* GATE, the mode or what is written may stop the counter, or let it go on. */
static void update_stopped(I8254Counter *c, int64_t now)
{
    bool stopped = !c->gate && !is_triggered(c);

    if (mode_of(c) == 0 && c->write_state == I8254_WORD_HIGH) {
        stopped = true;
    }
    if (stopped && !c->stopped) {
        c->stopped_at = now;
    } else if (!stopped && c->stopped) {
        c->count_load_time = ns_add(c->count_load_time, now - c->stopped_at);
    }
    c->stopped = stopped;
}

/* Counting starts, with T = 0. */
static void start(I8254Counter *c, int32_t count, int64_t now)
{
    c->count = count;
    c->count_load_time = now;
    c->next_count = 0;
    c->wait = I8254_COUNTS;
    c->stopped = false;
    update_stopped(c, now);
}

/* A new count, for when the present period or half of it is over. */
static void postpone(I8254Counter *c, int32_t count, int64_t now)
{
    uint64_t t = ticks_at(c, now), end = t - t % (uint64_t)c->count;
    bool to_low = mode_of(c) == 3 && t - end < high_half(c);

    end += to_low ? high_half(c) : (uint64_t)c->count;
    c->next_count = count;
    c->next_count_at = ns_add(c->count_load_time, ticks_to_ns(end));
    c->next_load_time = c->next_count_at;
    if (to_low) { /* the second half of the new count begins there */
        c->next_load_time =
            ns_add(c->next_load_time, -ticks_to_ns(((uint64_t)(uint32_t)count + 1) / 2));
    }
}

/* Digits above 9 count as what they are worth. */
static int32_t count_of(const I8254Counter *c, unsigned written)
{
    unsigned value = written;

    if (c->bcd) {
        value = (written >> 12) * 1000 + (written >> 8 & 15) * 100 + (written >> 4 & 15) * 10 +
                (written & 15);
    }
    return value ? (int32_t)value : c->bcd ? COUNT_MAX_BCD : COUNT_MAX;
}

static void count_written(I8254Counter *c, unsigned written, int64_t now)
{
    int32_t count = count_of(c, written);

    if (is_triggered(c)) {
        if (c->wait == I8254_COUNTS) {
            c->next_count = count;
            c->next_count_at = INT64_MAX;
            c->next_load_time = INT64_MAX;
        } else {
            c->count = count;
            c->wait = I8254_AWAITS_TRIGGER;
        }
    } else if (is_periodic(c) && c->wait == I8254_COUNTS && !c->stopped && c->count > 1) {
        postpone(c, count, now);
    } else {
        start(c, count, now);
    }
}

static void programmed(I8254Counter *c, uint8_t word)
{
    c->rw_mode = c->read_state = c->write_state = word >> 4 & 3;
    c->mode = word >> 1 & 7;
    c->bcd = word & 1;
    c->count_latched = c->status_latched = 0;
    c->next_count = 0;
    c->wait = I8254_AWAITS_COUNT;
    c->stopped = false;
}

static void set_gate(I8254Counter *c, bool level, int64_t now)
{
    bool rises = level && !c->gate;

    c->gate = level;
    update_stopped(c, now);
    if (rises && (is_periodic(c) || is_triggered(c)) && c->wait != I8254_AWAITS_COUNT) {
        start(c, c->next_count ? c->next_count : c->count, now);
    }
}

/* --- the line and the timer --- */

static void arm(I8254 *s, int64_t now)
{
    I8254Counter *c = &s->channels[0];
    uint64_t next = next_change(c, ticks_at(c, now));
    int64_t at;

    c->next_transition_time = -1;
    if (next == NO_TICK || c->irq_disabled) {
        timer_del(s->timer);
        return;
    }
    at = ns_add(c->count_load_time, ticks_to_ns(next));
    if (is_periodic(c) && ticks_to_ns((uint64_t)c->count) < I8254_FASTEST_NS) {
        at = MAX(at, ns_add(now, I8254_FASTEST_NS));
    }
    c->next_transition_time = MAX(at, 0);
    timer_mod_ns(s->timer, c->next_transition_time);
}

/* OUT has risen since `from`; a count whose time has come is taken. */
static bool rises_until(I8254Counter *c, int64_t from, int64_t now)
{
    int64_t at = c->next_count_at;
    uint64_t ticks = ticks_at(c, from), ticks_then = ticks_at(c, at);
    I8254Counter before = *c;

    if (!take_next_count(c, now)) {
        return rises_within(c, ticks, ticks_at(c, now));
    }
    return rises_within(&before, ticks, ticks_then) ||
           rises_within(c, ticks_at(c, at), ticks_at(c, now));
}

void i8254_update(I8254 *s)
{
    I8254Counter *c = &s->channels[0];
    int64_t now = now_ns(s);
    bool rises = rises_until(c, s->told_ns, now);
    bool out = out_at(c, now) && !c->irq_disabled;

    if (rises &&
        !c->irq_disabled) { /* also where OUT has fallen and risen, or the reverse, since */
        qemu_irq_lower(s->out);
        qemu_irq_raise(s->out);
    }
    qemu_set_irq(s->out, out);
    s->told_ns = now;
    arm(s, now);
}

static void timer_expired(void *opaque)
{
    i8254_update(opaque);
}

/* Before a change of a counter: what has happened until now. */
static int64_t catch_up(I8254 *s, unsigned n)
{
    int64_t now = now_ns(s);

    if (n == 0) {
        i8254_update(s);
    } else {
        (void)take_next_count(&s->channels[n], now);
    }
    return now;
}

static void changed(I8254 *s, unsigned n)
{
    if (n == 0) {
        i8254_update(s);
    }
}

/* --- ports --- */

static void latch_count(I8254Counter *c, int64_t now)
{
    unsigned value = value_at(c, now);

    if (c->count_latched) {
        return; /* the first one holds until it is read */
    }
    if (c->bcd) {
        value %= COUNT_MAX_BCD;
        value =
            (value / 1000) << 12 | (value / 100 % 10) << 8 | (value / 10 % 10) << 4 | value % 10;
    }
    c->latched_count = (uint16_t)value;
    c->count_latched = c->rw_mode;
}

static void latch_status(I8254Counter *c, int64_t now)
{
    bool null_count = c->wait != I8254_COUNTS || c->next_count;

    if (!c->status_latched) {
        c->status =
            (uint8_t)((out_at(c, now) ? STATUS_OUT : 0) | (null_count ? STATUS_NULL_COUNT : 0) |
                      c->rw_mode << 4 | c->mode << 1 | c->bcd);
        c->status_latched = 1;
    }
}

static void read_back(I8254 *s, uint8_t word)
{
    for (unsigned n = 0; n < I8254_COUNTERS; n++) {
        if (word & 2u << n) {
            int64_t now = catch_up(s, n);

            if (!(word & READ_BACK_COUNT)) {
                latch_count(&s->channels[n], now);
            }
            if (!(word & READ_BACK_STATUS)) {
                latch_status(&s->channels[n], now);
            }
        }
    }
}

static void control_written(void *state, const RegisterWrite *write)
{
    I8254 *s = state;
    uint8_t word = (uint8_t)write->data;
    unsigned n = word >> 6;
    int64_t now;

    if (n == SELECT_READ_BACK) {
        read_back(s, word);
        return;
    }
    now = catch_up(s, n);
    if (!(word >> 4 & 3)) {
        latch_count(&s->channels[n], now);
        return;
    }
    programmed(&s->channels[n], word);
    changed(s, n);
}

static void counter_written(void *state, const RegisterWrite *write)
{
    I8254 *s = state;
    I8254Counter *c = &s->channels[write->index];
    uint8_t byte = (uint8_t)write->data;
    int64_t now = catch_up(s, write->index);

    switch (c->write_state) {
    case I8254_WORD_LOW:
        c->write_latch = byte;
        c->write_state = I8254_WORD_HIGH;
        update_stopped(c, now);
        break;
    case I8254_WORD_HIGH:
        c->write_state = I8254_WORD_LOW;
        count_written(c, c->write_latch | (unsigned)byte << 8, now);
        break;
    case I8254_HIGH:
        count_written(c, (unsigned)byte << 8, now);
        break;
    default:
        count_written(c, byte, now);
    }
    changed(s, write->index);
}

static uint64_t counter_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    I8254 *s = state;
    I8254Counter *c = &s->channels[index];
    int64_t now = catch_up(s, index);
    uint8_t access = c->count_latched;

    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    if (access) {
        c->count_latched = access == I8254_WORD_LOW ? I8254_HIGH : 0;
    } else {
        access = c->read_state;
        latch_count(c, now);
        c->count_latched = 0;
        if (access >= I8254_WORD_LOW) {
            c->read_state = access == I8254_WORD_LOW ? I8254_WORD_HIGH : I8254_WORD_LOW;
        }
    }
    return access == I8254_LOW || access == I8254_WORD_LOW ? c->latched_count & 0xff
                                                           : c->latched_count >> 8;
}

static const RegisterRow rows[] = {
    REGISTER_HOOKS(0, 1, "COUNTER", .count = I8254_COUNTERS, .read = counter_read,
                   .write = counter_written),
    REGISTER_HOOKS(3, 1, "CONTROL", .write = control_written), /* reads as 0: nothing drives it */
};
const RegisterTable i8254_ports = {"pit", rows, G_N_ELEMENTS(rows)};

/* --- for the owner --- */

void i8254_init(I8254 *s, DeviceClock clock, qemu_irq out)
{
    s->clock = clock;
    s->out = out;
    s->timer = device_clock_timer(&clock, timer_expired, s);
}

void i8254_end(I8254 *s)
{
    timer_free(g_steal_pointer(&s->timer));
}

void i8254_reset(I8254 *s)
{
    int64_t now = now_ns(s);

    for (unsigned n = 0; n < I8254_COUNTERS; n++) {
        I8254Counter *c = &s->channels[n];

        *c = (I8254Counter){.rw_mode = I8254_WORD_LOW,
                            .read_state = I8254_WORD_LOW,
                            .write_state = I8254_WORD_LOW,
                            .mode = 3,
                            .gate = n != 2,
                            .next_transition_time = -1};
        start(c, COUNT_MAX, now);
    }
    s->told_ns = now;
    timer_del(s->timer);
}

void i8254_enable_irq(I8254 *s, bool enable)
{
    (void)catch_up(s, 0);
    s->channels[0].irq_disabled = !enable;
    i8254_update(s);
}

void i8254_set_gate(I8254 *s, unsigned n, bool level)
{
    int64_t now = catch_up(s, n);

    set_gate(&s->channels[n], level, now);
    changed(s, n);
}

bool i8254_gate(const I8254 *s, unsigned n)
{
    return s->channels[n].gate;
}

bool i8254_out(I8254 *s, unsigned n)
{
    int64_t now = catch_up(s, n);

    return out_at(&s->channels[n], now);
}

unsigned i8254_initial_count(I8254 *s, unsigned n)
{
    (void)catch_up(s, n);
    return (unsigned)s->channels[n].count;
}

uint8_t i8254_port_b_read(I8254 *s)
{
    return (uint8_t)((i8254_gate(s, 2) ? I8254_PORT_B_GATE : 0) |
                     (i8254_out(s, 2) ? I8254_PORT_B_OUT : 0) |
                     (ns_to_ticks(now_ns(s)) / TICKS_REFRESH % 2 ? I8254_PORT_B_REFRESH : 0));
}

void i8254_port_b_write(I8254 *s, uint8_t value)
{
    i8254_set_gate(s, 2, value & I8254_PORT_B_GATE);
}

/* --- state that travels --- */

/*
 * Puts what the section cannot say into words that it has. A count that waits for the end of a period is
 * taken at once. A counter that waits for a trigger has OUT high, as after its end.
 */
static void simplify(I8254Counter *c, int64_t now)
{
    if (c->next_count) {
        start(c, c->next_count, now);
        c->wait = is_triggered(c) ? I8254_AWAITS_TRIGGER : I8254_COUNTS;
    }
    if (c->wait != I8254_COUNTS) {
        c->count_load_time = now;
        if (mode_of(c) != 0 && !is_periodic(c)) {
            c->count_load_time = ns_add(now, -ticks_to_ns((uint64_t)c->count + 2));
        }
        c->next_transition_time = -1;
    } else if (c->stopped) { /* as if it had been loaded so much later */
        c->count_load_time = ns_add(c->count_load_time, now - c->stopped_at);
    }
}

static int before_save(void *opaque, GError **errp)
{
    I8254 *s = opaque;

    memcpy(s->before_save, s->channels, sizeof(s->channels));
    for (unsigned n = 0; n < I8254_COUNTERS; n++) {
        simplify(&s->channels[n], now_ns(s));
    }
    return 0;
}

static void after_save(void *opaque)
{
    I8254 *s = opaque;

    memcpy(s->channels, s->before_save, sizeof(s->channels));
}

static uint8_t valid_access(uint8_t access)
{
    return access >= I8254_LOW && access <= I8254_WORD_HIGH ? access : I8254_LOW;
}

/* A counter that was never programmed may bring a mode, a count or accesses that no guest can write. */
static bool make_valid(I8254Counter *c, int64_t now)
{
    if (c->count < 0 || c->count > COUNT_MAX) {
        return false;
    }
    c->count = c->count ? c->count : COUNT_MAX;
    c->count_load_time = MAX(c->count_load_time, LOAD_TIME_MIN);
    c->mode &= 7;
    c->bcd &= 1;
    c->gate = c->gate != 0;
    c->status_latched = c->status_latched != 0;
    c->rw_mode = c->rw_mode >= I8254_LOW && c->rw_mode <= I8254_WORD_LOW ? c->rw_mode : I8254_LOW;
    c->read_state = valid_access(c->read_state);
    c->write_state = valid_access(c->write_state);
    c->count_latched = c->count_latched ? valid_access(c->count_latched) : 0;
    c->wait = I8254_COUNTS;
    c->next_count = 0;
    c->stopped = false;
    update_stopped(c, now);
    return true;
}

static int loaded(void *opaque, int version_id, GError **errp)
{
    I8254 *s = opaque;
    I8254Counter *first = &s->channels[0];
    int64_t now = now_ns(s);

    for (unsigned n = 0; n < I8254_COUNTERS; n++) {
        if (!make_valid(&s->channels[n], now)) {
            error_setg(errp, "i8254: count %d of counter %u is out of range", s->channels[n].count,
                       n);
            return -EINVAL;
        }
    }
    s->told_ns = now;
    if (first->next_transition_time > 0 && first->next_transition_time <= now) {
        /* The change was due when the guest was stopped: its line is still to be told. */
        s->told_ns = first->next_transition_time - 1;
    }
    irq_load_level(s->out, out_at(first, s->told_ns) && !first->irq_disabled);
    arm(s, s->told_ns);
    return 0;
}

static const VMStateField counter_fields[] = {VMSTATE_INT32(count, I8254Counter),
                                              VMSTATE_UINT16(latched_count, I8254Counter),
                                              VMSTATE_UINT8(count_latched, I8254Counter),
                                              VMSTATE_UINT8(status_latched, I8254Counter),
                                              VMSTATE_UINT8(status, I8254Counter),
                                              VMSTATE_UINT8(read_state, I8254Counter),
                                              VMSTATE_UINT8(write_state, I8254Counter),
                                              VMSTATE_UINT8(write_latch, I8254Counter),
                                              VMSTATE_UINT8(rw_mode, I8254Counter),
                                              VMSTATE_UINT8(mode, I8254Counter),
                                              VMSTATE_UINT8(bcd, I8254Counter),
                                              VMSTATE_UINT8(gate, I8254Counter),
                                              VMSTATE_INT64(count_load_time, I8254Counter),
                                              VMSTATE_INT64(next_transition_time, I8254Counter),
                                              VMSTATE_END_OF_LIST()};

static const VMStateDescription vmstate_counter = {
    .name = "pit channel",
    .version_id = 2,
    .minimum_version_id = 2,
    .fields = counter_fields,
};

static const VMStateField fields[] = {
    VMSTATE_UINT32(channels[0].irq_disabled, I8254),
    VMSTATE_STRUCT_ARRAY(channels, I8254, I8254_COUNTERS, 2, vmstate_counter, I8254Counter),
    VMSTATE_INT64(channels[0].next_transition_time, I8254), VMSTATE_END_OF_LIST()};

const VMStateDescription vmstate_i8254 = {
    .name = "i8254",
    .version_id = 3,
    .minimum_version_id = 3,
    .post_load = loaded,
    .pre_save = before_save,
    .post_save = after_save,
    .fields = fields,
};
