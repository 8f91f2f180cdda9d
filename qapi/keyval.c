/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Option arguments of the command line to JSON.
 *
 * Containers are first built as objects, whatever their keys; the second pass turns those whose
 * keys are all indexes into arrays.
 */
#include "qapi/keyval.h"

#include <string.h>

#include "qapi/json.h"
#include "util/error.h"

/* True for a name made of digits only. */
static bool is_index(const char *name)
{
    return *name && name[strspn(name, "0123456789")] == '\0';
}

static bool check_name(const char *name, const char *key, GError **errp)
{
    size_t len = strlen(name);
    bool ok = len > 0 && len <= KEYVAL_MAX_NAME;

    for (size_t i = 0; ok && i < len; i++) {
        ok = g_ascii_isalnum(name[i]) || name[i] == '-' || name[i] == '_';
    }
    if (!ok) {
        error_setg(errp, "Invalid parameter '%s'", key);
    }
    return ok;
}

/* The container `name` of `parent`, made when it isn't there. NULL when it is a value. */
static json_object *get_container(json_object *parent, const char *name)
{
    json_object *child;

    if (!json_object_object_get_ex(parent, name, &child)) {
        child = json_object_new_object();
        json_object_object_add(parent, name, child);
    }
    return json_object_is_type(child, json_type_object) ? child : NULL;
}

static bool put_value(json_object *root, const char *key, const char *value, GError **errp)
{
    g_auto(GStrv) names = g_strsplit(key, ".", -1);
    guint depth = g_strv_length(names);
    json_object *container = root, *old;

    if (depth == 0 || depth > KEYVAL_MAX_DEPTH) {
        error_setg(errp, "Invalid parameter '%s'", key);
        return false;
    }
    for (guint i = 0; i < depth; i++) {
        if (!check_name(names[i], key, errp)) {
            return false;
        }
        if (i + 1 < depth) {
            container = get_container(container, names[i]);
        }
        if (!container) {
            error_setg(errp, "Parameter '%s' is used inconsistently", key);
            return false;
        }
    }
    if (json_object_object_get_ex(container, names[depth - 1], &old) &&
        json_object_is_type(old, json_type_object)) {
        error_setg(errp, "Parameter '%s' is used inconsistently", key);
        return false;
    }
    json_object_object_add(container, names[depth - 1], json_object_new_string(value));
    return true;
}

/*
 * Takes the text up to the next single comma, with double ones undone, and moves *params behind it.
 */
static char *take_text(const char **params)
{
    GString *text = g_string_new(NULL);
    const char *p = *params;

    for (; *p; p++) {
        if (*p == ',' && *++p != ',') {
            break;
        }
        g_string_append_c(text, *p);
    }
    *params = p;
    return g_string_free(text, FALSE);
}

static bool is_help(const char *text)
{
    return strcmp(text, "help") == 0 || strcmp(text, "?") == 0;
}

/* One parameter; *params moves behind it and its comma. */
static bool take_param(json_object *root, const char **params, const char *implied_key, bool *help,
                       GError **errp)
{
    size_t key_len = strcspn(*params, "=,");
    g_autofree char *key = NULL;
    g_autofree char *value = NULL;

    if ((*params)[key_len] != '=') {
        value = take_text(params);
        if (help && is_help(value)) {
            *help = true;
            return true;
        }
        if (!implied_key) {
            if (*value) {
                error_setg(errp, "No '=' after parameter '%s'", value);
            } else {
                error_setg(errp, "Expected a parameter before ','");
            }
            return false;
        }
        if (!*value) {
            error_setg(errp, "Expected a value for parameter '%s'", implied_key);
            return false;
        }
        return put_value(root, implied_key, value, errp);
    }
    key = g_strndup(*params, key_len);
    *params += key_len + 1;
    value = take_text(params);
    return put_value(root, key, value, errp);
}

static json_object *to_array(json_object *object, const char *key, GError **errp)
{
    int count = json_object_object_length(object);
    json_object *array = json_object_new_array();

    for (int i = 0; i < count; i++) {
        g_autofree char *name = g_strdup_printf("%d", i);
        json_object *element;

        if (!json_object_object_get_ex(object, name, &element)) {
            error_setg(errp, "Parameter '%s%s%d' is missing", key, *key ? "." : "", i);
            json_object_put(array);
            return NULL;
        }
        json_object_array_add(array, json_object_get(element));
    }
    return array;
}

/*
 * Makes arrays of what should be: the finished form of `object`, as a new reference. `key` is its
 * place. The recursion is at most KEYVAL_MAX_DEPTH deep.
 */
static json_object *finish_container(json_object *object, const char *key, GError **errp)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    guint indexes = 0;

    {
        json_object_object_foreach(object, name, value)
        {
            indexes += is_index(name);
            if (json_object_is_type(value, json_type_object)) {
                g_ptr_array_add(names, g_strdup(name));
            }
        }
    }
    for (guint i = 0; i < names->len; i++) {
        const char *name = names->pdata[i];
        g_autofree char *path = *key ? g_strdup_printf("%s.%s", key, name) : g_strdup(name);
        json_object *done = finish_container(json_object_object_get(object, name), path, errp);

        if (!done) {
            return NULL;
        }
        json_object_object_add(object, name, done);
    }
    if (indexes == 0 || !*key) {
        return json_object_get(object);
    }
    if (indexes < (guint)json_object_object_length(object)) {
        error_setg(errp, "Parameters '%s.*' are used inconsistently", key);
        return NULL;
    }
    if (indexes > KEYVAL_MAX_INDEX + 1) {
        error_setg(errp, "Parameter '%s' has more than %d elements", key, KEYVAL_MAX_INDEX + 1);
        return NULL;
    }
    return to_array(object, key, errp);
}

json_object *keyval_parse(const char *params, const char *implied_key, bool *help, GError **errp)
{
    json_object *root = json_object_new_object();
    json_object *ret = NULL;
    bool ok = true;

    if (help) {
        *help = false;
    }
    while (ok && *params) {
        ok = take_param(root, &params, implied_key, help, errp);
        implied_key = NULL;
    }
    if (ok) {
        ret = finish_container(root, "", errp);
    }
    json_object_put(root);
    return ret;
}

json_object *keyval_parse_or_json(const char *params, const char *implied_key, bool *help,
                                  QapiDecodeFlags *flags, GError **errp)
{
    json_object *json;

    if (*params != '{') {
        *flags = QAPI_DECODE_KEYVAL;
        return keyval_parse(params, implied_key, help, errp);
    }
    *flags = QAPI_DECODE_JSON;
    if (help) {
        *help = false;
    }
    return json_parse_text(params, strlen(params), &json, errp) ? json : NULL;
}
