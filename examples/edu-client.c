// SPDX-License-Identifier: Apache-2.0
/*
 * edu-client: uses each part of QEMU's educational device (docs/specs/edu in QEMU's sources) through profile
 * edu: its registers, its DMA engine and its interrupt. A short example of a client; no setup program is
 * needed. Status 0 if the device did all that it should, else 1 with a line on stderr.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edu.h"

enum edu_register {
    EDU_ID = 0x00,
    EDU_LIVENESS = 0x04,
    EDU_FACTORIAL = 0x08,
    EDU_STATUS = 0x20,
    EDU_IRQ_STATUS = 0x24,
    EDU_IRQ_RAISE = 0x60,
    EDU_IRQ_ACKNOWLEDGE = 0x64
};

enum { STATUS_COMPUTING = 0x01 };

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
    for (int milliseconds = 0; postern_mmio_read32(registers + EDU_STATUS) & STATUS_COMPUTING;
         milliseconds++) {
        const struct timespec pause = {.tv_nsec = 1000000};
        if (milliseconds == EDU_PATIENCE_SECONDS * 1000)
            die("the factorial takes more than %d seconds", EDU_PATIENCE_SECONDS);
        (void)nanosleep(&pause, NULL);
    }
    const uint32_t result = postern_mmio_read32(registers + EDU_FACTORIAL);
    if (result != 3628800) die("10! is %u, expected 3628800", result);
    printf("edu-client: factorial: 10! = %u\n", result);
}

/* Into the device's buffer and back to another place. */
static void copy_through_device(volatile char* registers, const struct postern_dma* dma) {
    unsigned char* memory = postern_map_dma(dma);
    if (!memory) die("mapping of dma memory \"%s\": %s", dma->name, strerror(errno));
    if (dma->size < 2 * EDU_TRANSFER) die("dma memory \"%s\" is too small", dma->name);
    for (unsigned i = 0; i < EDU_TRANSFER; i++) {
        memory[i] = (unsigned char)(i * 7 + i / 256);
        memory[EDU_TRANSFER + i] = (unsigned char)~memory[i];
    }
    edu_transfer(registers, dma->iova, EDU_BUFFER, 0);
    edu_transfer(registers, EDU_BUFFER, dma->iova + EDU_TRANSFER, EDU_DMA_FROM_DEVICE);
    if (memcmp(memory, memory + EDU_TRANSFER, EDU_TRANSFER) != 0)
        die("DMA brought back other data than it took");
    (void)postern_unmap(memory, dma->size);
    printf("edu-client: dma: %d bytes from 0x%llx into the device and back\n", EDU_TRANSFER,
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
