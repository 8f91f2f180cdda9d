/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VMState: what a device's state looks like on the wire, as data.
 *
 * A VMStateDescription names the members of a state struct in their order on the wire, with
 * versions, optional subsections and hooks. Saving and loading walk it. Nothing on the wire
 * describes itself, so a description is an interface between versions: change it only by adding
 * subsections, or fields with a higher version. The macros that make fields are in
 * vmstate/vmstate-fields.h.
 *
 *     static const VMStateDescription vmstate_fw_cfg = {
 *         .name = "fw_cfg",
 *         .version_id = 2,
 *         .minimum_version_id = 1,
 *         .fields = (const VMStateField[]){
 *             VMSTATE_UINT16(cur_entry, FWCfgState),
 *             VMSTATE_UINT32(cur_offset, FWCfgState, VMS_SINCE(2)),
 *             VMSTATE_END_OF_LIST()},
 *         .subsections = (const VMStateDescription *const[]){&vmstate_fw_cfg_dma, NULL},
 *     };
 *
 * Wire: scalars are big endian, back to back; a subsection is 0x05, a counted name that starts with
 * its parent's, be32 version, contents. Nested structs are inline, followed by their subsections.
 *
 * Trust: the sender of a stream is not trusted. Loading never writes outside what a field declares: every
 * count and size is checked against the field's capacity, lists and allocations against the limits
 * below. What a number means is for the device: post_load (or a VMSTATE_VALIDATE field, before
 * a later field uses it) checks ranges.
 *
 * Threads: the caller owns the state while it is saved or loaded; hooks run in the caller's thread.
 * A field that is a timer needs the thread of the timer's AioContext.
 *
 * Results: 0 or -errno with one message in errp that says where: description, field, offset in the
 * stream, cause.
 */
#ifndef FERRY_VMSTATE_VMSTATE_H
#define FERRY_VMSTATE_VMSTATE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "vmstate/json-writer.h"
#include "vmstate/qemu-file.h"

typedef struct VMStateDescription VMStateDescription;
typedef struct VMStateField VMStateField;
typedef struct VMStateInfo VMStateInfo;

/* Structs in structs in structs: beyond this a load or save fails. */
#define VMSTATE_MAX_DEPTH 64
/* Memory that the elements of one list or tree, or one allocated array, may take when loaded. */
#define VMSTATE_MAX_ALLOC (64 * 1024 * 1024)

/* How one value travels. Besides the ready ones below, a device may bring its own. */
struct VMStateInfo {
    const char *name; /* the type in the stream's JSON */
    /*
     * `pv` is the element, `size` its bytes (field->size, or what a buffer has; a bitmap: bits).
     * Return 0 or -errno; errors of the file itself need not be reported.
     */
    int (*get)(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp);
    /* vmdesc may be NULL; otherwise an object is open in which name and type are set already. */
    int (*put)(QEMUFile *f, void *pv, size_t size, const VMStateField *field, JSONWriter *vmdesc,
               GError **errp);
};

typedef enum VMStateFlags {
    VMS_POINTER = 0x01, /* the member points to the element or to the array */
    VMS_ALLOC = 0x02,   /* with VMS_POINTER: g_free() it and allocate it anew when loading */
    VMS_ARRAY = 0x04,   /* a number of elements */
    /* Elements are pointers; a NULL one is the byte '0' on the wire, and NULL on both sides. */
    VMS_ARRAY_OF_POINTER = 0x08,
    VMS_ALLOC_ELEMENTS = 0x10, /* with VMS_ARRAY_OF_POINTER: none is NULL, loading allocates them */
    VMS_BUFFER = 0x20,         /* bytes: count and capacity are in bytes */
    VMS_STRUCT = 0x40,         /* elements are structs that `vmsd` describes */
    VMS_VSTRUCT = 0x80,        /* with VMS_STRUCT: in version struct_version_id */
    VMS_VALIDATE = 0x100,      /* no data: field_exists() says whether the state is valid */
    VMS_END = 0x200,
} VMStateFlags;

/* The member that holds the number of elements (or bytes), or that there is none. */
typedef enum VMStateCount {
    VMS_COUNT_FIXED, /* `num` */
    VMS_COUNT_UINT8,
    VMS_COUNT_UINT16,
    VMS_COUNT_UINT32,
    VMS_COUNT_INT32, /* a negative one is an error */
} VMStateCount;

/* With this bit a capacity is the offset of the uint32_t member that says it. */
#define VMS_CAPACITY_AT (~(SIZE_MAX >> 1))

struct VMStateField {
    const char *name;
    size_t offset;  /* of the member in the state */
    size_t size;    /* bytes of one element in memory; of pointees where elements are pointers */
    unsigned flags; /* VMStateFlags */
    const VMStateInfo *info;        /* exactly one of info and vmsd, but for lists and tmp */
    const VMStateDescription *vmsd; /* of the struct, or the elements of a list or tree */

    VMStateCount count_type;
    size_t count_offset; /* of the count's member */
    size_t multiplier;   /* of the count; 0 is 1 */
    size_t num;          /* VMS_ARRAY with a fixed count: elements */
    /* With a count's member: elements (bytes; a bitmap: bits) there is room for. VMS_CAPACITY_AT */
    size_t capacity;

    int version_id; /* present in payloads from this version on */
    int struct_version_id;
    /* If set it alone decides whether the field is there; called with the payload's version. */
    bool (*field_exists)(void *opaque, int version_id);
    const char *err_hint; /* what to do when an `equal` field differs */

    size_t link_offset;                 /* lists: of the link in an element */
    const VMStateDescription *key_vmsd; /* trees: NULL for keys that are integers */
    size_t key_size;
};

/* The order of saving, highest first; inside one priority the order of registration counts. */
typedef enum MigrationPriority {
    MIG_PRI_DEFAULT,
    MIG_PRI_IOMMU,
    MIG_PRI_PCI_BUS,
    MIG_PRI_VIRTIO_MEM,
    MIG_PRI_APIC,
    MIG_PRI_MAX,
} MigrationPriority;

/*
 * Hooks get the state. The int ones return 0 or -errno, preferably with an error; a subsection has
 * hooks of its own.
 */
struct VMStateDescription {
    const char *name;
    bool unmigratable; /* while it is registered the guest can neither leave nor arrive */
    int version_id;
    int minimum_version_id; /* of a payload that can be loaded */
    MigrationPriority priority;

    int (*pre_load)(void *opaque, GError **errp); /* sets what the stream may not contain */
    /* Checks what has been loaded and makes it effective. Subsections are loaded by then. */
    int (*post_load)(void *opaque, int version_id, GError **errp);
    int (*pre_save)(void *opaque, GError **errp);
    void (*post_save)(void *opaque); /* follows every pre_save that succeeded, after errors also */
    bool (*needed)(void *opaque);    /* NULL: always */

    const VMStateField *fields;                   /* to VMSTATE_END_OF_LIST() */
    const VMStateDescription *const *subsections; /* to NULL; NULL: none */
};

/* --- saving and loading --- */

/* False: this section or subsection is left out. */
bool vmstate_section_needed(const VMStateDescription *vmsd, void *opaque);

/*
 * Writes the payload. vmdesc: NULL, or a writer with an open object that receives "vmsd_name",
 * "version", "fields" and perhaps "subsections".
 */
int vmstate_save_state(QEMUFile *f, const VMStateDescription *vmsd, void *opaque,
                       JSONWriter *vmdesc, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The same as version version_id <= vmsd->version_id would write it. */
int vmstate_save_state_v(QEMUFile *f, const VMStateDescription *vmsd, void *opaque,
                         JSONWriter *vmdesc, int version_id,
                         GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Reads a payload that was written as version version_id. After an error the state is undefined. */
int vmstate_load_state(QEMUFile *f, const VMStateDescription *vmsd, void *opaque, int version_id,
                       GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/*
 * The same for a registered device: its name and instance are in the error, and `devices` (NULL, or
 * a writer with an open array) receives an object for it.
 */
int vmstate_save_device(QEMUFile *f, const char *idstr, uint32_t instance_id,
                        const VMStateDescription *vmsd, void *opaque, JSONWriter *devices,
                        GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int vmstate_load_device(QEMUFile *f, const char *idstr, uint32_t instance_id,
                        const VMStateDescription *vmsd, void *opaque, int version_id,
                        GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The object for a section that has no description, of `size` bytes. */
void vmstate_describe_opaque_device(JSONWriter *devices, const char *idstr, uint32_t instance_id,
                                    uint64_t size);

/* --- values (vmstate-types.c, vmstate-lists.c) --- */

extern const VMStateInfo vmstate_info_bool;
extern const VMStateInfo vmstate_info_int8;
extern const VMStateInfo vmstate_info_int16;
extern const VMStateInfo vmstate_info_int32;
extern const VMStateInfo vmstate_info_int64;
extern const VMStateInfo vmstate_info_uint8;
extern const VMStateInfo vmstate_info_uint16;
extern const VMStateInfo vmstate_info_uint32;
extern const VMStateInfo vmstate_info_uint64;
/* The loaded value must equal the present one. */
extern const VMStateInfo vmstate_info_int32_equal;
extern const VMStateInfo vmstate_info_uint8_equal;
extern const VMStateInfo vmstate_info_uint16_equal;
extern const VMStateInfo vmstate_info_uint32_equal;
extern const VMStateInfo vmstate_info_uint64_equal;
/* The loaded value must be between 0 and the present one. */
extern const VMStateInfo vmstate_info_int32_le;
extern const VMStateInfo vmstate_info_cpudouble; /* a double, as the be64 of its bits */
extern const VMStateInfo vmstate_info_timer;     /* a QEMUTimer; all ones: not armed */
extern const VMStateInfo vmstate_info_buffer;
extern const VMStateInfo vmstate_info_unused_buffer; /* zeroes that no loader looks at */
extern const VMStateInfo vmstate_info_bitmap;        /* uint64_t words; bit i is word i / 64 */
extern const VMStateInfo vmstate_info_nullptr;
extern const VMStateInfo
    vmstate_info_fd; /* refused in both directions: an fd can't be in a stream */
extern const VMStateInfo vmstate_info_tmp;
extern const VMStateInfo vmstate_info_qtailq;
extern const VMStateInfo vmstate_info_qlist;
extern const VMStateInfo vmstate_info_gtree;

/* --- what there is (-dump-vmstate) --- */

/*
 * Names the description that a type of device has. Start-up, main thread; both live for ever. Stops
 * the process if the description is inconsistent (a subsection's name without its parent's, ...).
 */
void vmstate_register_class_description(const char *type, const VMStateDescription *vmsd);
/* All of them as JSON text, in the layout of QEMU's -dump-vmstate. Caller frees. */
char *vmstate_dump_json(const char *machine_name);

#endif
