/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration section: which machine the stream is of, and which capabilities both sides must
 * agree about.
 */
#include <errno.h>
#include <string.h>
#include "migration/savevm.h"
#include "qapi/qapi-types-migration.h"
#include "util/error.h"
#include "vmstate/vmstate-fields.h"

/* Longest name of a machine type, and most capabilities, that a stream may have. */
#define MACHINE_NAME_MAX 255
#define CAPABILITIES_MAX 64

static MigrationIdentity identity;

void migration_set_identity(const MigrationIdentity *id)
{
    identity = *id;
}

const MigrationIdentity *migration_get_identity(void)
{
    return &identity;
}

/* A capability as the stream has it: a counted string. */
typedef struct CapabilityName {
    char text[256];
} CapabilityName;

typedef struct Configuration {
    const MigrationSettings *settings;
    uint32_t len;
    uint8_t *name;
    uint32_t n_caps;
    CapabilityName *caps;
    uint32_t target_page_bits;
    uint8_t uuid[16];
    bool uuid_came;
} Configuration;

/* They change what is in the stream, so that both sides must have them alike. */
static const MigrationCapability validated[] = {MIGRATION_CAPABILITY_X_IGNORE_SHARED,
                                                MIGRATION_CAPABILITY_MAPPED_RAM};

static bool shapes_the_stream(MigrationCapability cap)
{
    bool found = false;

    for (size_t i = 0; i < G_N_ELEMENTS(validated); i++) {
        found |= validated[i] == cap;
    }
    return found;
}

static int read_name(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    CapabilityName *name = pv;

    return MIN(qemu_get_counted_string(f, name->text), 0);
}

static int write_name(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                      JSONWriter *vmdesc, GError **errp)
{
    const CapabilityName *name = pv;

    qemu_put_counted_string(f, name->text);
    return 0;
}

static const VMStateInfo vmstate_info_capability = {
    .name = "capability",
    .get = read_name,
    .put = write_name,
};

static bool capabilities_needed(void *opaque)
{
    return ((Configuration *)opaque)->n_caps > 0;
}

static const VMStateDescription vmstate_capabilities = {
    .name = "configuration/capabilities",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = capabilities_needed,
    .fields =
        (const VMStateField[]){
            VMSTATE_UINT32(n_caps, Configuration),
            VMSTATE_VARRAY_ALLOC(caps, Configuration, n_caps, VMS_AT_MOST(CAPABILITIES_MAX), 0,
                                 vmstate_info_capability, CapabilityName),
            VMSTATE_END_OF_LIST(),
        },
};

static bool never_needed(void *opaque)
{
    return false; /* pages have 12 bits here, which needs no mention */
}

static const VMStateDescription vmstate_target_page_bits = {
    .name = "configuration/target-page-bits",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = never_needed,
    .fields =
        (const VMStateField[]){
            VMSTATE_UINT32(target_page_bits, Configuration),
            VMSTATE_END_OF_LIST(),
        },
};

static bool uuid_needed(void *opaque)
{
    return identity.has_uuid && migrate_validate_uuid(((Configuration *)opaque)->settings);
}

static int uuid_post_load(void *opaque, int version_id, GError **errp)
{
    ((Configuration *)opaque)->uuid_came = true;
    return 0;
}

static const VMStateDescription vmstate_uuid = {
    .name = "configuration/uuid",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = uuid_needed,
    .post_load = uuid_post_load,
    .fields =
        (const VMStateField[]){
            VMSTATE_BUFFER(uuid, Configuration),
            VMSTATE_END_OF_LIST(),
        },
};

static const VMStateDescription vmstate_configuration = {
    .name = "configuration",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields =
        (const VMStateField[]){
            VMSTATE_UINT32(len, Configuration),
            VMSTATE_VBUFFER_ALLOC(name, Configuration, 0, NULL, len, VMS_AT_MOST(MACHINE_NAME_MAX)),
            VMSTATE_END_OF_LIST(),
        },
    .subsections = (const VMStateDescription *const[]){&vmstate_target_page_bits,
                                                       &vmstate_capabilities, &vmstate_uuid, NULL},
};

int configuration_save(QEMUFile *f, const MigrationSettings *settings, JSONWriter *json,
                       GError **errp)
{
    CapabilityName caps[G_N_ELEMENTS(validated)];
    Configuration config = {
        .settings = settings,
        .len = strlen(identity.machine),
        .name = (uint8_t *)identity.machine,
        .caps = caps,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(validated); i++) {
        if (migrate_cap(settings, validated[i])) {
            g_strlcpy(caps[config.n_caps++].text, MigrationCapability_str(validated[i]),
                      sizeof(caps[0].text));
        }
    }
    memcpy(config.uuid, identity.uuid, sizeof(config.uuid));
    qemu_put_byte(f, QEMU_VM_CONFIGURATION);
    return vmstate_save_state(f, &vmstate_configuration, &config, json, errp);
}

static int check_capabilities(const Configuration *config, GError **errp)
{
    bool came[MIGRATION_CAPABILITY__MAX] = {0};

    for (uint32_t i = 0; i < config->n_caps; i++) {
        MigrationCapability cap;

        if (!MigrationCapability_parse(config->caps[i].text, &cap, NULL) ||
            !shapes_the_stream(cap)) {
            error_setg(errp, "Received unknown capability %s", config->caps[i].text);
            return -EINVAL;
        }
        came[cap] = true;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(validated); i++) {
        bool here = migrate_cap(config->settings, validated[i]);

        if (here != came[validated[i]]) {
            error_setg(errp, "Capability %s is %s, but received capability is %s",
                       MigrationCapability_str(validated[i]), here ? "on" : "off",
                       here ? "off" : "on");
            return -EINVAL;
        }
    }
    return 0;
}

static int check(const Configuration *config, GError **errp)
{
    const char *name = (const char *)config->name;

    if (config->len == 0 || strnlen(name, config->len) != config->len ||
        strncmp(name, identity.machine, config->len) != 0) {
        error_setg(errp, "Machine type received is '%.*s' and local is '%s'", (int)config->len,
                   name, identity.machine);
        return -EINVAL;
    }
    if (config->target_page_bits && config->target_page_bits != 12) {
        error_setg(errp, "Received TARGET_PAGE_BITS is %u but local is 12",
                   config->target_page_bits);
        return -EINVAL;
    }
    if (config->uuid_came && !identity.has_uuid) {
        warn_report("the guest that arrives has a UUID, this one has none");
    } else if (config->uuid_came && memcmp(config->uuid, identity.uuid, sizeof(identity.uuid))) {
        error_setg(errp,
                   "UUID received differs from the local one: the stream is of another guest");
        return -EINVAL;
    }
    return check_capabilities(config, errp);
}

int configuration_load(QEMUFile *f, const MigrationSettings *settings, GError **errp)
{
    Configuration config = {.settings = settings};
    int ret = vmstate_load_state(f, &vmstate_configuration, &config, 1, errp);

    if (ret == 0) {
        ret = check(&config, errp);
    }
    g_free(config.name);
    g_free(config.caps);
    return ret;
}
