/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Both sides of multifd in one process, over socket pairs. Two blocks a side, "dst0" and "dst1"; the
 * source's have the same names but are in no list.
 */
#ifndef FERRY_TESTS_UNIT_MULTIFD_PAIR_H
#define FERRY_TESTS_UNIT_MULTIFD_PAIR_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include "migration/multifd-int.h"
#include "migration/multifd.h"

#define MULTIFD_PAIR_CHANNELS 8

typedef struct MultiFDPairOptions {
    const char *compression;
    unsigned channels;
    uint64_t bytes;    /* of each block */
    bool raw_source;   /* the source is raw_fd; channels have introduced themselves */
    bool only_first;   /* with raw_source: only channel 0 has */
    bool nobody_reads; /* there is no destination */
    bool no_main;      /* with raw_source: the main channel has not come yet */
    bool no_list;      /* the destination does not know yet where pages go */
} MultiFDPairOptions;

typedef struct MultiFDPair {
    MigrationState s;
    MigrationIncomingState mis;
    unsigned channels, connected;
    uint64_t bytes;
    int raw_fd[MULTIFD_PAIR_CHANNELS]; /* the source's ends that no test has taken; -1: taken */
    QIOChannel *dst_ioc[MULTIFD_PAIR_CHANNELS];
    RAMBlock *src[2], *dst[2];
    RAMSaveBlock sb[2];
    RAMRecv *recv;
    uint8_t *claimed[2]; /* a byte a page */
} MultiFDPair;

void multifd_pair_init(void); /* once a process */
MultiFDPair *multifd_pair_new(const MultiFDPairOptions *options);
void multifd_pair_free(MultiFDPair *pair);

/*
 * Another channel comes, with these first bytes; if it is the main one, pair->mis.from_src reads from
 * it, which dst_ioc[] has as well. False with an error.
 */
bool multifd_pair_offer(MultiFDPair *pair, const uint8_t handshake[MULTIFD_HANDSHAKE_BYTES],
                        GError **errp);
/* Marks pages as sent in this round; false: one of them was. */
bool multifd_pair_claim(MultiFDPair *pair, unsigned which, uint64_t first, uint64_t n);
/* Both sides come to a barrier. */
void multifd_pair_barrier(MultiFDPair *pair);
void multifd_pair_compare(MultiFDPair *pair);
/* Waiting at a barrier fails, with an error that matches the pattern. */
void multifd_pair_expect_recv_error(MultiFDPair *pair, const char *pattern);

#endif
