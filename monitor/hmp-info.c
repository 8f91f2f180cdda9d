/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HMP "info": the answers of QMP's queries for people to read. */
#include <string.h>
#include "block/job/job.h"
#include "monitor/hmp-int.h"
#include "monitor/hmp.h"
#include "util/cutils.h"
#include "util/error.h"
#include "util/version.h"

static const char *str(json_object *json, const char *member)
{
    json_object *value;

    return json_object_object_get_ex(json, member, &value) && value ? json_object_get_string(value)
                                                                    : "";
}

static json_object *sub(json_object *json, const char *member)
{
    json_object *value;

    return json_object_object_get_ex(json, member, &value) ? value : NULL;
}

static bool boolean(json_object *json, const char *member)
{
    return json_object_get_boolean(sub(json, member));
}

typedef void Printer(HMPOutput *out, json_object *item);

/* Runs a query that returns a list and prints each item; `none` if there is none. */
static void coroutine_fn print_list(HMPOutput *out, const char *query, Printer *print,
                                    const char *none)
{
    json_object *list = hmp_co_qmp(out, query, NULL);
    size_t n = list ? json_object_array_length(list) : 0;

    for (size_t i = 0; i < n; i++) {
        print(out, json_object_array_get_idx(list, i));
    }
    if (list && !n && none) {
        hmp_printf(out, "%s\n", none);
    }
    json_object_put(list);
}

static void coroutine_fn info_version(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    hmp_printf(out, "%s (%s)\n", QEMU_VERSION, FERRY_PACKAGE);
}

static void coroutine_fn info_status(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    json_object *status = hmp_co_qmp(out, "query-status", NULL);

    if (status) {
        const char *name = str(status, "status");
        bool plain = boolean(status, "running") || !strcmp(name, "paused");

        hmp_printf(out, "VM status: %s", boolean(status, "running") ? "running" : "paused");
        hmp_printf(out, plain ? "%s\n" : " (%s)\n", plain ? "" : name);
    }
    json_object_put(status);
}

static void coroutine_fn info_name(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    json_object *name = hmp_co_qmp(out, "query-name", NULL);

    if (name && *str(name, "name")) {
        hmp_printf(out, "%s\n", str(name, "name"));
    }
    json_object_put(name);
}

static void coroutine_fn info_uuid(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    json_object *uuid = hmp_co_qmp(out, "query-uuid", NULL);

    if (uuid) {
        hmp_printf(out, "%s\n", str(uuid, "UUID"));
    }
    json_object_put(uuid);
}

static void print_chardev(HMPOutput *out, json_object *item)
{
    hmp_printf(out, "%s: filename=%s\n", str(item, "label"), str(item, "filename"));
}

static void coroutine_fn info_chardev(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    print_list(out, "query-chardev", print_chardev, NULL);
}

static void print_iothread(HMPOutput *out, json_object *item)
{
    hmp_printf(out,
               "%s:\n  thread_id=%s\n  poll-max-ns=%s\n  poll-grow=%s\n  poll-shrink=%s\n  "
               "aio-max-batch=%s\n",
               str(item, "id"), str(item, "thread-id"), str(item, "poll-max-ns"),
               str(item, "poll-grow"), str(item, "poll-shrink"), str(item, "aio-max-batch"));
}

static void coroutine_fn info_iothreads(HMPOutput *out, const HMPCommand *cmd, int argc,
                                        char **argv)
{
    print_list(out, "query-iothreads", print_iothread, NULL);
}

static void print_fdset(HMPOutput *out, json_object *item)
{
    json_object *fds = sub(item, "fds");

    hmp_printf(out, "fdset %s:\n", str(item, "fdset-id"));
    for (size_t i = 0; fds && i < json_object_array_length(fds); i++) {
        json_object *fd = json_object_array_get_idx(fds, i);

        hmp_printf(out, "  fd %s %s\n", str(fd, "fd"), str(fd, "opaque"));
    }
}

static void coroutine_fn info_fdsets(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    print_list(out, "query-fdsets", print_fdset, NULL);
}

/* --- disks --- */

static void print_image(HMPOutput *out, json_object *inserted)
{
    json_object *cache = sub(inserted, "cache");

    hmp_printf(out, ": %s (%s%s%s)\n", str(inserted, "file"), str(inserted, "drv"),
               boolean(inserted, "ro") ? ", read-only" : "",
               boolean(inserted, "encrypted") ? ", encrypted" : "");
    if (cache) {
        const char *mode = boolean(cache, "no-flush") ? ", ignore flushes" : "";

        hmp_printf(out, "    Cache mode:       %s%s%s\n",
                   boolean(cache, "writeback") ? "writeback" : "writethrough",
                   boolean(cache, "direct") ? ", direct" : "", mode);
    }
    if (*str(inserted, "backing_file")) {
        hmp_printf(out, "    Backing file:     %s (chain depth: %s)\n",
                   str(inserted, "backing_file"), str(inserted, "backing_file_depth"));
    }
    if (*str(inserted, "detect_zeroes") && strcmp(str(inserted, "detect_zeroes"), "off") != 0) {
        hmp_printf(out, "    Detect zeroes:    %s\n", str(inserted, "detect_zeroes"));
    }
}

static void print_block(HMPOutput *out, json_object *item)
{
    json_object *inserted = sub(item, "inserted");

    hmp_printf(out, "%s", *str(item, "device") ? str(item, "device") : str(item, "qdev"));
    if (!inserted) {
        hmp_printf(out, ": [not inserted]\n");
        return;
    }
    if (*str(inserted, "node-name")) {
        hmp_printf(out, " (%s)", str(inserted, "node-name"));
    }
    print_image(out, inserted);
    if (*str(item, "qdev")) {
        hmp_printf(out, "    Attached to:      %s\n", str(item, "qdev"));
    }
}

static void print_node(HMPOutput *out, json_object *item)
{
    hmp_printf(out, "%s", str(item, "node-name"));
    print_image(out, item);
}

/* A node's image and those below it. */
static void print_images(HMPOutput *out, json_object *inserted)
{
    json_object *image = sub(inserted, "image");

    hmp_printf(out, "\nImages:\n");
    for (; image; image = sub(image, "backing-image")) {
        g_autofree char *size =
            size_to_str((uint64_t)json_object_get_int64(sub(image, "virtual-size")));

        hmp_printf(out, "image: %s\nfile format: %s\nvirtual size: %s (%s bytes)\n",
                   str(image, "filename"), str(image, "format"), size, str(image, "virtual-size"));
        if (sub(image, "actual-size")) {
            g_autofree char *used =
                size_to_str((uint64_t)json_object_get_int64(sub(image, "actual-size")));

            hmp_printf(out, "disk size: %s\n", used);
        }
        if (sub(image, "cluster-size")) {
            hmp_printf(out, "cluster_size: %s\n", str(image, "cluster-size"));
        }
        if (*str(image, "backing-filename")) {
            hmp_printf(out, "backing file: %s\n", str(image, "backing-filename"));
        }
    }
}

typedef struct BlockQuery {
    const char *query, *member; /* the command, and the member that is the name */
    Printer *print;
} BlockQuery;

/* Prints what has the name (NULL: everything); how many that were. */
static size_t coroutine_fn print_named(HMPOutput *out, const BlockQuery *query, const char *name,
                                       bool verbose)
{
    json_object *list = hmp_co_qmp(out, query->query, NULL);
    size_t n = list ? json_object_array_length(list) : 0, printed = 0;

    for (size_t i = 0; i < n; i++) {
        json_object *item = json_object_array_get_idx(list, i);
        json_object *inserted = sub(item, "inserted") ? sub(item, "inserted") : item;

        if (name && strcmp(str(item, query->member), name) != 0) {
            continue;
        }
        hmp_printf(out, "%s", printed++ ? "\n" : "");
        query->print(out, item);
        if (verbose && sub(inserted, "image")) {
            print_images(out, inserted);
        }
    }
    json_object_put(list);
    return printed;
}

static void coroutine_fn info_block(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    static const BlockQuery devices = {"query-block", "device", print_block};
    static const BlockQuery nodes = {"query-named-block-nodes", "node-name", print_node};
    bool named = false, verbose = false;
    const char *name;

    for (; argc && argv[0][0] == '-'; argc--, argv++) {
        named |= !strcmp(argv[0], "-n");
        verbose |= !strcmp(argv[0], "-v");
    }
    name = argc ? argv[0] : NULL;
    if (!named && print_named(out, &devices, name, verbose)) {
        return;
    }
    if ((named || name) && !print_named(out, &nodes, name, verbose) && name) {
        hmp_printf(out, "Error: there is no disk or node '%s'\n", name);
    }
}

static void coroutine_fn info_nodes(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    print_list(out, "query-named-block-nodes", print_node, NULL);
}

static void print_stats(HMPOutput *out, json_object *item)
{
    static const char *const members[] = {
        "rd_bytes",         "wr_bytes",         "rd_operations",    "wr_operations",
        "flush_operations", "wr_total_time_ns", "rd_total_time_ns", "flush_total_time_ns"};
    json_object *stats = sub(item, "stats");

    hmp_printf(out, "%s:", *str(item, "device") ? str(item, "device") : str(item, "node-name"));
    for (size_t i = 0; stats && i < G_N_ELEMENTS(members); i++) {
        hmp_printf(out, " %s=%s", members[i], str(stats, members[i]));
    }
    hmp_printf(out, "\n");
}

static void coroutine_fn info_blockstats(HMPOutput *out, const HMPCommand *cmd, int argc,
                                         char **argv)
{
    print_list(out, "query-blockstats", print_stats, NULL);
}

/* --- jobs --- */

/*
 * "45.2 % done, 1.5 GiB left, 162 MiB/s, 9 s to go, running": what a person wants to know of it.
 * The rate is the average since the job began.
 */
static void print_progress(HMPOutput *out, json_object *item)
{
    int64_t done = json_object_get_int64(sub(item, "offset"));
    int64_t len = json_object_get_int64(sub(item, "len"));
    g_autofree char *left = size_to_str(MAX(len - done, 0));
    Job *job = job_get(str(item, "device"));
    double seconds = 0;

    if (job && job->start_ns) {
        seconds = (double)(qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - job->start_ns) / 1e9;
    }
    hmp_printf(out, "    %.1f %% done, %s left, ",
               len > 0 ? 100.0 * (double)done / (double)len : 100.0, left);
    if (done > 0 && seconds > 0) {
        double rate = (double)done / seconds;
        g_autofree char *text = size_to_str((uint64_t)rate);

        hmp_printf(out, "%s/s, %.0f s to go, ", text, (double)MAX(len - done, 0) / rate);
    }
    hmp_printf(out, "%s\n", str(item, "status"));
}

static void print_block_job(HMPOutput *out, json_object *item)
{
    if (!strcmp(str(item, "type"), "stream")) {
        hmp_printf(out, "Streaming device %s: Completed %s of %s bytes, speed limit %s bytes/s\n",
                   str(item, "device"), str(item, "offset"), str(item, "len"), str(item, "speed"));
    } else {
        hmp_printf(out, "Type %s, device %s: Completed %s of %s bytes, speed limit %s bytes/s\n",
                   str(item, "type"), str(item, "device"), str(item, "offset"), str(item, "len"),
                   str(item, "speed"));
    }
    print_progress(out, item);
}

static void coroutine_fn info_block_jobs(HMPOutput *out, const HMPCommand *cmd, int argc,
                                         char **argv)
{
    print_list(out, "query-block-jobs", print_block_job, "No active jobs");
}

static void print_job(HMPOutput *out, json_object *item)
{
    hmp_printf(out, "%s: %s, %s, %s of %s%s%s\n", str(item, "id"), str(item, "type"),
               str(item, "status"), str(item, "current-progress"), str(item, "total-progress"),
               *str(item, "error") ? ": " : "", str(item, "error"));
}

static void coroutine_fn info_jobs(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    print_list(out, "query-jobs", print_job, "No active jobs");
}

static void print_trace_event(HMPOutput *out, json_object *item)
{
    hmp_printf(out, "%s : state %d\n", str(item, "name"), !strcmp(str(item, "state"), "enabled"));
}

static void coroutine_fn info_trace_events(HMPOutput *out, const HMPCommand *cmd, int argc,
                                           char **argv)
{
    json_object *args = json_object_new_object(), *list;

    json_object_object_add(args, "name", json_object_new_string(argc ? argv[0] : "*"));
    list = hmp_co_qmp(out, "trace-event-get-state", args);
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        print_trace_event(out, json_object_array_get_idx(list, i));
    }
    json_object_put(list);
}

static void coroutine_fn info_kvm(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    json_object *kvm = hmp_co_qmp(out, "query-kvm", NULL);

    if (kvm) {
        hmp_printf(out, "kvm support: %s\n",
                   boolean(kvm, "enabled")   ? "enabled"
                   : boolean(kvm, "present") ? "disabled"
                                             : "not compiled");
    }
    json_object_put(kvm);
}

void hmp_register_infos(void)
{
    static const HMPCommand infos[] = {
        {"block", "[-n] [-v] [name]", "disks and their images; -n: all named nodes; -v: more",
         info_block},
        {"block-jobs", "", "block jobs that run", info_block_jobs},
        {"blockstats", "", "what disks have done", info_blockstats},
        {"chardev", "", "character devices", info_chardev},
        {"fdsets", "", "descriptors passed in", info_fdsets},
        {"iothreads", "", "iothreads", info_iothreads},
        {"jobs", "", "all jobs", info_jobs},
        {"kvm", "", "whether KVM runs the guest", info_kvm},
        {"name", "", "name of the guest", info_name},
        {"named-block-nodes", "", "all named nodes", info_nodes},
        {"status", "", "whether the guest runs", info_status},
        {"trace-events", "[pattern]", "trace events and whether they are on", info_trace_events},
        {"uuid", "", "identity of the guest", info_uuid},
        {"version", "", "version", info_version},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(infos); i++) {
        hmp_register_info(&infos[i]);
    }
}
