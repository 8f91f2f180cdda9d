/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The rules of blkdebug: their state machine, and the file they can come from. */
#include "block/debug/blkdebug.h"

#include <errno.h>
#include <string.h>
#include "util/error.h"
#include "util/read-file.h"
#include "util/wipe.h"

#define RULE_FILE_MAX_BYTES (1024 * 1024)

/* What a rule that names no iotype applies to. */
#define DEFAULT_IOTYPES                                                     \
    (1u << BLKDEBUG_IO_TYPE_READ | 1u << BLKDEBUG_IO_TYPE_WRITE |           \
     1u << BLKDEBUG_IO_TYPE_WRITE_ZEROES | 1u << BLKDEBUG_IO_TYPE_DISCARD | \
     1u << BLKDEBUG_IO_TYPE_FLUSH)

void blkdebug_rules_init(BlkdebugRules *rules)
{
    rules->errors = g_array_new(false, true, sizeof(BlkdebugErrorRule));
    rules->states = g_array_new(false, true, sizeof(BlkdebugStateRule));
    rules->state = 1;
}

void blkdebug_rules_clear(BlkdebugRules *rules)
{
    g_clear_pointer(&rules->errors, g_array_unref);
    g_clear_pointer(&rules->states, g_array_unref);
}

bool blkdebug_rules_add_error(BlkdebugRules *rules, const BlkdebugInjectErrorOptions *o,
                              GError **errp)
{
    BlkdebugErrorRule rule = {
        .event = o->event,
        .state = o->has_state ? o->state : BLKDEBUG_ANY_STATE,
        .iotypes = o->has_iotype ? 1u << o->iotype : DEFAULT_IOTYPES,
        .error = EIO,
        .delay_ns = o->has_delay_ns ? o->delay_ns : 0,
        .offset = BLKDEBUG_ANY_SECTOR,
        .once = o->has_once && o->once,
        .immediately = o->has_immediately && o->immediately,
    };

    if (o->has_errno) {
        if (o->q_errno < 0 || o->q_errno > 4095) {
            error_setg(errp, "Invalid value for errno: %" PRId64 " is no error number", o->q_errno);
            return false;
        }
        rule.error = o->q_errno;
    }
    if (rule.delay_ns < 0) {
        error_setg(errp, "Invalid value for delay-ns: it must not be negative");
        return false;
    }
    if (o->has_sector && o->sector != BLKDEBUG_ANY_SECTOR) {
        if (o->sector < 0 || o->sector > BDRV_MAX_LENGTH / BDRV_SECTOR_SIZE) {
            error_setg(errp, "Invalid value for sector: %" PRId64 " is outside of any image",
                       o->sector);
            return false;
        }
        rule.offset = o->sector * BDRV_SECTOR_SIZE;
    }
    g_array_append_val(rules->errors, rule);
    return true;
}

bool blkdebug_rules_add_state(BlkdebugRules *rules, const BlkdebugSetStateOptions *o, GError **errp)
{
    BlkdebugStateRule rule = {
        .event = o->event,
        .state = o->has_state ? o->state : BLKDEBUG_ANY_STATE,
        .new_state = o->new_state,
    };

    (void)errp;
    g_array_append_val(rules->states, rule);
    return true;
}

static bool state_fits(const BlkdebugRules *rules, int64_t state)
{
    return state == BLKDEBUG_ANY_STATE || state == rules->state;
}

void blkdebug_rules_event(BlkdebugRules *rules, BlkdebugEvent event)
{
    int64_t new_state = rules->state;
    bool arming = false;

    for (guint i = 0; i < rules->errors->len; i++) {
        BlkdebugErrorRule *rule = &g_array_index(rules->errors, BlkdebugErrorRule, i);

        if (rule->event != event || rule->spent || !state_fits(rules, rule->state)) {
            continue;
        }
        if (!arming) {
            /* The rules of this event take the place of those armed by an earlier one. */
            for (guint j = 0; j < rules->errors->len; j++) {
                g_array_index(rules->errors, BlkdebugErrorRule, j).armed = false;
            }
            arming = true;
        }
        rule->armed = true;
    }
    for (guint i = 0; i < rules->states->len; i++) {
        const BlkdebugStateRule *rule = &g_array_index(rules->states, BlkdebugStateRule, i);

        if (rule->event == event && state_fits(rules, rule->state)) {
            new_state = rule->new_state;
        }
    }
    rules->state = new_state;
}

const BlkdebugErrorRule *blkdebug_rules_match(BlkdebugRules *rules, BlkdebugIOType type,
                                              int64_t offset, int64_t bytes)
{
    for (guint i = 0; i < rules->errors->len; i++) {
        BlkdebugErrorRule *rule = &g_array_index(rules->errors, BlkdebugErrorRule, i);
        bool in_range = rule->offset == BLKDEBUG_ANY_SECTOR ||
                        (bytes > 0 && rule->offset >= offset && rule->offset - offset < bytes);

        if (rule->armed && !rule->spent && (rule->iotypes & (1u << type)) && in_range) {
            if (rule->once) {
                rule->spent = true;
                rule->armed = false;
            }
            return rule;
        }
    }
    return NULL;
}

/* --- rule files --- */

/*
 * Turns a finished section into a rule by way of the schema's decoder, which knows all members and
 * types.
 */
static bool finish_section(BlkdebugRules *rules, const char *section, json_object *members,
                           GError **errp)
{
    if (!section) {
        return true;
    }
    if (!strcmp(section, "inject-error")) {
        g_autoptr(BlkdebugInjectErrorOptions) o =
            BlkdebugInjectErrorOptions_from_json(members, QAPI_DECODE_KEYVAL, errp);

        return o && blkdebug_rules_add_error(rules, o, errp);
    }
    if (!strcmp(section, "set-state")) {
        g_autoptr(BlkdebugSetStateOptions) o =
            BlkdebugSetStateOptions_from_json(members, QAPI_DECODE_KEYVAL, errp);

        return o && blkdebug_rules_add_state(rules, o, errp);
    }
    error_setg(errp, "there is no section '%s'", section);
    return false;
}

/* `name = "value"`; false when the line is not of that form. */
static bool parse_assignment(char *line, json_object *members)
{
    char *value = strchr(line, '=');
    size_t len;

    if (!value) {
        return false;
    }
    *value++ = '\0';
    line = g_strstrip(line);
    value = g_strstrip(value);
    len = strlen(value);
    if (!line[0] || len < 2 || value[0] != '"' || value[len - 1] != '"') {
        return false;
    }
    value[len - 1] = '\0';
    json_object_object_add(members, line, json_object_new_string(value + 1));
    return true;
}

static bool read_lines(BlkdebugRules *rules, char **lines, GError **errp)
{
    g_autofree char *section = NULL;
    json_object *members = json_object_new_object();
    bool ok = true;
    int i;

    for (i = 0; lines[i] && ok; i++) {
        char *line = g_strstrip(lines[i]);
        size_t len = strlen(line);

        if (!len || line[0] == '#') {
            continue;
        }
        if (line[0] == '[' && line[len - 1] == ']') {
            ok = finish_section(rules, section, members, errp);
            json_object_put(members);
            members = json_object_new_object();
            g_free(section);
            section = g_strndup(line + 1, len - 2);
        } else if (!section || !parse_assignment(line, members)) {
            error_setg(errp, "it is neither a [section] nor a line of the form name = \"value\"");
            ok = false;
        }
    }
    ok = ok && finish_section(rules, section, members, errp);
    json_object_put(members);
    if (!ok) {
        g_prefix_error(errp, "line %d: ", i);
    }
    return ok;
}

bool blkdebug_rules_read_file(BlkdebugRules *rules, const char *path, GError **errp)
{
    g_auto(GStrv) lines = NULL;
    uint8_t *text;
    size_t bytes;

    if (!qemu_read_file(path, RULE_FILE_MAX_BYTES, &text, &bytes, errp)) {
        g_prefix_error(errp, "Could not read blkdebug config file: ");
        return false;
    }
    lines = g_strsplit((const char *)text, "\n", -1);
    wipe_free(text, bytes);
    if (!read_lines(rules, lines, errp)) {
        g_prefix_error(errp, "Could not parse blkdebug config file '%s': ", path);
        return false;
    }
    return true;
}
