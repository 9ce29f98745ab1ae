// SPDX-License-Identifier: Apache-2.0
/*
 * A clock that never enters the kernel. clock_gettime() is only promised to stay in user space while the
 * kernel's clocksource is the cycle counter; on other machines, and in many virtual ones, it is a system
 * call.
 */
#ifndef EXAMPLES_CYCLES_H
#define EXAMPLES_CYCLES_H

#include <stdint.h>
#include <time.h>
#if defined(__x86_64__) || defined(__i386__)
#include <x86intrin.h>
#endif

static inline double wall_seconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline uint64_t cycles(void) {
#if defined(__x86_64__) || defined(__i386__)
    return __rdtsc();
#elif defined(__aarch64__)
    uint64_t value;
    __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(value));
    return value;
#else
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
#endif
}

/* Lets the other hardware thread run while this one polls. */
static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

/* Both clocks, read close together: a pause between the two would falsify the rate. */
struct moment {
    double seconds;
    uint64_t cycles;
};

static inline struct moment moment_now(void) {
    struct moment best = {0, 0};
    double nearest = 1;
    /* A slow clock is what it is, so after some tries the nearest will do. */
    for (int i = 0; i < 20 && nearest > 1e-5; ++i) {
        const double before = wall_seconds();
        const uint64_t count = cycles();
        const double apart = wall_seconds() - before;
        if (i == 0 || apart < nearest) {
            nearest = apart;
            best.seconds = before + apart / 2;
            best.cycles = count;
        }
    }
    return best;
}

/* Cycles a second, measured for 20 ms: right to a few parts in a thousand, enough for time limits. */
static inline double measure_cycles_per_second(void) {
    const struct moment begin = moment_now();
    while (wall_seconds() - begin.seconds < 0.02) relax();
    const struct moment end = moment_now();
    return (double)(end.cycles - begin.cycles) / (end.seconds - begin.seconds);
}

#endif
