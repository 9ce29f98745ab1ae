// SPDX-License-Identifier: Apache-2.0
/*
 * edu-client: uses each part of QEMU's educational device (docs/specs/edu in QEMU's sources) through profile
 * edu: its registers, its DMA engine and its interrupt. A short example of a client; no setup program is
 * needed. Status 0 if the device did all that it should, else 1 with a line on stderr.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "postern.h"

enum edu_register {
    EDU_ID = 0x00,
    EDU_LIVENESS = 0x04,
    EDU_FACTORIAL = 0x08,
    EDU_STATUS = 0x20,
    EDU_IRQ_STATUS = 0x24,
    EDU_IRQ_RAISE = 0x60,
    EDU_IRQ_ACKNOWLEDGE = 0x64,
    EDU_DMA_SOURCE = 0x80,
    EDU_DMA_DESTINATION = 0x88,
    EDU_DMA_COUNT = 0x90,
    EDU_DMA_COMMAND = 0x98
};

enum {
    STATUS_COMPUTING = 0x01,
    DMA_START = 0x01,
    DMA_FROM_DEVICE = 0x02,
    DEVICE_BUFFER = 0x40000, /* the device's own 4 KiB, as its DMA engine addresses them */
    TRANSFER = 2048,         /* bytes; QEMU 7.2 aborts if a transfer touches the buffer's last byte */
    PATIENCE_SECONDS = 5
};

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char* format, ...) {
    va_list list;
    fputs("edu-client: ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

/* Waits until the bits of a register are clear. */
static void wait_until_clear(volatile char* registers, enum edu_register offset, uint64_t bits,
                             const char* what) {
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int milliseconds = 0; milliseconds < PATIENCE_SECONDS * 1000; milliseconds++) {
        const uint64_t value = offset < EDU_DMA_SOURCE ? postern_mmio_read32(registers + offset)
                                                       : postern_mmio_read64(registers + offset);
        if ((value & bits) == 0) return;
        (void)nanosleep(&pause, NULL);
    }
    die("%s takes more than %d seconds", what, PATIENCE_SECONDS);
}

static void check_registers(volatile char* registers) {
    const uint32_t id = postern_mmio_read32(registers + EDU_ID);
    if ((id & 0xff) != 0xed) die("register 0x00 is 0x%08x: not an edu device", id);
    postern_mmio_write32(registers + EDU_LIVENESS, 0x12345678);
    const uint32_t alive = postern_mmio_read32(registers + EDU_LIVENESS);
    if (alive != ~0x12345678U) die("liveness register is 0x%08x, expected 0x%08x", alive, ~0x12345678U);
    printf("edu-client: registers: version %u.%u, alive\n", id >> 24, id >> 16 & 0xff);
}

static void compute_factorial(volatile char* registers) {
    postern_mmio_write32(registers + EDU_FACTORIAL, 10);
    wait_until_clear(registers, EDU_STATUS, STATUS_COMPUTING, "the factorial");
    const uint32_t result = postern_mmio_read32(registers + EDU_FACTORIAL);
    if (result != 3628800) die("10! is %u, expected 3628800", result);
    printf("edu-client: factorial: 10! = %u\n", result);
}

static void transfer(volatile char* registers, uint64_t source, uint64_t destination, uint64_t command) {
    postern_mmio_write64(registers + EDU_DMA_SOURCE, source);
    postern_mmio_write64(registers + EDU_DMA_DESTINATION, destination);
    postern_mmio_write64(registers + EDU_DMA_COUNT, TRANSFER);
    postern_mmio_write64(registers + EDU_DMA_COMMAND, DMA_START | command);
    wait_until_clear(registers, EDU_DMA_COMMAND, DMA_START, "a DMA transfer");
}

/* Into the device's buffer and back to another place. */
static void copy_through_device(volatile char* registers, const struct postern_dma* dma) {
    unsigned char* memory = postern_map_dma(dma);
    if (!memory) die("mapping of dma memory \"%s\": %s", dma->name, strerror(errno));
    if (dma->size < 2 * TRANSFER) die("dma memory \"%s\" is too small", dma->name);
    for (unsigned i = 0; i < TRANSFER; i++) {
        memory[i] = (unsigned char)(i * 7 + i / 256);
        memory[TRANSFER + i] = (unsigned char)~memory[i];
    }
    transfer(registers, dma->iova, DEVICE_BUFFER, 0);
    transfer(registers, DEVICE_BUFFER, dma->iova + TRANSFER, DMA_FROM_DEVICE);
    if (memcmp(memory, memory + TRANSFER, TRANSFER) != 0) die("DMA brought back other data than it took");
    (void)postern_unmap(memory, dma->size);
    printf("edu-client: dma: %d bytes from 0x%llx into the device and back\n", TRANSFER,
           (unsigned long long)dma->iova);
}

static void take_interrupt(volatile char* registers, const struct postern_irq* irq) {
    uint64_t count = 0;
    postern_mmio_write32(registers + EDU_IRQ_RAISE, 0x2a);
    if (postern_irq_wait(irq, &count) < 0) die("wait for irq \"%s\": %s", irq->name, strerror(errno));
    const uint32_t status = postern_mmio_read32(registers + EDU_IRQ_STATUS);
    if ((status & 0x2a) != 0x2a) die("interrupt status is 0x%x, expected 0x2a", status);
    postern_mmio_write32(registers + EDU_IRQ_ACKNOWLEDGE, status);
    printf("edu-client: irq: raised, %llu received\n", (unsigned long long)count);
}

int main(void) {
    char error[512];
    (void)setvbuf(stderr, NULL, _IOLBF, 0); /* a message is one write: others share the terminal */
    struct postern_grant* grant = postern_open(error, sizeof error);
    if (!grant) die("%s", error);
    const struct postern_window* window = postern_get_window(grant, "registers");
    const struct postern_dma* dma = postern_get_dma(grant, "buffer");
    const struct postern_irq* irq = postern_get_irq(grant, "done");
    if (!window || !dma || !irq) die("the grant is not one of profile edu; use postern run --profile edu");
    volatile char* registers = postern_map_window(window, PROT_READ | PROT_WRITE);
    if (!registers) die("mapping of window \"registers\": %s", strerror(errno));

    check_registers(registers);
    compute_factorial(registers);
    copy_through_device(registers, dma);
    take_interrupt(registers, irq);
    postern_close(grant);
    return 0;
}
