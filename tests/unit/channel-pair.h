/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two channels connected to each other, of every kind, for tests. */
#ifndef FERRY_TESTS_CHANNEL_PAIR_H
#define FERRY_TESTS_CHANNEL_PAIR_H

#include "io/channel.h"

typedef struct ChannelKind ChannelKind;

typedef struct ChannelPair {
    QIOChannel *end[2];
    bool two_way; /* else end[0] writes and end[1] reads */
} ChannelPair;

struct ChannelKind {
    const char *name;
    void (*make)(ChannelPair *pair);
};

extern const ChannelKind channel_kinds[]; /* the last has no name */

/* Once, after qemu_init_main_loop(); the other before the end. */
void channel_pairs_init(void);
void channel_pairs_cleanup(void);

ChannelPair channel_pair_new(const ChannelKind *kind);
/* One end goes away in good order. */
void channel_pair_leave(ChannelPair *pair, unsigned end);
void channel_pair_clear(ChannelPair *pair);

#endif
