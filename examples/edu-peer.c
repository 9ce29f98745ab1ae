// SPDX-License-Identifier: Apache-2.0
/*
 * edu-peer: has QEMU's educational device write into another device's window, which that one's profile maps
 * for it
 * ("peers"). The bytes go from this client's DMA memory into the device and from there to the other one: no
 * CPU copies them. For a profile with a window "registers" and DMA memory "buffer", such as edu.
 *
 *     edu-peer IOVA BYTE        fills EDU_TRANSFER bytes at IOVA with BYTE
 *     edu-peer --read IOVA      prints the first byte there, as the device reads it; 0xee if it reads nothing
 *
 * Status 0, or 1 with a line on stderr. That the bytes arrive is for whoever has the window to see: a device
 * is not told when the IOMMU refuses what it does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edu.h"

int main(int argc, char** argv) {
    char error[512];
    if (argc != 3) die("usage: edu-peer IOVA BYTE | --read IOVA");
    const int reads = strcmp(argv[1], "--read") == 0;
    const uint64_t iova = strtoull(argv[reads ? 2 : 1], NULL, 0);
    struct postern_grant* grant = postern_open(error, sizeof error);
    if (!grant) die("%s", error);
    const struct postern_window* window = postern_get_window(grant, "registers");
    const struct postern_dma* dma = postern_get_dma(grant, "buffer");
    if (!window || !dma || dma->size < EDU_TRANSFER)
        die("the profile has no window \"registers\" or no DMA memory \"buffer\"");
    volatile char* registers = postern_map_window(window, PROT_READ | PROT_WRITE);
    unsigned char* memory = postern_map_dma(dma);
    if (!registers || !memory) die("cannot map: %s", strerror(errno));
    if (reads) {
        /* What is seen if nothing comes: the device is not told of that. */
        memset(memory, 0xee, EDU_TRANSFER);
        edu_transfer(registers, dma->iova, EDU_BUFFER, 0);
        edu_transfer(registers, iova, EDU_BUFFER, 0);
        edu_transfer(registers, EDU_BUFFER, dma->iova, EDU_DMA_FROM_DEVICE);
        printf("edu-peer: 0x%02x at 0x%llx\n", memory[0], (unsigned long long)iova);
    } else {
        memset(memory, (int)strtoul(argv[2], NULL, 0), EDU_TRANSFER);
        edu_transfer(registers, dma->iova, EDU_BUFFER, 0);
        edu_transfer(registers, EDU_BUFFER, iova, EDU_DMA_FROM_DEVICE);
        printf("edu-peer: %d bytes to 0x%llx\n", EDU_TRANSFER, (unsigned long long)iova);
    }
    postern_close(grant);
    return 0;
}
