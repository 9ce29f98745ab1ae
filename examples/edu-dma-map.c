// SPDX-License-Identifier: Apache-2.0
/*
 * edu-dma-map: maps memory of its own for QEMU's educational device (docs/specs/edu in QEMU's sources), lets
 * the device's DMA engine read and write it, and unmaps it. For a profile with a window "registers" and a
 * "dma_map".
 *
 *     edu-dma-map [--file] [--window] [--foreign IOVA] [--leave]
 *
 * --file: has the device read a memfd as well, which is mapped by its fd and cannot be mapped to be written.
 * --window: maps the window's own dma-buf as well, where it has one.
 * --foreign: tries to map and to unmap at IOVA, too, which is to be refused. --leave: leaves what it mapped.
 * Status 0 if all was as it should be, else 1 with a line on stderr.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "edu.h"

enum { PAGE = 4096 };

/* One page of it goes into the device and comes back in the other. */
static void copy_through_device(volatile char* registers, unsigned char* memory, uint64_t iova) {
    for (unsigned i = 0; i < EDU_TRANSFER; i++) {
        memory[i] = (unsigned char)(i * 5 + i / 256);
        memory[PAGE + i] = (unsigned char)~memory[i];
    }
    edu_transfer(registers, iova, EDU_BUFFER, 0);
    edu_transfer(registers, EDU_BUFFER, iova + PAGE, EDU_DMA_FROM_DEVICE);
    if (memcmp(memory, memory + PAGE, EDU_TRANSFER) != 0) die("DMA brought back other data than it took");
}

static void expect_refused(int result, const char* what, uint64_t iova) {
    if (result == 0) die("%s at 0x%llx was allowed", what, (unsigned long long)iova);
    if (errno != EPERM) die("%s at 0x%llx: %s", what, (unsigned long long)iova, strerror(errno));
}

/* A memfd that is sealed, as a block with the arguments of a ruled ioctl is: the device reads it, and does
 * not get to write it. */
static void read_file(const struct postern_grant* grant, volatile char* registers, unsigned char* memory,
                      uint64_t iova) {
    const int memfd = memfd_create("edu-dma-map", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    memset(memory, 0x5a, PAGE);
    memset(memory + PAGE, 0, PAGE);
    if (memfd < 0 || write(memfd, memory, PAGE) != PAGE ||
        fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK) != 0)
        die("no memfd: %s", strerror(errno));
    const uint64_t at = iova + (uint64_t)2 * PAGE;
    expect_refused(postern_dma_map_file(grant, memfd, 0, PAGE, at, PROT_READ | PROT_WRITE),
                   "mapping a file to write", at);
    expect_refused(postern_dma_map_file(grant, memfd, 0, PAGE, at, PROT_WRITE), "mapping a file to write",
                   at);
    if (postern_dma_map_file(grant, memfd, 0, PAGE, at, PROT_READ) != 0)
        die("mapping a file at 0x%llx: %s", (unsigned long long)at, strerror(errno));
    edu_transfer(registers, at, EDU_BUFFER, 0);
    edu_transfer(registers, EDU_BUFFER, iova + PAGE, EDU_DMA_FROM_DEVICE);
    if (memcmp(memory, memory + PAGE, EDU_TRANSFER) != 0) die("DMA brought back other data than the file's");
    /* What only the IOMMU keeps the device from: its write goes nowhere. */
    memset(memory, 0x11, PAGE);
    edu_transfer(registers, iova, EDU_BUFFER, 0);
    edu_transfer(registers, EDU_BUFFER, at, EDU_DMA_FROM_DEVICE);
    unsigned char now = 0;
    if (pread(memfd, &now, 1, 0) != 1 || now != 0x5a) die("the device has written into the sealed file");
    if (postern_dma_unmap(grant, at, PAGE) != 0) die("unmapping of the file: %s", strerror(errno));
    close(memfd);
    printf("edu-dma-map: a file is read by the device, and not written\n");
}

int main(int argc, char** argv) {
    const int access = PROT_READ | PROT_WRITE;
    char error[512];
    int leave = 0;
    int file = 0;
    int dmabuf = 0;
    const char* foreign = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--leave") == 0) {
            leave = 1;
        } else if (strcmp(argv[i], "--window") == 0) {
            dmabuf = 1;
        } else if (strcmp(argv[i], "--file") == 0) {
            file = 1;
        } else if (strcmp(argv[i], "--foreign") == 0 && i + 1 < argc) {
            foreign = argv[++i];
        } else {
            die("usage: edu-dma-map [--file] [--window] [--foreign IOVA] [--leave]");
        }
    }
    (void)setvbuf(stderr, NULL, _IOLBF, 0); /* a message is one write: others share the terminal */
    struct postern_grant* grant = postern_open(error, sizeof error);
    if (!grant) die("%s", error);
    const struct postern_window* window = postern_get_window(grant, "registers");
    const struct postern_dma_map* own = &grant->dma_map;
    if (!window || own->fd < 0) die("the profile has no window \"registers\" or no \"dma_map\"");
    volatile char* registers = postern_map_window(window, PROT_READ | PROT_WRITE);
    if (!registers) die("mapping of window \"registers\": %s", strerror(errno));

    unsigned char* memory = mmap(NULL, 2 * PAGE, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) die("no memory: %s", strerror(errno));
    if (postern_dma_map_memory(grant, memory, 2 * PAGE, own->iova, access) != 0)
        die("mapping at 0x%llx: %s", (unsigned long long)own->iova, strerror(errno));
    copy_through_device(registers, memory, own->iova);
    printf("edu-dma-map: %d bytes of its own at 0x%llx into the device and back\n", EDU_TRANSFER,
           (unsigned long long)own->iova);

    if (file) read_file(grant, registers, memory, own->iova);
    const uint64_t of_window = own->iova + (uint64_t)4 * PAGE;
    if (dmabuf) {
        if (postern_dma_map_file(grant, postern_fd(grant, "window.registers"), 0, PAGE, of_window,
                                 PROT_READ) != 0)
            die("mapping the window's dma-buf: %s", strerror(errno));
        printf("edu-dma-map: the window's dma-buf at 0x%llx\n", (unsigned long long)of_window);
    }
    if (foreign) {
        const uint64_t iova = strtoull(foreign, NULL, 0);
        expect_refused(postern_dma_map_memory(grant, memory, PAGE, iova, access), "mapping", iova);
        expect_refused(postern_dma_unmap(grant, iova, PAGE), "unmapping", iova);
        /* From its own part into what comes behind it. */
        expect_refused(postern_dma_map_memory(grant, memory, 2 * PAGE, own->iova + own->size - PAGE, access),
                       "mapping across the end", own->iova + own->size);
        expect_refused(postern_dma_unmap(grant, 0, UINT64_MAX), "unmapping of everything", 0);
        printf("edu-dma-map: 0x%llx is refused\n", (unsigned long long)iova);
    }
    if (!leave && (postern_dma_unmap(grant, own->iova, 2 * PAGE) != 0 ||
                   (dmabuf && postern_dma_unmap(grant, of_window, PAGE) != 0)))
        die("unmapping at 0x%llx: %s", (unsigned long long)own->iova, strerror(errno));
    postern_close(grant);
    return 0;
}
