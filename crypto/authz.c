/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Authorization objects: one identity, or rules in order, also from a file. */
#include "crypto/authz.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "qapi/json.h"
#include "util/error.h"
#include "util/read-file.h"
#include "util/wipe.h"

typedef struct QAuthZRule {
    char *match;
    bool glob;
    bool allow;
} QAuthZRule;

/* A longer file is refused. */
#define AUTHZ_FILE_MAX (1024 * 1024)

/* Which version of a file was read. */
typedef struct FileStamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime, ctime;
} FileStamp;

struct QAuthZ {
    char *id;   /* under which it is published; NULL: not yet */
    bool allow; /* where no rule matches */
    size_t n_rules;
    QAuthZRule *rules;

    char *path;      /* the rules' file, looked at with each question; NULL: they stay */
    FileStamp stamp; /* what is known of it */
    bool unreadable; /* no identity is allowed until it can be read again */
};

/* The published ones, by id: handshakes in any thread ask them. */
static struct {
    GMutex lock;
    GHashTable *by_id; /* NULL: none ever */
} published;

static void rule_set(QAuthZRule *rule, const char *match, bool glob, bool allow)
{
    rule->match = g_strdup(match);
    rule->glob = glob;
    rule->allow = allow;
}

QAuthZ *qauthz_simple_new(const AuthZSimpleProperties *props, GError **errp)
{
    QAuthZ *authz = g_new0(QAuthZ, 1);

    authz->n_rules = 1;
    authz->rules = g_new0(QAuthZRule, 1);
    rule_set(authz->rules, props->identity, false, true);
    return authz;
}

static void rules_set(QAuthZ *authz, const AuthZListProperties *props)
{
    size_t n = 0;

    for (QAuthZListRuleList *l = props->rules; l; l = l->next) {
        n++;
    }
    authz->allow = props->has_policy && props->policy == QAUTHZ_LIST_POLICY_ALLOW;
    authz->rules = g_new0(QAuthZRule, n);
    for (QAuthZListRuleList *l = props->rules; l; l = l->next) {
        rule_set(&authz->rules[authz->n_rules++], l->value->match,
                 l->value->has_format && l->value->format == QAUTHZ_LIST_FORMAT_GLOB,
                 l->value->policy == QAUTHZ_LIST_POLICY_ALLOW);
    }
}

static void rules_clear(QAuthZ *authz)
{
    for (size_t i = 0; i < authz->n_rules; i++) {
        g_free(authz->rules[i].match);
    }
    g_clear_pointer(&authz->rules, g_free);
    authz->n_rules = 0;
    authz->allow = false;
}

QAuthZ *qauthz_list_new(const AuthZListProperties *props, GError **errp)
{
    QAuthZ *authz = g_new0(QAuthZ, 1);

    rules_set(authz, props);
    return authz;
}

/* --- from a file --- */

/* 0 or -errno. */
static int file_stamp(const char *path, FileStamp *stamp)
{
    struct stat st;

    if (stat(path, &st) < 0) {
        return -errno;
    }
    memset(stamp, 0, sizeof(*stamp)); /* they are compared as bytes */
    stamp->dev = st.st_dev;
    stamp->ino = st.st_ino;
    if (!S_ISREG(st.st_mode)) {
        return 0; /* a FIFO gives its contents once */
    }
    stamp->size = st.st_size;
    stamp->mtime = st.st_mtim;
    stamp->ctime = st.st_ctim;
    return 0;
}

/* qemu_read_file() or qemu_read_file_at_once(). */
typedef bool FileReader(const char *path, size_t max_bytes, uint8_t **data, size_t *bytes,
                        GError **errp);

/* The file has the properties of authz-list, as JSON. Without rules when it cannot be read. */
static bool file_load(QAuthZ *authz, const char *path, FileReader *read_file, GError **errp)
{
    g_autoptr(AuthZListProperties) props = NULL;
    json_object *json = NULL;
    uint8_t *text = NULL;
    size_t len = 0;
    GError *err = NULL;

    rules_clear(authz);
    if (!read_file(path, AUTHZ_FILE_MAX, &text, &len, errp)) {
        return false;
    }
    if (json_parse_text((const char *)text, len, &json, &err)) {
        props = AuthZListProperties_from_json(json, QAPI_DECODE_JSON, &err);
        json_object_put(json);
    }
    wipe_free(text, len);
    if (!props) {
        g_propagate_prefixed_error(errp, err, "Unable to read authorization list %s: ", path);
        return false;
    }
    rules_set(authz, props);
    return true;
}

QAuthZ *qauthz_listfile_new(const AuthZListFileProperties *props, GError **errp)
{
    QAuthZ *authz = g_new0(QAuthZ, 1);
    int ret = 0;

    if (!props->has_refresh || props->refresh) {
        authz->path = g_strdup(props->filename);
        ret = file_stamp(props->filename, &authz->stamp);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to read %s", props->filename);
    }
    if (ret < 0 || !file_load(authz, props->filename, qemu_read_file, errp)) {
        qauthz_free(authz);
        return NULL;
    }
    return authz;
}

/* Reads the file again when it is another one than before. With the lock of `published`. */
static void file_refresh(QAuthZ *authz)
{
    g_autoptr(GError) err = NULL;
    FileStamp stamp;
    int ret = file_stamp(authz->path, &stamp);
    bool ok;

    if (ret == 0 && !memcmp(&stamp, &authz->stamp, sizeof(stamp))) {
        return;
    }
    if (ret < 0) {
        memset(&stamp, 0, sizeof(stamp));
        rules_clear(authz);
        error_setg_errno(&err, -ret, "Unable to read %s", authz->path);
        ok = false;
    } else {
        ok = file_load(authz, authz->path, qemu_read_file_at_once, &err);
    }
    if (!ok && (ret == 0 || !authz->unreadable)) {
        warn_report("%s: '%s' authorizes no client until it can be read", err->message, authz->id);
    }
    authz->stamp = stamp; /* of before it was read: what changes meanwhile is read again */
    authz->unreadable = !ok;
}

void qauthz_publish(QAuthZ *authz, const char *id)
{
    authz->id = g_strdup(id);
    g_mutex_lock(&published.lock);
    if (!published.by_id) {
        published.by_id = g_hash_table_new(g_str_hash, g_str_equal);
    }
    g_hash_table_replace(published.by_id, authz->id, authz);
    g_mutex_unlock(&published.lock);
}

static void qauthz_unpublish(QAuthZ *authz)
{
    if (!authz->id) {
        return;
    }
    g_mutex_lock(&published.lock);
    if (g_hash_table_lookup(published.by_id, authz->id) == authz) {
        g_hash_table_remove(published.by_id, authz->id);
    }
    if (g_hash_table_size(published.by_id) == 0) {
        g_clear_pointer(&published.by_id, g_hash_table_unref);
    }
    g_mutex_unlock(&published.lock);
    g_free(authz->id);
}

void qauthz_free(QAuthZ *authz)
{
    qauthz_unpublish(authz);
    rules_clear(authz);
    g_free(authz->path);
    g_free(authz);
}

bool qauthz_is_allowed(const QAuthZ *authz, const char *identity)
{
    for (size_t i = 0; i < authz->n_rules; i++) {
        const QAuthZRule *rule = &authz->rules[i];

        if (rule->glob ? g_pattern_match_simple(rule->match, identity)
                       : !strcmp(rule->match, identity)) {
            return rule->allow;
        }
    }
    return authz->allow;
}

bool qauthz_is_allowed_by_id(const char *id, const char *identity, GError **errp)
{
    QAuthZ *authz;
    bool allowed = false;

    g_mutex_lock(&published.lock);
    authz = published.by_id ? g_hash_table_lookup(published.by_id, id) : NULL;
    if (authz && authz->path) {
        file_refresh(authz);
    }
    allowed = authz && qauthz_is_allowed(authz, identity);
    g_mutex_unlock(&published.lock);
    if (!authz) {
        error_setg(errp, "No authorization object with id '%s'", id);
    } else if (!allowed) {
        error_setg(errp, "'%s' is not authorized by '%s'", identity, id);
    }
    return allowed;
}
