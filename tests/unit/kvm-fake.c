/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/kvm-fake.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "util/page-bitmap.h"

#define PAGE ((uint64_t)TARGET_PAGE_SIZE)

enum { DEV_FD = 1000, VM_FD, VCPU_FD };

void kvm_fake_init(KVMFake *fake)
{
    *fake = (KVMFake){
        .version = 12,
        .log_protect = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET,
    };
}

void kvm_fake_destroy(KVMFake *fake)
{
    g_assert_cmpuint(fake->open_fds, ==, 0);
    for (unsigned as = 0; as < KVM_FAKE_SPACES; as++) {
        for (unsigned i = 0; i < KVM_FAKE_SLOTS; i++) {
            g_free(fake->slots[as][i].log);
        }
    }
}

static uint64_t pages_of(const KVMFakeSlot *slot)
{
    return slot->bytes / PAGE;
}

static KVMFakeSlot *find(KVMFakeSlot *slots, hwaddr addr)
{
    for (unsigned i = 0; i < KVM_FAKE_SLOTS; i++) {
        if (slots[i].bytes && addr >= slots[i].addr && addr - slots[i].addr < slots[i].bytes) {
            return &slots[i];
        }
    }
    return NULL;
}

const KVMFakeSlot *kvm_fake_find(const KVMFake *fake, unsigned as_id, hwaddr addr)
{
    return find((KVMFakeSlot *)fake->slots[as_id], addr);
}

bool kvm_fake_store(KVMFake *fake, unsigned as_id, hwaddr addr, uint64_t value)
{
    KVMFakeSlot *slot = find(fake->slots[as_id], addr);

    g_assert_cmpuint(addr % sizeof(value), ==, 0);
    if (!slot || slot->flags & KVM_MEM_READONLY) {
        return false;
    }
    memcpy(slot->host + (addr - slot->addr), &value, sizeof(value));
    if (slot->log) {
        uint64_t page = (addr - slot->addr) / PAGE;

        page_bitmap_set(slot->log, page, page + 1);
    }
    return true;
}

/* --- calls --- */

static int fail(int error)
{
    errno = error;
    return -1;
}

static KVMFakeSlot *slot_by_number(KVMFake *fake, uint32_t number)
{
    unsigned as = number >> 16, id = number & 0xffff;

    return as < KVM_FAKE_SPACES && id < KVM_FAKE_SLOTS ? &fake->slots[as][id] : NULL;
}

static void set_log(KVMFake *fake, KVMFakeSlot *slot)
{
    bool wanted = slot->bytes && slot->flags & KVM_MEM_LOG_DIRTY_PAGES;

    if (wanted == (slot->log != NULL)) {
        return;
    }
    g_clear_pointer(&slot->log, g_free);
    if (wanted) {
        slot->log = page_bitmap_try_new(pages_of(slot));
        g_assert_nonnull(slot->log);
        if (fake->protect & KVM_DIRTY_LOG_INITIALLY_SET) {
            page_bitmap_set(slot->log, 0, pages_of(slot));
        }
    }
}

static bool overlaps(const KVMFake *fake, const KVMFakeSlot *self, unsigned as,
                     const struct kvm_userspace_memory_region *region)
{
    for (unsigned i = 0; i < KVM_FAKE_SLOTS; i++) {
        const KVMFakeSlot *slot = &fake->slots[as][i];

        if (slot != self && slot->bytes && region->guest_phys_addr < slot->addr + slot->bytes &&
            slot->addr < region->guest_phys_addr + region->memory_size) {
            return true;
        }
    }
    return false;
}

static int set_region(KVMFake *fake, const struct kvm_userspace_memory_region *region)
{
    KVMFakeSlot *slot = slot_by_number(fake, region->slot);

    fake->sets++;
    if (!slot || region->guest_phys_addr % PAGE || region->memory_size % PAGE ||
        region->userspace_addr % PAGE) {
        return fail(EINVAL);
    }
    if (!region->memory_size) {
        if (!slot->bytes) {
            return fail(EINVAL);
        }
        slot->bytes = 0;
        set_log(fake, slot);
        return 0;
    }
    if (slot->bytes &&
        (slot->bytes != region->memory_size || (uintptr_t)slot->host != region->userspace_addr ||
         (slot->flags ^ region->flags) & KVM_MEM_READONLY)) {
        return fail(EINVAL);
    }
    if (overlaps(fake, slot, region->slot >> 16, region)) {
        return fail(EEXIST);
    }
    slot->flags = region->flags;
    slot->addr = region->guest_phys_addr;
    slot->bytes = region->memory_size;
    slot->host = (uint8_t *)(uintptr_t)region->userspace_addr;
    set_log(fake, slot);
    return 0;
}

static int get_log(KVMFake *fake, const struct kvm_dirty_log *log)
{
    KVMFakeSlot *slot = slot_by_number(fake, log->slot);

    fake->gets++;
    if (!slot || !slot->log) {
        return fail(ENOENT);
    }
    memcpy(log->dirty_bitmap, slot->log, page_bitmap_words(pages_of(slot)) * sizeof(uint64_t));
    if (!fake->protect) {
        page_bitmap_clear(slot->log, 0, pages_of(slot));
    }
    return 0;
}

static int clear_log(KVMFake *fake, const struct kvm_clear_dirty_log *log)
{
    KVMFakeSlot *slot = slot_by_number(fake, log->slot);
    const uint64_t *map = log->dirty_bitmap;
    uint64_t end = log->first_page + log->num_pages;

    fake->clears++;
    if (!fake->protect || !slot || !slot->log || log->first_page % 64 || end > pages_of(slot) ||
        (log->num_pages % 64 && end != pages_of(slot))) {
        return fail(EINVAL);
    }
    for (uint64_t page = log->first_page; page < end; page++) {
        if (page_bitmap_test(map, page - log->first_page)) {
            page_bitmap_clear(slot->log, page, page + 1);
        }
    }
    return 0;
}

static int check_extension(const KVMFake *fake, uintptr_t capability)
{
    switch (capability) {
    case KVM_CAP_NR_MEMSLOTS:
        return KVM_FAKE_SLOTS;
    case KVM_CAP_MULTI_ADDRESS_SPACE:
        return KVM_FAKE_SPACES;
    case KVM_CAP_READONLY_MEM:
        return !fake->no_readonly;
    case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
        return (int)fake->log_protect;
    default:
        return 0;
    }
}

static int enable_cap(KVMFake *fake, const struct kvm_enable_cap *cap)
{
    if (cap->cap != KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 || cap->args[0] & ~fake->log_protect) {
        return fail(EINVAL);
    }
    fake->protect = cap->args[0];
    return 0;
}

/* Copies what the request moves; the size is in its number. */
static int move(unsigned long request, uintptr_t arg, void *state, bool set)
{
    size_t bytes = _IOC_SIZE(request);

    memcpy(set ? state : (void *)arg, set ? (void *)arg : state, bytes);
    return 0;
}

static int run_vcpu(KVMFake *fake)
{
    int error = __atomic_load_n(&fake->run->immediate_exit, __ATOMIC_SEQ_CST)
                    ? EINTR
                    : fake->on_run(fake, fake->run);

    return error ? fail(error) : 0;
}

static int vcpu_ioctl(KVMFake *fake, unsigned long request, uintptr_t arg)
{
    switch (request) {
    case KVM_GET_REGS:
        return move(request, arg, &fake->regs, false);
    case KVM_SET_REGS:
        return move(request, arg, &fake->regs, true);
    case KVM_GET_SREGS:
        return move(request, arg, &fake->sregs, false);
    case KVM_SET_SREGS:
        return move(request, arg, &fake->sregs, true);
    case KVM_GET_DEBUGREGS:
        return move(request, arg, &fake->debugregs, false);
    case KVM_SET_DEBUGREGS:
        return move(request, arg, &fake->debugregs, true);
    case KVM_GET_MP_STATE:
        return move(request, arg, &fake->mp_state, false);
    case KVM_SET_MP_STATE:
        return move(request, arg, &fake->mp_state, true);
    default:
        return fail(ENOTTY);
    }
}

static int vm_ioctl(KVMFake *fake, unsigned long request, uintptr_t arg)
{
    switch (request) {
    case KVM_CREATE_VCPU:
        fake->open_fds++;
        return VCPU_FD;
    case KVM_ENABLE_CAP:
        return enable_cap(fake, (const struct kvm_enable_cap *)arg);
    case KVM_SET_USER_MEMORY_REGION:
        return set_region(fake, (const struct kvm_userspace_memory_region *)arg);
    case KVM_GET_DIRTY_LOG:
        return get_log(fake, (const struct kvm_dirty_log *)arg);
    case KVM_CLEAR_DIRTY_LOG:
        return clear_log(fake, (const struct kvm_clear_dirty_log *)arg);
    default:
        return fail(ENOTTY);
    }
}

static int dev_ioctl(KVMFake *fake, unsigned long request, uintptr_t arg)
{
    switch (request) {
    case KVM_GET_API_VERSION:
        return fake->version;
    case KVM_CREATE_VM:
        fake->open_fds++;
        return VM_FD;
    case KVM_GET_VCPU_MMAP_SIZE:
        return (int)KVM_FAKE_RUN_BYTES;
    case KVM_CHECK_EXTENSION:
        return check_extension(fake, arg);
    default:
        return fail(ENOTTY);
    }
}

static int fake_ioctl(void *opaque, int fd, unsigned long request, uintptr_t arg)
{
    KVMFake *fake = opaque;

    if (request == KVM_RUN) {
        return run_vcpu(fake);
    }
    fake->interrupted = fake->interrupts && !fake->interrupted;
    if (fake->interrupted) {
        return fail(EINTR);
    }
    if (fake->fail_error && request == fake->fail_request) {
        return fail(fake->fail_error);
    }
    switch (fd) {
    case VCPU_FD:
        return vcpu_ioctl(fake, request, arg);
    case VM_FD:
        return vm_ioctl(fake, request, arg);
    default:
        return dev_ioctl(fake, request, arg);
    }
}

static int fake_open(void *opaque, const char *path)
{
    KVMFake *fake = opaque;

    if (fake->open_error) {
        return fail(fake->open_error);
    }
    fake->open_fds++;
    return DEV_FD;
}

static int fake_close(void *opaque, int fd)
{
    KVMFake *fake = opaque;

    g_assert_cmpuint(fake->open_fds, >, 0);
    fake->open_fds--;
    return 0;
}

static void *fake_mmap(void *opaque, int fd, size_t bytes)
{
    KVMFake *fake = opaque;

    g_assert_true(fd == VCPU_FD && bytes == KVM_FAKE_RUN_BYTES && !fake->run);
    if (fake->no_run_memory) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    fake->run = g_malloc0(bytes);
    return fake->run;
}

static int fake_munmap(void *opaque, void *map, size_t bytes)
{
    KVMFake *fake = opaque;

    g_assert_true(map == fake->run && bytes == KVM_FAKE_RUN_BYTES);
    g_clear_pointer(&fake->run, g_free);
    return 0;
}

const KVMHostOps kvm_fake_ops = {
    .open = fake_open,
    .ioctl = fake_ioctl,
    .close = fake_close,
    .mmap = fake_mmap,
    .munmap = fake_munmap,
};
