/* SPDX-License-Identifier: GPL-2.0-or-later */
/* x-debug-query-block-graph: which parent uses which node, with which permissions. */
#include "block/block-backend.h"
#include "block/graph/graph.h"
#include "block/job/job.h"
#include "qapi/qapi-commands-block-info.h"

typedef struct GraphQuery {
    XDbgBlockGraph *graph;
    XDbgBlockGraphNodeList **nodes_tail;
    XDbgBlockGraphEdgeList **edges_tail;
    GHashTable *ids; /* object -> number */
} GraphQuery;

/* The number of an object of the graph, which is listed when it is met for the first time. */
static uint64_t graph_id(GraphQuery *q, const void *object, XDbgBlockGraphNodeType type,
                         const char *name)
{
    gpointer known = g_hash_table_lookup(q->ids, object);
    XDbgBlockGraphNode *node;

    if (known) {
        return GPOINTER_TO_UINT(known);
    }
    node = g_new0(XDbgBlockGraphNode, 1);
    node->id = g_hash_table_size(q->ids) + 1;
    node->type = type;
    node->name = g_strdup(name);
    g_hash_table_insert(q->ids, (gpointer)object, GUINT_TO_POINTER((guint)node->id));
    QAPI_LIST_APPEND(q->nodes_tail, node);
    return node->id;
}

static uint64_t node_id(GraphQuery *q, const BlockDriverState *bs)
{
    return graph_id(q, bs, X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_DRIVER, bs->node_name);
}

static uint64_t parent_id(GraphQuery *q, const BdrvChild *child)
{
    if (child->klass->parent_is_bds) {
        return node_id(q, child->opaque);
    }
    if (bdrv_child_is_blk_root(child)) {
        return graph_id(q, child->opaque, X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_BACKEND,
                        blk_name(child->opaque));
    }
    return graph_id(q, child->opaque, X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_JOB,
                    ((const Job *)child->opaque)->id);
}

static BlockPermissionList *permission_list(uint64_t perm)
{
    static const struct {
        uint64_t bit;
        BlockPermission name;
    } names[] = {
        {BLK_PERM_CONSISTENT_READ, BLOCK_PERMISSION_CONSISTENT_READ},
        {BLK_PERM_WRITE, BLOCK_PERMISSION_WRITE},
        {BLK_PERM_WRITE_UNCHANGED, BLOCK_PERMISSION_WRITE_UNCHANGED},
        {BLK_PERM_RESIZE, BLOCK_PERMISSION_RESIZE},
    };
    BlockPermissionList *list = NULL;

    for (size_t i = G_N_ELEMENTS(names); i-- > 0;) {
        if (perm & names[i].bit) {
            QAPI_LIST_PREPEND(list, names[i].name);
        }
    }
    return list;
}

static void add_edges(GraphQuery *q, BlockDriverState *bs)
{
    BdrvChild *child;

    LIST_FOREACH(child, &bs->parents, next_parent) {
        XDbgBlockGraphEdge *edge;

        if (!child->opaque) {
            continue; /* a command looks at the node for a moment: no object is its parent */
        }
        edge = g_new0(XDbgBlockGraphEdge, 1);
        edge->parent = parent_id(q, child);
        edge->child = node_id(q, bs);
        edge->name = g_strdup(child->name);
        edge->perm = permission_list(child->perm);
        edge->shared_perm = permission_list(child->shared_perm);
        QAPI_LIST_APPEND(q->edges_tail, edge);
    }
}

bool coroutine_fn qmp_x_debug_query_block_graph(XDbgBlockGraph **ret, GError **errp)
{
    g_autoptr(GHashTable) ids = g_hash_table_new(NULL, NULL);
    XDbgBlockGraph *graph = g_new0(XDbgBlockGraph, 1);
    GraphQuery q = {
        .graph = graph,
        .nodes_tail = &graph->nodes,
        .edges_tail = &graph->edges,
        .ids = ids,
    };

    (void)errp;
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        graph_id(&q, blk, X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_BACKEND, blk_name(blk));
    }
    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        node_id(&q, bs);
        add_edges(&q, bs);
    }
    *ret = graph;
    return true;
}
