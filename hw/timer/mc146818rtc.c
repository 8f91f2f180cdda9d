/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The MC146818 real-time clock. The time runs while register B has no SET and the divider chain is on. While it
 * runs, base_rtc, last_update and offset say it, and the bytes follow. While it stands, the bytes say it.
 */
#include "hw/timer/mc146818rtc.h"

#include <errno.h>
#include "util/error.h"
#include "util/int-math.h"
#include "vmstate/vmstate-fields.h"

#define RTC_HZ      32768
#define SECOND_NS   NANOSECONDS_PER_SECOND
#define SECONDS_MIN INT64_C(-62135596800) /* 0001-01-01 */
#define SECONDS_MAX INT64_C(253402300799) /* 9999-12-31 */
/* 2116 for the host's clock; sums with it do not overflow. */
#define LAST_UPDATE_MAX (INT64_MAX / 2)
#define DAY_S           86400
#define ALARM_ANY       0xc0 /* an alarm byte with both bits fits every time */
#define HOUR_PM         0x80
#define INDEX_MASK      0x7f
#define DV_LAST_ON      0x20
#define RTC_FLAGS       (RTC_C_PF | RTC_C_AF | RTC_C_UF)
#define RESET_A         0x26 /* 32768 Hz, 1024 periods a second */
#define NO_ALARM        INT64_MAX
#define FIRST_MEMORY    (RTC_REG_D + 1)

/* --- time --- */

static int64_t now_ns(const MC146818 *s)
{
    return MAX(device_clock_ns(&s->clock), 0);
}

static bool chain_is_on(const MC146818 *s)
{
    return (s->cmos_data[RTC_REG_A] & RTC_A_DV) <= DV_LAST_ON;
}

static bool is_running(const MC146818 *s)
{
    return chain_is_on(s) && !(s->cmos_data[RTC_REG_B] & RTC_B_SET);
}

/* Seconds since the epoch; *rest_ns: since the last update. Both members are within their ranges. */
static int64_t time_at(const MC146818 *s, int64_t now, int64_t *rest_ns)
{
    RTCBase base = {.start_s = (int64_t)s->base_rtc,
                    .start_ns = (int64_t)s->last_update - s->offset};

    return rtc_base_seconds(&base, now, rest_ns);
}

static int64_t second_at(const MC146818 *s, int64_t now)
{
    int64_t rest;

    return time_at(s, now, &rest);
}

/* When that second begins; INT64_MAX: that cannot be said. */
static int64_t ns_of_second(const MC146818 *s, int64_t second)
{
    int64_t ns;

    if (__builtin_mul_overflow(second - (int64_t)s->base_rtc, SECOND_NS, &ns) ||
        !add_i64(ns, (int64_t)s->last_update, &ns) || !add_i64(ns, -s->offset, &ns)) {
        return INT64_MAX;
    }
    return MAX(ns, 0);
}

/* --- bytes of the time --- */

static uint8_t encode(const MC146818 *s, int value)
{
    bool binary = s->cmos_data[RTC_REG_B] & RTC_B_DM;

    return (uint8_t)(binary ? value : value / 10 << 4 | value % 10);
}

static int decode(const MC146818 *s, uint8_t byte)
{
    return s->cmos_data[RTC_REG_B] & RTC_B_DM ? byte : (byte >> 4) * 10 + (byte & 15);
}

static uint8_t encode_hour(const MC146818 *s, int hour)
{
    if (s->cmos_data[RTC_REG_B] & RTC_B_24H) {
        return encode(s, hour);
    }
    return (uint8_t)(encode(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0));
}

static int decode_hour(const MC146818 *s, uint8_t byte)
{
    if (s->cmos_data[RTC_REG_B] & RTC_B_24H) {
        return decode(s, byte);
    }
    return decode(s, byte & (uint8_t)~HOUR_PM) % 12 + (byte & HOUR_PM ? 12 : 0);
}

static void bytes_from_second(MC146818 *s, int64_t second)
{
    g_autoptr(GDateTime) t = g_date_time_new_from_unix_utc(CLAMP(second, SECONDS_MIN, SECONDS_MAX));
    int64_t year = (g_date_time_get_year(t) - (int64_t)s->base_year) % 10000;

    year += year < 0 ? 10000 : 0;
    s->cmos_data[RTC_SECONDS] = encode(s, g_date_time_get_second(t));
    s->cmos_data[RTC_MINUTES] = encode(s, g_date_time_get_minute(t));
    s->cmos_data[RTC_HOURS] = encode_hour(s, g_date_time_get_hour(t));
    s->cmos_data[RTC_DAY_OF_WEEK] = encode(s, g_date_time_get_day_of_week(t) % 7 + 1);
    s->cmos_data[RTC_DAY_OF_MONTH] = encode(s, g_date_time_get_day_of_month(t));
    s->cmos_data[RTC_MONTH] = encode(s, g_date_time_get_month(t));
    s->cmos_data[RTC_YEAR] = encode(s, (int)(year % 100));
    s->cmos_data[RTC_CENTURY] = encode(s, (int)(year / 100));
}

/* Values that no calendar has, like the 40th, count on from the ones that it has. */
static int64_t second_from_bytes(const MC146818 *s)
{
    const uint8_t *b = s->cmos_data;
    int64_t year = decode(s, b[RTC_CENTURY]) * 100 + decode(s, b[RTC_YEAR]) + (int64_t)s->base_year;
    int month = CLAMP(decode(s, b[RTC_MONTH]), 1, 12);
    g_autoptr(GDateTime) first = g_date_time_new_utc((int)CLAMP(year, 1, 9999), month, 1, 0, 0, 0);
    int64_t second = g_date_time_to_unix(first);

    second += (int64_t)(decode(s, b[RTC_DAY_OF_MONTH]) - 1) * DAY_S;
    second += decode_hour(s, b[RTC_HOURS]) * 3600 + decode(s, b[RTC_MINUTES]) * 60 +
              decode(s, b[RTC_SECONDS]);
    return CLAMP(second, SECONDS_MIN, SECONDS_MAX);
}

/* The phase of the divider chain stays. */
static void time_from_bytes(MC146818 *s, int64_t now)
{
    int64_t rest;

    (void)time_at(s, now, &rest);
    s->base_rtc = (uint64_t)second_from_bytes(s);
    s->last_update = (uint64_t)now;
    s->offset = rest;
    s->seen_s = (int64_t)s->base_rtc;
}

static void guest_set_time(MC146818 *s, int64_t now)
{
    int64_t rest;

    time_from_bytes(s, now);
    if (s->changed) {
        s->changed(s->opaque, (int64_t)s->base_rtc - rtc_base_seconds(&s->base, now, &rest));
    }
}

/* --- alarm --- */

static bool alarm_fits(const MC146818 *s, unsigned index, uint8_t byte)
{
    uint8_t alarm = s->cmos_data[index];

    return (alarm & ALARM_ANY) == ALARM_ANY || alarm == byte;
}

static bool alarm_fits_one_of(const MC146818 *s, unsigned index, int values)
{
    for (int value = 0; value < values; value++) {
        bool hour = index == RTC_HOURS_ALARM;

        if (alarm_fits(s, index, hour ? encode_hour(s, value) : encode(s, value))) {
            return true;
        }
    }
    return false;
}

/* The first second after `second` that the alarm fits; NO_ALARM: no time does. */
static int64_t next_alarm(const MC146818 *s, int64_t second)
{
    int64_t at = second + 1;

    if (!alarm_fits_one_of(s, RTC_HOURS_ALARM, 24) ||
        !alarm_fits_one_of(s, RTC_MINUTES_ALARM, 60) ||
        !alarm_fits_one_of(s, RTC_SECONDS_ALARM, 60)) {
        return NO_ALARM;
    }
    for (;;) {
        int of_day = (int)((at % DAY_S + DAY_S) % DAY_S);

        if (!alarm_fits(s, RTC_HOURS_ALARM, encode_hour(s, of_day / 3600))) {
            at += 3600 - of_day % 3600;
        } else if (!alarm_fits(s, RTC_MINUTES_ALARM, encode(s, of_day / 60 % 60))) {
            at += 60 - of_day % 60;
        } else if (!alarm_fits(s, RTC_SECONDS_ALARM, encode(s, of_day % 60))) {
            at++;
        } else {
            return at;
        }
    }
}

/* --- periodic interrupt --- */

/* Ticks of 32768 Hz. The two fastest rates are those of 256 and 128 Hz. */
static uint32_t period_of(const MC146818 *s)
{
    unsigned rate = s->cmos_data[RTC_REG_A] & RTC_A_RS;

    if (!rate || !chain_is_on(s)) {
        return 0;
    }
    return UINT32_C(1) << (rate <= 2 ? rate + 6 : rate - 1);
}

static uint64_t ns_to_ticks(int64_t ns)
{
    return muldiv64((uint64_t)ns, RTC_HZ, SECOND_NS);
}

/* The first ns of a tick. */
static int64_t ticks_to_ns(uint64_t ticks)
{
    uint64_t ns = muldiv64(ticks, SECOND_NS, RTC_HZ);

    if (ns >= INT64_MAX) {
        return INT64_MAX;
    }
    return (int64_t)ns + (ns_to_ticks((int64_t)ns) < ticks);
}

/* Periods begin at multiples of the driving clock's. */
static int64_t period_end_after(const MC146818 *s, int64_t now)
{
    return ticks_to_ns((ns_to_ticks(now) / s->period + 1) * s->period);
}

static void note_lost(MC146818 *s, uint64_t periods)
{
    s->irq_coalesced = (uint32_t)MIN(s->irq_coalesced + periods, (uint64_t)UINT32_MAX);
}

static void note_periods(MC146818 *s, int64_t now)
{
    if (!s->period) {
        return;
    }
    if (now >= s->next_periodic_time) {
        uint64_t lost =
            ns_to_ticks(now) / s->period - ns_to_ticks(s->next_periodic_time) / s->period;

        if (s->slew && (s->cmos_data[RTC_REG_B] & RTC_B_PIE)) {
            note_lost(s, lost + (s->cmos_data[RTC_REG_C] & RTC_C_PF ? 1 : 0));
        }
        s->irq_reinject_on_ack_count = 0;
        s->cmos_data[RTC_REG_C] |= RTC_C_PF;
        s->next_periodic_time = period_end_after(s, now);
    } else if (s->next_periodic_time - now > ticks_to_ns(s->period) + 1) {
        s->next_periodic_time = period_end_after(s, now); /* the clock has jumped back */
    }
}

/* Rate or enable has changed. What is to be made up for is an amount of time. */
static void set_period(MC146818 *s, int64_t now)
{
    uint32_t period = period_of(s);

    if (!period || !(s->cmos_data[RTC_REG_B] & RTC_B_PIE)) {
        s->irq_coalesced = 0;
    } else if (period != s->period) {
        s->irq_coalesced =
            (uint32_t)MIN(muldiv64(s->irq_coalesced, s->period, period), (uint64_t)UINT32_MAX);
    }
    if (period != s->period) {
        s->period = period;
        s->next_periodic_time = period ? period_end_after(s, now) : 0;
    }
}

/* --- flags, line and timers --- */

/* Sets the flags of all that has happened. */
static void note_time(MC146818 *s, int64_t now)
{
    note_periods(s, now);
    if (is_running(s)) {
        int64_t second = second_at(s, now);

        if (second > s->seen_s) {
            s->cmos_data[RTC_REG_C] |= RTC_C_UF;
            if (!(s->cmos_data[RTC_REG_C] & RTC_C_AF) && next_alarm(s, s->seen_s) <= second) {
                s->cmos_data[RTC_REG_C] |= RTC_C_AF;
            }
        }
        s->seen_s = second;
    }
}

static bool wants_interrupt(const MC146818 *s)
{
    return s->cmos_data[RTC_REG_C] & s->cmos_data[RTC_REG_B] & RTC_FLAGS;
}

static void update_line(MC146818 *s)
{
    uint8_t *c = &s->cmos_data[RTC_REG_C];

    *c = (uint8_t)((*c & RTC_FLAGS) | (wants_interrupt(s) ? RTC_C_IRQF : 0));
    qemu_set_irq(s->irq, wants_interrupt(s));
}

/* A flag that is set already interrupts by itself, once it is enabled; it needs no timer. */
static void arm(MC146818 *s)
{
    uint8_t waits = s->cmos_data[RTC_REG_B] & (uint8_t)~s->cmos_data[RTC_REG_C];
    int64_t second = NO_ALARM;

    if (s->period && (waits & RTC_B_PIE)) {
        timer_mod_ns(s->periodic_timer, s->next_periodic_time);
    } else {
        timer_del(s->periodic_timer);
    }
    if (is_running(s) && (waits & RTC_B_UIE)) {
        second = s->seen_s + 1;
    } else if (is_running(s) && (waits & RTC_B_AIE)) {
        second = next_alarm(s, s->seen_s);
    }
    if (second != NO_ALARM) {
        timer_mod_ns(s->update_timer, ns_of_second(s, second));
    } else {
        timer_del(s->update_timer);
    }
}

void mc146818_update(MC146818 *s)
{
    note_time(s, now_ns(s));
    update_line(s);
    arm(s);
}

/* The controller may be about to be loaded, or may have been saved. */
static void timer_expired(void *opaque)
{
    if (!((MC146818 *)opaque)->stands) {
        mc146818_update(opaque);
    }
}

void mc146818_guest_runs(MC146818 *s, bool runs)
{
    s->stands = !runs;
    if (runs) {
        s->next_periodic_time = MAX(s->next_periodic_time, now_ns(s));
        mc146818_update(s);
    }
}

/* --- ports --- */

static bool is_time(unsigned index)
{
    return index == RTC_CENTURY || (index <= RTC_YEAR && index != RTC_SECONDS_ALARM &&
                                    index != RTC_MINUTES_ALARM && index != RTC_HOURS_ALARM);
}

static unsigned byte_of(const MC146818 *s)
{
    return s->cmos_index == RTC_CENTURY_PS2 ? RTC_CENTURY : s->cmos_index;
}

static uint8_t read_a(const MC146818 *s, int64_t now)
{
    int64_t rest;

    (void)time_at(s, now, &rest);
    return s->cmos_data[RTC_REG_A] |
           (is_running(s) && rest >= SECOND_NS - RTC_UIP_NS ? RTC_A_UIP : 0);
}

static uint8_t read_c(MC146818 *s)
{
    uint8_t flags = s->cmos_data[RTC_REG_C];

    s->cmos_data[RTC_REG_C] = 0;
    update_line(s);
    if (s->irq_coalesced && s->irq_reinject_on_ack_count < RTC_REINJECT_MAX &&
        (s->cmos_data[RTC_REG_B] & RTC_B_PIE)) {
        s->irq_coalesced--;
        s->irq_reinject_on_ack_count++;
        s->cmos_data[RTC_REG_C] |= RTC_C_PF;
        update_line(s);
    }
    arm(s);
    return flags;
}

static uint64_t data_read(void *state, unsigned port, uint64_t stored, uint64_t mask)
{
    MC146818 *s = state;
    int64_t now = now_ns(s);
    unsigned index = byte_of(s);

    mc146818_update(s);
    if (is_time(index) && is_running(s)) {
        bytes_from_second(s, second_at(s, now));
    }
    switch (index) {
    case RTC_REG_A:
        return read_a(s, now);
    case RTC_REG_C:
        return read_c(s);
    case RTC_REG_D:
        return RTC_D_VRT;
    default:
        return s->cmos_data[index];
    }
}

/* A or B: what stops the time leaves it in the bytes; what lets it run takes it from there. */
static void write_control(MC146818 *s, unsigned index, uint8_t value, int64_t now)
{
    bool ran = is_running(s), chain_was_on = chain_is_on(s);

    if (ran) {
        bytes_from_second(s, second_at(s, now));
    }
    s->cmos_data[index] = value;
    if (s->cmos_data[RTC_REG_B] & RTC_B_SET) {
        s->cmos_data[RTC_REG_B] &= (uint8_t)~RTC_B_UIE;
    }
    if (!chain_was_on && chain_is_on(s)) { /* the first update is half a second later */
        s->last_update = (uint64_t)now;
        s->offset = SECOND_NS / 2;
    }
    if (!ran && is_running(s)) {
        guest_set_time(s, now);
    }
    set_period(s, now);
}

static void write_time(MC146818 *s, unsigned index, uint8_t value, int64_t now)
{
    if (!is_running(s)) {
        s->cmos_data[index] = value;
        return;
    }
    bytes_from_second(s, second_at(s, now));
    s->cmos_data[index] = value;
    guest_set_time(s, now);
}

static void data_written(void *state, const RegisterWrite *write)
{
    MC146818 *s = state;
    uint8_t value = (uint8_t)write->data;
    unsigned index = byte_of(s);
    int64_t now = now_ns(s);

    mc146818_update(s);
    if (is_time(index)) {
        write_time(s, index, value, now);
    } else if (index == RTC_REG_A) {
        write_control(s, index, value & (uint8_t)~RTC_A_UIP, now);
    } else if (index == RTC_REG_B) {
        write_control(s, index, value, now);
    } else if (index != RTC_REG_C && index != RTC_REG_D) {
        s->cmos_data[index] = value;
    }
    update_line(s);
    arm(s);
}

/* Bit 7 is the board's: it masks NMI. */
static void index_written(void *state, const RegisterWrite *write)
{
    ((MC146818 *)state)->cmos_index = write->data & INDEX_MASK;
}

static uint64_t index_read(void *state, unsigned port, uint64_t stored, uint64_t mask)
{
    return 0xff; /* write-only */
}

static const RegisterRow rows[] = {
    REGISTER_HOOKS(0, 1, "INDEX", .read = index_read, .write = index_written),
    REGISTER_HOOKS(1, 1, "DATA", .read = data_read, .write = data_written),
};
const RegisterTable mc146818_ports = {"rtc", rows, G_N_ELEMENTS(rows)};

/* --- for the owner --- */

void mc146818_init(MC146818 *s, AioContext *ctx)
{
    int64_t now;

    s->clock = (DeviceClock){s->base.clock, ctx};
    s->periodic_timer = device_clock_timer(&s->clock, timer_expired, s);
    s->update_timer = device_clock_timer(&s->clock, timer_expired, s);
    now = now_ns(s);
    s->cmos_data[RTC_REG_A] = RESET_A;
    s->cmos_data[RTC_REG_B] = RTC_B_24H;
    s->cmos_data[RTC_REG_D] = RTC_D_VRT;
    s->base_rtc =
        (uint64_t)CLAMP(rtc_base_seconds(&s->base, now, &s->offset), SECONDS_MIN, SECONDS_MAX);
    s->last_update = (uint64_t)now;
    s->seen_s = (int64_t)s->base_rtc;
    bytes_from_second(s, s->seen_s);
    set_period(s, now);
}

void mc146818_end(MC146818 *s)
{
    timer_free(g_steal_pointer(&s->periodic_timer));
    timer_free(g_steal_pointer(&s->update_timer));
}

void mc146818_reset(MC146818 *s)
{
    int64_t now = now_ns(s);

    note_time(s, now);
    s->cmos_data[RTC_REG_B] &= (uint8_t) ~(RTC_B_PIE | RTC_B_AIE | RTC_B_UIE | RTC_B_SQWE);
    s->cmos_data[RTC_REG_C] = 0;
    s->irq_reinject_on_ack_count = 0;
    set_period(s, now);
    timer_del(s->periodic_timer);
    timer_del(s->update_timer);
}

void mc146818_set_byte(MC146818 *s, unsigned index, uint8_t value)
{
    g_assert(index >= FIRST_MEMORY && index < RTC_CMOS_BYTES);
    s->cmos_data[index] = value;
}

uint8_t mc146818_get_byte(const MC146818 *s, unsigned index)
{
    g_assert(index >= FIRST_MEMORY && index < RTC_CMOS_BYTES);
    return s->cmos_data[index];
}

/* --- state that travels --- */

/*
 * Flags are brought up to date unless one of them would interrupt: the controller may have been saved before.
 * Then the timer is due, and fires at the destination. The bytes say which second the flags tell of. The
 * timers are armed also where only flags wait for them: stock QEMU sets flags in timers.
 */
static int before_save(void *opaque, GError **errp)
{
    MC146818 *s = opaque;
    MC146818 before = *s;
    bool interrupted = wants_interrupt(s);
    int64_t alarm;

    note_time(s, now_ns(s));
    if (!interrupted && wants_interrupt(s)) {
        *s = before;
    }
    alarm = next_alarm(s, s->seen_s);
    s->next_alarm_time = (uint64_t)(alarm == NO_ALARM ? INT64_MAX : ns_of_second(s, alarm));
    if (is_running(s)) {
        bytes_from_second(s, s->seen_s);
        timer_mod_ns(s->update_timer, ns_of_second(s, s->seen_s + 1));
    }
    if (s->period && (s->cmos_data[RTC_REG_B] & RTC_B_PIE)) {
        timer_mod_ns(s->periodic_timer, s->next_periodic_time);
    }
    return 0;
}

static int before_load(void *opaque, GError **errp)
{
    ((MC146818 *)opaque)->irq_reinject_on_ack_count = 0; /* its subsection is there only if not */
    return 0;
}

static bool is_valid(const MC146818 *s)
{
    int64_t base = (int64_t)s->base_rtc;

    return s->cmos_index <= INDEX_MASK && base >= SECONDS_MIN && base <= SECONDS_MAX &&
           s->last_update <= LAST_UPDATE_MAX && s->offset > -SECOND_NS && s->offset < SECOND_NS &&
           s->irq_reinject_on_ack_count <= RTC_REINJECT_MAX;
}

static int loaded(void *opaque, int version_id, GError **errp)
{
    MC146818 *s = opaque;
    int64_t now = now_ns(s), rest;

    if (!is_valid(s)) {
        error_setg(errp, "mc146818rtc: index, time or count of lost interrupts is out of range");
        return -EINVAL;
    }
    s->cmos_data[RTC_REG_A] &= (uint8_t)~RTC_A_UIP;
    s->period = period_of(s);
    if (!s->slew || !s->period) {
        s->irq_coalesced = 0;
    }
    s->next_periodic_time = MAX(s->next_periodic_time, 0);
    if (s->period && s->next_periodic_time - now > ticks_to_ns(s->period)) {
        s->next_periodic_time = period_end_after(s, now);
    }
    if (s->base.clock == QEMU_CLOCK_REALTIME) { /* it reads something else on each host */
        time_from_bytes(s, now);
    }
    /* Updates that the bytes do not know yet are still to be told. */
    s->seen_s = is_running(s) ? MIN(second_from_bytes(s), time_at(s, now, &rest)) : 0;
    irq_load_level(s->irq, wants_interrupt(s));
    arm(s);
    return 0;
}

static bool reinject_needed(void *opaque)
{
    return ((MC146818 *)opaque)->irq_reinject_on_ack_count;
}

static const VMStateField reinject_fields[] = {VMSTATE_UINT16(irq_reinject_on_ack_count, MC146818),
                                               VMSTATE_END_OF_LIST()};

static const VMStateDescription vmstate_reinject = {
    .name = "mc146818rtc/irq_reinject_on_ack_count",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = reinject_needed,
    .fields = reinject_fields,
};
static const VMStateDescription *const subsections[] = {&vmstate_reinject, NULL};

static const VMStateField fields[] = {VMSTATE_BUFFER(cmos_data, MC146818),
                                      VMSTATE_UINT8(cmos_index, MC146818),
                                      VMSTATE_UNUSED(28),
                                      VMSTATE_TIMER_PTR(periodic_timer, MC146818),
                                      VMSTATE_INT64(next_periodic_time, MC146818),
                                      VMSTATE_UNUSED(24),
                                      VMSTATE_UINT32(irq_coalesced, MC146818),
                                      VMSTATE_UINT32(period, MC146818),
                                      VMSTATE_UINT64(base_rtc, MC146818),
                                      VMSTATE_UINT64(last_update, MC146818),
                                      VMSTATE_INT64(offset, MC146818),
                                      VMSTATE_TIMER_PTR(update_timer, MC146818),
                                      VMSTATE_UINT64(next_alarm_time, MC146818),
                                      VMSTATE_END_OF_LIST()};

const VMStateDescription vmstate_mc146818 = {
    .name = "mc146818rtc",
    .version_id = 3,
    .minimum_version_id = 3,
    .pre_load = before_load,
    .post_load = loaded,
    .pre_save = before_save,
    .fields = fields,
    .subsections = subsections,
};
