/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The loader of a stream: parts of the guest that hold the switchover back until they are ready. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/channel-socket.h"
#include "migration/savevm.h"
#include "util/aio.h"
#include "util/bql.h"
#include "util/bswap.h"
#include "util/error.h"
#include "vmstate/register.h"
#include "vmstate/vmstate-fields.h"

static MigrationIncomingState mis;

/* A live part; what its section says is when it agrees. */
typedef struct Part {
    const char *name;
    bool needed;
} Part;

static bool part_needs_ack(void *opaque)
{
    return ((Part *)opaque)->needed;
}

static int part_load(QEMUFile *f, void *opaque, int version_id, GError **errp)
{
    g_assert_cmpint(version_id, ==, 1);
    return qemu_get_byte(f) ? loadvm_approve_switchover(&mis) : 0;
}

static const SaveVMHandlers part_ops = {
    .load_state = part_load,
    .switchover_ack_needed = part_needs_ack,
};

/* --- a stream --- */

static void put_command(GByteArray *out, uint16_t cmd, uint32_t ping)
{
    uint8_t buf[9] = {QEMU_VM_COMMAND};
    uint16_t len = cmd == MIG_CMD_PING ? 4 : 0;

    stw_be_p(buf + 1, cmd);
    stw_be_p(buf + 3, len);
    stl_be_p(buf + 5, ping);
    g_byte_array_append(out, buf, 5u + len);
}

/* A section of a part, START the first time, and a PING behind it, whose PONG tells where we are. */
static void put_part(GByteArray *out, const Part *part, uint8_t id, bool first, bool agrees,
                     uint32_t ping)
{
    uint8_t head[5] = {first ? QEMU_VM_SECTION_START : QEMU_VM_SECTION_END, 0, 0, 0, id};
    uint8_t version[8] = {0, 0, 0, 0, 0, 0, 0, 1}, says = agrees;
    uint8_t foot[5] = {QEMU_VM_SECTION_FOOTER, 0, 0, 0, id};

    g_byte_array_append(out, head, sizeof(head));
    if (first) {
        uint8_t len = (uint8_t)strlen(part->name);

        g_byte_array_append(out, &len, 1);
        g_byte_array_append(out, (const uint8_t *)part->name, len);
        g_byte_array_append(out, version, sizeof(version));
    }
    g_byte_array_append(out, &says, 1);
    g_byte_array_append(out, foot, sizeof(foot));
    put_command(out, MIG_CMD_PING, ping);
}

/* The answers on the return path: "p1" for a PONG, "ack". */
static char *answers(int fd)
{
    GString *text = g_string_new("");
    uint8_t buf[8];

    while (read(fd, buf, 4) == 4) {
        uint16_t type = (uint16_t)lduw_be_p(buf), len = (uint16_t)lduw_be_p(buf + 2);

        g_assert_cmpuint(len, <=, 4);
        g_assert_cmpint(read(fd, buf + 4, len), ==, len);
        if (type == MIG_RP_MSG_PONG) {
            g_string_append_printf(text, "p%u ", (unsigned)ldl_be_p(buf + 4));
        } else {
            g_assert_cmpuint(type, ==, MIG_RP_MSG_SWITCHOVER_ACK);
            g_string_append(text, "ack ");
        }
    }
    return g_string_free(text, FALSE);
}

static MigrationSettings *settings_with(bool ack)
{
    MigrationSettings *settings = migration_settings_get();
    MigrationSettings *copy = g_memdup2(settings, sizeof(*settings));

    migration_settings_unref(settings);
    copy->compat.send_configuration = false;
    copy->caps[MIGRATION_CAPABILITY_SWITCHOVER_ACK] = ack;
    return copy;
}

/* Loads what two parts say, each twice: whether they agree then. */
static char *load(bool capability, Part *parts, const bool agree[4])
{
    static const uint8_t header[8] = {'Q', 'E', 'V', 'M', 0, 0, 0, 3}, eof[1];
    g_autoptr(GByteArray) out = g_byte_array_new();
    GError *err = NULL;
    int fds[2];
    char *text;

    g_byte_array_append(out, header, sizeof(header));
    put_command(out, MIG_CMD_OPEN_RETURN_PATH, 0);
    for (unsigned i = 0; i < 4; i++) {
        put_part(out, &parts[i % 2], (uint8_t)(i % 2 + 1), i < 2, agree[i], i);
    }
    g_byte_array_append(out, eof, 1);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    g_assert_cmpint(write(fds[1], out->data, out->len), ==, (gssize)out->len);
    g_assert_cmpint(shutdown(fds[1], SHUT_WR), ==, 0);
    for (unsigned i = 0; i < 2; i++) {
        register_savevm_live(parts[i].name, 0, 1, &part_ops, &parts[i]);
    }
    {
        g_autoptr(QIOChannel) ioc = QIO_CHANNEL(qio_channel_socket_new_fd(fds[0], NULL));

        g_assert_true(qio_channel_set_blocking(ioc, true, NULL));
        mis.settings = settings_with(capability);
        mis.from_src = qemu_file_new_input(ioc);
    }
    bql_unlock(); /* it is not the main thread that loads */
    g_assert_cmpint(loadvm_state(&mis, mis.from_src, &err), ==, 0);
    bql_lock();
    (void)qemu_fclose(g_steal_pointer(&mis.to_src));
    (void)qemu_fclose(g_steal_pointer(&mis.from_src));
    g_free(mis.settings);
    unregister_savevm(parts[0].name, &parts[0]);
    unregister_savevm(parts[1].name, &parts[1]);
    text = answers(fds[1]);
    close(fds[1]);
    return text;
}

static void test_the_last_part_lets_the_guest_come(void)
{
    Part parts[2] = {{"one", true}, {"two", true}};
    g_autofree char *text = load(true, parts, (const bool[]){false, true, false, false});
    g_autofree char *second = load(true, parts, (const bool[]){true, false, false, true});

    g_assert_cmpstr(text, ==, "p0 p1 p2 p3 ");
    g_assert_cmpstr(second, ==, "p0 p1 p2 ack p3 ");
}

static void test_parts_that_do_not_care_hold_nothing(void)
{
    Part parts[2] = {{"one", false}, {"two", true}}, none[2] = {{"one", false}, {"two", false}};
    g_autofree char *text = load(true, parts, (const bool[]){false, true, false, false});
    g_autofree char *at_once = load(true, none, (const bool[4]){false});

    g_assert_cmpstr(text, ==, "p0 ack p1 p2 p3 ");
    g_assert_cmpstr(at_once, ==, "ack p0 p1 p2 p3 ");
}

static void test_without_the_capability_no_source_is_told(void)
{
    Part parts[2] = {{"one", true}, {"two", true}};
    g_autofree char *text = load(false, parts, (const bool[]){true, true, false, false});

    g_assert_cmpstr(text, ==, "p0 p1 p2 p3 ");
}

static void test_a_device_that_cannot_be_migrated(void)
{
    static const VMStateDescription stuck = {
        .name = "stuck", .version_id = 1, .unmigratable = true};
    g_autoptr(GBytes) nothing = g_bytes_new_static("", 0);
    g_autoptr(QEMUFile) f = qemu_file_new_memory_input(nothing);
    GError *err = NULL;

    vmstate_register(0, &stuck, &mis);
    mis.settings = settings_with(false);
    bql_unlock();
    g_assert_cmpint(loadvm_state(&mis, f, &err), ==, -EINVAL);
    bql_lock();
    g_assert_cmpstr(err->message, ==, "the state of the device 'stuck' cannot be migrated");
    g_error_free(err);
    g_free(mis.settings);
    vmstate_unregister(&stuck, &mis);
}

/* --- devices that are plugged in and out while a guest is loaded --- */

typedef struct Device {
    uint8_t value;
} Device;

static const VMStateDescription device_vmsd = {
    .name = "device",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields =
        (const VMStateField[]){
            VMSTATE_UINT8(value, Device),
            VMSTATE_END_OF_LIST(),
        },
};

/* A live part in whose section the device is unplugged. */
static int part_unplugs(QEMUFile *f, void *opaque, int version_id, GError **errp)
{
    bql_lock();
    vmstate_unregister(&device_vmsd, opaque);
    memset(opaque, 0xaa, sizeof(Device)); /* not the device's any more */
    bql_unlock();
    return 0;
}

static void test_a_device_that_is_unplugged_during_the_load_is_not_touched(void)
{
    static const SaveVMHandlers ops = {.load_state = part_unplugs};
    static const uint8_t stream[] = "QEVM\0\0\0\3"
                                    "\1\0\0\0\1\4part\0\0\0\0\0\0\0\1\x7e\0\0\0\1"
                                    "\4\0\0\0\2\6device\0\0\0\0\0\0\0\1\5\x7e\0\0\0\2";
    g_autoptr(GBytes) bytes = g_bytes_new_static(stream, sizeof(stream));
    g_autoptr(QEMUFile) f = qemu_file_new_memory_input(bytes);
    g_autoptr(GError) err = NULL;
    Device device = {1};

    vmstate_register(0, &device_vmsd, &device);
    register_savevm_live("part", 0, 1, &ops, &device);
    mis.settings = settings_with(false);
    bql_unlock();
    g_assert_cmpint(loadvm_state(&mis, f, &err), <, 0);
    bql_lock();
    g_assert_nonnull(strstr(err->message, "'device' was removed while the guest was loaded"));
    g_assert_cmpuint(device.value, ==, 0xaa);
    unregister_savevm("part", &device);
    g_free(mis.settings);
}

static void test_a_part_that_cannot_be_loaded_is_refused(void)
{
    static const SaveVMHandlers ops = {.save_cleanup = NULL};
    static const uint8_t stream[] = "QEVM\0\0\0\3"
                                    "\1\0\0\0\1\4part\0\0\0\0\0\0\0\1\x7e\0\0\0\1";
    g_autoptr(GBytes) bytes = g_bytes_new_static(stream, sizeof(stream));
    g_autoptr(QEMUFile) f = qemu_file_new_memory_input(bytes);
    g_autoptr(GError) err = NULL;

    register_savevm_live("part", 0, 1, &ops, &mis);
    mis.settings = settings_with(false);
    bql_unlock();
    g_assert_cmpint(loadvm_state(&mis, f, &err), ==, -EINVAL);
    bql_lock();
    g_assert_nonnull(strstr(err->message, "'part' takes no part in this migration"));
    unregister_savevm("part", &mis);
    g_free(mis.settings);
}

/* --- what is left to be sent --- */

static int set_nothing_up(QEMUFile *f, void *opaque, GError **errp)
{
    return 0;
}

static void memory_like_pending(void *opaque, bool exact, SaveVMPending *pending)
{
    pending->can_postcopy += exact ? 1000 : 900;
}

static void device_like_pending(void *opaque, bool exact, SaveVMPending *pending)
{
    pending->must_precopy += 70;
    pending->can_postcopy += 5;
}

static void test_what_is_left_is_told_by_when_it_has_to_go(void)
{
    static const SaveVMHandlers memory = {.save_setup = set_nothing_up,
                                          .state_pending = memory_like_pending};
    static const SaveVMHandlers device = {.save_setup = set_nothing_up,
                                          .state_pending = device_like_pending};
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(4096);
    MigrationSettings *settings = settings_with(false);
    SaveVMPending pending;
    SaveVMState *sv;
    int memory_part, device_part;

    register_savevm_live("memory", 0, 1, &memory, &memory_part);
    register_savevm_live("device", 0, 1, &device, &device_part);
    bql_unlock();
    sv = savevm_prepare(settings, NULL);
    g_assert_cmpint(savevm_setup(sv, f, NULL), ==, 0);
    pending = savevm_pending_by_kind(sv, false);
    g_assert_cmpuint(pending.must_precopy, ==, 70);
    g_assert_cmpuint(pending.can_postcopy, ==, 905);
    g_assert_cmpuint(savevm_pending(sv, true), ==, 1075);
    savevm_cleanup(sv);
    bql_lock();
    unregister_savevm("memory", &memory_part);
    unregister_savevm("device", &device_part);
    g_free(settings);
}

/* --- the life of live parts at the source --- */

/* What is called, in order, and what a part sends. */
static GString *calls;

static int note_call(const char *what, void *opaque)
{
    g_string_append_printf(calls, "%s.%s ", ((const Part *)opaque)->name, what);
    return 0;
}

static int note_prepare(void *opaque, GError **errp)
{
    return note_call("prepare", opaque);
}

static int refuse_early(void *opaque, GError **errp)
{
    note_call("prepare", opaque);
    error_setg(errp, "no room");
    return -ENOMEM;
}

static int note_setup(QEMUFile *f, void *opaque, GError **errp)
{
    return note_call("setup", opaque);
}

static int note_precopy(QEMUFile *f, void *opaque, GError **errp)
{
    return note_call("precopy", opaque);
}

static int note_postcopy(QEMUFile *f, void *opaque, GError **errp)
{
    return note_call("postcopy", opaque);
}

static int note_resume(void *opaque, GError **errp)
{
    return note_call("resume", opaque);
}

static void note_cleanup(void *opaque)
{
    note_call("cleanup", opaque);
}

/* Memory may follow its guest, a device may not; the third part only loads. */
static const SaveVMHandlers memory_ops = {
    .save_prepare = note_prepare,
    .save_setup = note_setup,
    .save_live_complete_precopy = note_precopy,
    .save_live_complete_postcopy = note_postcopy,
    .resume_prepare = note_resume,
    .save_cleanup = note_cleanup,
};
static const SaveVMHandlers device_ops = {
    .save_setup = note_setup,
    .save_live_complete_precopy = note_precopy,
    .save_cleanup = note_cleanup,
};
static const SaveVMHandlers loads_only = {.load_state = part_load, .save_cleanup = note_cleanup};
static const SaveVMHandlers begins_only = {.save_setup = note_setup};
static const SaveVMHandlers refuses = {
    .save_prepare = refuse_early,
    .save_setup = note_setup,
    .save_cleanup = note_cleanup,
};

/* Registers the parts, runs `life` and returns the calls. */
static char *calls_of(unsigned n, const SaveVMHandlers *const *ops,
                      void (*life)(QEMUFile *f, const MigrationSettings *settings))
{
    static Part parts[] = {{"a"}, {"b"}, {"c"}};
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(4096);
    MigrationSettings *settings = settings_with(false);

    calls = g_string_new("");
    for (unsigned i = 0; i < n; i++) {
        register_savevm_live(parts[i].name, 0, 1, ops[i], &parts[i]);
    }
    bql_unlock();
    life(f, settings);
    bql_lock();
    for (unsigned i = 0; i < n; i++) {
        unregister_savevm(parts[i].name, &parts[i]);
    }
    g_free(settings);
    return g_string_free(calls, FALSE);
}

static void live_precopy(QEMUFile *f, const MigrationSettings *settings)
{
    SaveVMState *sv = savevm_prepare(settings, NULL);

    g_assert_cmpint(savevm_setup(sv, f, NULL), ==, 0);
    g_assert_cmpint(savevm_complete_live(sv, f, false, NULL), ==, 0);
    savevm_cleanup(sv);
}

static void live_postcopy(QEMUFile *f, const MigrationSettings *settings)
{
    SaveVMState *sv = savevm_prepare(settings, NULL);

    g_assert_cmpint(savevm_setup(sv, f, NULL), ==, 0);
    g_assert_cmpint(savevm_complete_live(sv, f, true, NULL), ==, 0);
    g_assert_cmpint(savevm_resume_prepare(sv, NULL), ==, 0);
    g_assert_cmpint(savevm_complete_postcopy(sv, f, NULL), ==, 0);
    savevm_cleanup(sv);
}

static void refused_early(QEMUFile *f, const MigrationSettings *settings)
{
    g_autoptr(GError) err = NULL;

    g_assert_null(savevm_prepare(settings, &err));
    g_assert_cmpstr(err->message, ==, "no room");
    g_assert_cmpuint(qemu_file_transferred(f), ==, 0);
}

static void test_parts_do_what_they_have_functions_for(void)
{
    const SaveVMHandlers *const ops[] = {&memory_ops, &loads_only, &begins_only};
    g_autofree char *text = calls_of(3, ops, live_precopy);

    g_assert_cmpstr(text, ==, "a.prepare a.setup c.setup a.precopy a.cleanup ");
}

static void test_in_postcopy_memory_ends_after_its_guest_has_started(void)
{
    const SaveVMHandlers *const ops[] = {&memory_ops, &device_ops};
    g_autofree char *text = calls_of(2, ops, live_postcopy);

    g_assert_cmpstr(text, ==,
                    "a.prepare a.setup b.setup b.precopy a.resume a.postcopy a.cleanup b.cleanup ");
}

static void test_a_part_that_refuses_early_costs_nothing(void)
{
    const SaveVMHandlers *const ops[] = {&memory_ops, &device_ops, &refuses};
    g_autofree char *text = calls_of(3, ops, refused_early);

    g_assert_cmpstr(text, ==, "a.prepare c.prepare a.cleanup c.cleanup ");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    g_mutex_init(&mis.lock);
    g_mutex_init(&mis.channels_lock);
    g_test_add_func("/loadvm/switchover-ack/last", test_the_last_part_lets_the_guest_come);
    g_test_add_func("/loadvm/switchover-ack/some", test_parts_that_do_not_care_hold_nothing);
    g_test_add_func("/loadvm/switchover-ack/off", test_without_the_capability_no_source_is_told);
    g_test_add_func("/loadvm/unplugged",
                    test_a_device_that_is_unplugged_during_the_load_is_not_touched);
    g_test_add_func("/loadvm/not-loadable", test_a_part_that_cannot_be_loaded_is_refused);
    g_test_add_func("/loadvm/pending", test_what_is_left_is_told_by_when_it_has_to_go);
    g_test_add_func("/savevm/functions", test_parts_do_what_they_have_functions_for);
    g_test_add_func("/savevm/postcopy", test_in_postcopy_memory_ends_after_its_guest_has_started);
    g_test_add_func("/savevm/refused-early", test_a_part_that_refuses_early_costs_nothing);
    g_test_add_func("/loadvm/unmigratable", test_a_device_that_cannot_be_migrated);
    return g_test_run();
}
