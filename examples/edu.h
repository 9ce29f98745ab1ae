/* SPDX-License-Identifier: Apache-2.0 */
/* The DMA engine of QEMU's educational device (docs/specs/edu in QEMU's sources), for the clients beside
 * this. */
#ifndef POSTERN_EXAMPLES_EDU_H
#define POSTERN_EXAMPLES_EDU_H

#include <errno.h> /* program_invocation_short_name */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "postern.h"

enum {
    EDU_DMA_SOURCE = 0x80,
    EDU_DMA_DESTINATION = 0x88,
    EDU_DMA_COUNT = 0x90,
    EDU_DMA_COMMAND = 0x98,
    EDU_DMA_START = 0x01,
    EDU_DMA_FROM_DEVICE = 0x02,
    EDU_BUFFER = 0x40000, /* the device's own 4 KiB, as its DMA engine addresses them */
    EDU_TRANSFER = 2048,  /* bytes; QEMU 7.2 aborts if a transfer touches the buffer's last byte */
    EDU_PATIENCE_SECONDS = 5
};

__attribute__((format(printf, 1, 2), noreturn)) static inline void die(const char* format, ...) {
    va_list list;
    fprintf(stderr, "%s: ", program_invocation_short_name);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

/* Moves EDU_TRANSFER bytes between the device's buffer and an IOVA: `direction` is 0 or EDU_DMA_FROM_DEVICE.
 */
static inline void edu_transfer(volatile char* registers, uint64_t source, uint64_t destination,
                                uint64_t direction) {
    const struct timespec pause = {.tv_nsec = 1000000};
    postern_mmio_write64(registers + EDU_DMA_SOURCE, source);
    postern_mmio_write64(registers + EDU_DMA_DESTINATION, destination);
    postern_mmio_write64(registers + EDU_DMA_COUNT, EDU_TRANSFER);
    postern_mmio_write64(registers + EDU_DMA_COMMAND, EDU_DMA_START | direction);
    for (int milliseconds = 0; milliseconds < EDU_PATIENCE_SECONDS * 1000; milliseconds++) {
        if ((postern_mmio_read64(registers + EDU_DMA_COMMAND) & EDU_DMA_START) == 0) return;
        (void)nanosleep(&pause, NULL);
    }
    die("a DMA transfer takes more than %d seconds", EDU_PATIENCE_SECONDS);
}

#endif
