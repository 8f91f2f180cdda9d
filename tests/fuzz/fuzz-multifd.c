/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile bytes on an extra channel, after its handshake. The first byte chooses the method of
 * compression. Whatever the bytes are, memory behind the blocks' ends stays as it was, and the end
 * of the stream ends the thread.
 */
#include <glib.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/multifd-pair.h"

/* Less than a socket holds: no thread reads while the channel waits at a barrier. */
#define INPUT_MAX   (96 * 1024)
#define BLOCK_BYTES (64 * 1024)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    multifd_pair_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const methods[] = {"none", "zlib", "zstd"};
    MultiFDPair *pair;
    g_autoptr(GError) err = NULL;

    if (size < 1 || size > INPUT_MAX) {
        return -1;
    }
    pair = multifd_pair_new(&(MultiFDPairOptions){methods[data[0] % G_N_ELEMENTS(methods)], 1,
                                                  BLOCK_BYTES, .raw_source = true});
    g_assert_cmpint(send(pair->raw_fd[0], data + 1, size - 1, MSG_NOSIGNAL | MSG_DONTWAIT), <=,
                    (ssize_t)size);
    g_assert_cmpint(shutdown(pair->raw_fd[0], SHUT_WR), ==, 0);
    while (multifd_recv_sync(&pair->mis, &err) == 0) {
    }
    g_assert_nonnull(err);
    multifd_pair_free(pair);
    return 0;
}
