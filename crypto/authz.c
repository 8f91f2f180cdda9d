/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Authorization objects: one identity, or rules in order. */
#include "crypto/authz.h"
#include <string.h>
#include "qom/user-creatable.h"
#include "util/error.h"

typedef struct QAuthZRule {
    char *match;
    bool glob;
    bool allow;
} QAuthZRule;

struct QAuthZ {
    bool allow; /* where no rule matches */
    size_t n_rules;
    QAuthZRule *rules;
};

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

void qauthz_free(QAuthZ *authz)
{
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
    UserCreatable *object = user_creatable_find(id, OBJECT_TYPE_AUTHZ_LIST, NULL);

    if (!object) {
        object = user_creatable_find(id, OBJECT_TYPE_AUTHZ_SIMPLE, NULL);
    }
    if (!object) {
        error_setg(errp, "No authorization object with id '%s'", id);
        return false;
    }
    if (!qauthz_is_allowed(user_creatable_get(object), identity)) {
        error_setg(errp, "'%s' is not authorized by '%s'", identity, id);
        return false;
    }
    return true;
}
