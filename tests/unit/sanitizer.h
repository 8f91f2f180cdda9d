/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SANITIZER is defined where the test runs under a sanitizer, which is slow and needs memory of its own. */
#ifndef FERRY_TESTS_UNIT_SANITIZER_H
#define FERRY_TESTS_UNIT_SANITIZER_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZER 1
#endif
#endif

#endif
