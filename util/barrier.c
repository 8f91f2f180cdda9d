/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The heavy half of the store-load barrier. */
#include "util/barrier.h"

#include <glib.h>
#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Where the kernel refuses membarrier(): changing a mapping interrupts all processors that use it.
 */
static void barrier_by_unmapping(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    volatile char *page =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_assert(page != MAP_FAILED);
    page[0] = 1;
    mprotect((void *)page, size, PROT_READ);
    munmap((void *)page, size);
}

void barrier_heavy(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) < 0 &&
        (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) < 0 ||
         syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) < 0)) {
        barrier_by_unmapping();
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
