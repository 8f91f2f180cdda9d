/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VMState: lists and trees. Before each element comes a byte 1, after the last one a byte 0.
 *
 * The stream decides how many elements there are, so their memory is bounded (VMSTATE_MAX_ALLOC).
 */
#include <errno.h>
#include <string.h>
#include "util/error.h"
#include "vmstate/vmstate.h"

enum { LIST_END = 0, LIST_ELEMENT = 1 };

/* Memory that a tree needs for a node, besides its value. */
#define GTREE_NODE_BYTES 64

/* What heads and links of <sys/queue.h> look like, whatever their elements are. */
typedef struct RawHead {
    void *first;
    void **last; /* not in a LIST_HEAD */
} RawHead;

typedef struct RawLink {
    void *next;
    void **prev;
} RawLink;

static RawLink *raw_link(void *element, const VMStateField *field)
{
    return (RawLink *)((char *)element + field->link_offset);
}

static int vmstate_list_bad_marker(uint8_t marker, GError **errp)
{
    error_setg(errp, "0x%02x neither starts an element nor ends the list", marker);
    return -EINVAL;
}

/* --- lists --- */

/* *where is the pointer that will point to the next element; moves on to that element's. */
static int vmstate_get_list(QEMUFile *f, const VMStateField *field, void ***where, GError **errp)
{
    size_t left = VMSTATE_MAX_ALLOC / field->size;
    uint8_t marker;
    int ret;

    while ((marker = qemu_get_byte(f)) == LIST_ELEMENT) {
        void *element = left-- > 0 ? g_try_malloc0(field->size) : NULL;
        RawLink *link;

        if (!element) {
            error_setg(errp, "its elements take more than %d bytes", VMSTATE_MAX_ALLOC);
            return -ENOMEM;
        }
        link = raw_link(element, field);
        link->prev = *where;
        **where = element;
        *where = &link->next;
        ret = vmstate_load_state(f, field->vmsd, element, field->version_id, errp);
        if (ret < 0) {
            return ret;
        }
    }
    return marker == LIST_END ? 0 : vmstate_list_bad_marker(marker, errp);
}

static int vmstate_put_list(QEMUFile *f, void *first, const VMStateField *field, JSONWriter *vmdesc,
                            GError **errp)
{
    for (void *element = first; element; element = raw_link(element, field)->next) {
        int ret;

        qemu_put_byte(f, LIST_ELEMENT);
        ret = vmstate_save_state(f, field->vmsd, element, vmdesc, errp);
        if (ret < 0) {
            return ret;
        }
    }
    qemu_put_byte(f, LIST_END);
    return 0;
}

static int read_qtailq(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    RawHead *head = pv;
    int ret;

    g_assert(head->last); /* TAILQ_INIT() */
    ret = vmstate_get_list(f, field, &head->last, errp);
    return ret;
}

static int write_qtailq(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                        JSONWriter *vmdesc, GError **errp)
{
    return vmstate_put_list(f, ((RawHead *)pv)->first, field, vmdesc, errp);
}

const VMStateInfo vmstate_info_qtailq = {"qtailq", read_qtailq, write_qtailq};

static int read_qlist(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    void **where = pv;

    while (*where) {
        where = &raw_link(*where, field)->next;
    }
    return vmstate_get_list(f, field, &where, errp);
}

static int write_qlist(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                       JSONWriter *vmdesc, GError **errp)
{
    return vmstate_put_list(f, *(void **)pv, field, vmdesc, errp);
}

const VMStateInfo vmstate_info_qlist = {"qlist", read_qlist, write_qlist};

/* --- trees --- */

static int vmstate_get_gtree_key(QEMUFile *f, GTree *tree, const VMStateField *field, void **key,
                                 GError **errp)
{
    g_autofree void *allocated = NULL;
    int ret;

    if (field->key_vmsd) {
        allocated = g_malloc0(field->key_size);
        ret = vmstate_load_state(f, field->key_vmsd, allocated, field->version_id, errp);
        if (ret < 0) {
            return ret;
        }
        *key = allocated;
    } else {
        *key = (void *)(uintptr_t)qemu_get_be64(f);
    }
    if (qemu_file_get_error(f) < 0) {
        return qemu_file_get_error(f);
    }
    if (g_tree_lookup_extended(tree, *key, NULL, NULL)) {
        error_setg(errp, "a key is there twice");
        return -EINVAL;
    }
    g_steal_pointer(&allocated);
    return 0;
}

static int vmstate_get_gtree_node(QEMUFile *f, GTree *tree, const VMStateField *field,
                                  GError **errp)
{
    void *key, *value;
    int ret = vmstate_get_gtree_key(f, tree, field, &key, errp);

    if (ret < 0) {
        return ret;
    }
    value = g_malloc0(field->size);
    g_tree_insert(tree, key, value);
    return vmstate_load_state(f, field->vmsd, value, field->version_id, errp);
}

static int read_gtree(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    GTree *tree = *(GTree **)pv;
    uint32_t expected = qemu_get_be32(f), n = 0;
    uint8_t marker;
    int ret;

    if (!tree) {
        error_setg(errp, "it does not exist here");
        return -EINVAL;
    }
    if (expected > VMSTATE_MAX_ALLOC / (field->size + field->key_size + GTREE_NODE_BYTES)) {
        error_setg(errp, "its %u nodes take more than %d bytes", expected, VMSTATE_MAX_ALLOC);
        return -ENOMEM;
    }
    while ((marker = qemu_get_byte(f)) == LIST_ELEMENT && n < expected) {
        ret = vmstate_get_gtree_node(f, tree, field, errp);
        if (ret < 0) {
            return ret;
        }
        n++;
    }
    if (qemu_file_get_error(f) < 0) {
        return qemu_file_get_error(f);
    }
    if (marker > LIST_ELEMENT) {
        return vmstate_list_bad_marker(marker, errp);
    }
    if (marker != LIST_END || n != expected) {
        error_setg(errp, "%u nodes are announced, but %s come", expected,
                   n < expected ? "fewer" : "more");
        return -EINVAL;
    }
    return 0;
}

typedef struct GTreePut {
    QEMUFile *f;
    const VMStateField *field;
    JSONWriter *vmdesc;
    GError **errp;
    int ret;
} GTreePut;

static gboolean vmstate_put_gtree_node(void *key, void *value, void *opaque)
{
    GTreePut *p = opaque;

    qemu_put_byte(p->f, LIST_ELEMENT);
    if (p->field->key_vmsd) {
        p->ret = vmstate_save_state(p->f, p->field->key_vmsd, key, p->vmdesc, p->errp);
    } else {
        qemu_put_be64(p->f, (uintptr_t)key);
    }
    if (p->ret == 0) {
        p->ret = vmstate_save_state(p->f, p->field->vmsd, value, p->vmdesc, p->errp);
    }
    return p->ret < 0; /* TRUE: stop */
}

static int write_gtree(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                       JSONWriter *vmdesc, GError **errp)
{
    GTree *tree = *(GTree **)pv;
    GTreePut p = {f, field, vmdesc, errp, 0};

    if (!tree) {
        error_setg(errp, "it does not exist here");
        return -EINVAL;
    }
    qemu_put_be32(f, g_tree_nnodes(tree));
    g_tree_foreach(tree, vmstate_put_gtree_node, &p);
    if (p.ret == 0) {
        qemu_put_byte(f, LIST_END);
    }
    return p.ret;
}

const VMStateInfo vmstate_info_gtree = {"gtree", read_gtree, write_gtree};
