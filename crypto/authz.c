/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Authorization objects: one identity, or rules in order. */
#include "crypto/authz.h"
#include <string.h>
#include "util/error.h"

typedef struct QAuthZRule {
    char *match;
    bool glob;
    bool allow;
} QAuthZRule;

struct QAuthZ {
    char *id;   /* under which it is published; NULL: not yet */
    bool allow; /* where no rule matches */
    size_t n_rules;
    QAuthZRule *rules;
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

QAuthZ *qauthz_list_new(const AuthZListProperties *props, GError **errp)
{
    QAuthZ *authz = g_new0(QAuthZ, 1);
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
    return authz;
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
    for (size_t i = 0; i < authz->n_rules; i++) {
        g_free(authz->rules[i].match);
    }
    g_free(authz->rules);
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
    allowed = authz && qauthz_is_allowed(authz, identity);
    g_mutex_unlock(&published.lock);
    if (!authz) {
        error_setg(errp, "No authorization object with id '%s'", id);
    } else if (!allowed) {
        error_setg(errp, "'%s' is not authorized by '%s'", identity, id);
    }
    return allowed;
}
