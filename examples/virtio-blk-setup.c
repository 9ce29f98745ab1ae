// SPDX-License-Identifier: Apache-2.0
/*
 * virtio-blk-setup: the setup and teardown program of profile virtio-blk-queue. Brings a modern virtio-blk
 * PCI device up (virtio 1.2, 3.1.1 and 4.1) with queue s in the DMA memory "ring" of slice s and its
 * interrupt, if the profile has one, on the MSI-X vector of irq "vq". A client then needs the memory and the
 * doorbell and nothing else.
 *
 *     virtio-blk-setup                  setup.device: resets the device and sets up the queue of every slice
 *     virtio-blk-setup --reset-slice    teardown.slice: takes the queue of the manifest's slice from its
 *                                       client while the others go on (virtio 1.2, 2.6.1); then nothing of
 *                                       the device refers to the slice's memory
 *     virtio-blk-setup --enable-slice   setup.slice: sets that queue up again; does nothing if it is
 *
 * postern runs it with the unguarded device fd, after it has switched on memory space and bus mastering and
 * wired the eventfds. Prints nothing unless it fails; status 0, or 1 with one line on stderr.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "postern.h"
#include "virtio_blk_layout.h"

#define WINDOW_NAME "doorbell"
#define MEMORY_NAME "ring"
#define IRQ_NAME "vq"

/* How long the requests of a client that is gone may take to end. */
enum { DRAIN_MICROSECONDS = 200000, DRAIN_PAUSE_MICROSECONDS = 100 };

/* How long the device may take to do what it is told. */
enum { RESET_MILLISECONDS = 2000 };

enum mode { SET_UP_DEVICE, RESET_SLICE, ENABLE_SLICE };

/* A structure of the device: a range of one of its BARs. */
struct range {
    int present;
    uint32_t region;
    uint64_t offset;
    uint64_t length;
};

struct device {
    int fd;
    uint64_t
        region_offset[VFIO_PCI_NUM_REGIONS]; /* in fd; regions are read and written with pread and pwrite */
    uint64_t region_size[VFIO_PCI_NUM_REGIONS];
    struct range common, notify, config;
    uint32_t notify_multiplier;
};

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char* format, ...) {
    va_list list;
    fputs("virtio-blk-setup: ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

/* One little-endian access of 1, 2 or 4 bytes: VFIO does an aligned one with a single bus access. */
static uint32_t region_read(const struct device* device, uint32_t region, uint64_t offset, size_t size) {
    uint32_t value = 0;
    if (pread(device->fd, &value, size, (off_t)(device->region_offset[region] + offset)) != (ssize_t)size) {
        die("read of region %u at 0x%llx: %s", region, (unsigned long long)offset, strerror(errno));
    }
    return le32toh(value);
}

static void region_write(const struct device* device, uint32_t region, uint64_t offset, size_t size,
                         uint32_t value) {
    const uint32_t bytes = htole32(value);
    if (pwrite(device->fd, &bytes, size, (off_t)(device->region_offset[region] + offset)) != (ssize_t)size) {
        die("write of region %u at 0x%llx: %s", region, (unsigned long long)offset, strerror(errno));
    }
}

static uint32_t config_read(const struct device* device, uint64_t offset, size_t size) {
    return region_read(device, VFIO_PCI_CONFIG_REGION_INDEX, offset, size);
}

static uint32_t common_read(const struct device* device, uint64_t offset, size_t size) {
    return region_read(device, device->common.region, device->common.offset + offset, size);
}

static void common_write(const struct device* device, uint64_t offset, size_t size, uint32_t value) {
    region_write(device, device->common.region, device->common.offset + offset, size, value);
}

/* The 64-bit fields may be written in halves (4.1.3.1). */
static void common_write64(const struct device* device, uint64_t low, uint64_t value) {
    common_write(device, low, 4, (uint32_t)value);
    common_write(device, low + 4, 4, (uint32_t)(value >> 32));
}

static void find_regions(struct device* device) {
    for (uint32_t index = 0; index < VFIO_PCI_NUM_REGIONS; index++) {
        struct vfio_region_info info = {.argsz = sizeof info, .index = index};
        if (ioctl(device->fd, VFIO_DEVICE_GET_REGION_INFO, &info) < 0) {
            if (index == VFIO_PCI_VGA_REGION_INDEX) continue; /* only graphics cards have it */
            die("VFIO_DEVICE_GET_REGION_INFO of region %u: %s", index, strerror(errno));
        }
        device->region_offset[index] = info.offset;
        device->region_size[index] = info.size;
    }
}

/* Walks the capability list for virtio's own (4.1.4). The first of a kind is the device's preferred one. */
static void find_structures(struct device* device) {
    uint32_t at = config_read(device, PCI_CAPABILITY_LIST, 1) & ~3U;
    for (int left = 64; at >= PCI_STD_HEADER_SIZEOF && left > 0; left--) {
        const uint32_t next = config_read(device, at + PCI_CAP_LIST_NEXT, 1) & ~3U;
        if (config_read(device, at + PCI_CAP_LIST_ID, 1) == PCI_CAP_ID_VNDR) {
            const uint32_t type = config_read(device, at + VIRTIO_PCI_CAP_CFG_TYPE, 1);
            struct range range = {1, config_read(device, at + VIRTIO_PCI_CAP_BAR, 1),
                                  config_read(device, at + VIRTIO_PCI_CAP_OFFSET, 4),
                                  config_read(device, at + VIRTIO_PCI_CAP_LENGTH, 4)};
            struct range* wanted = type == VIRTIO_PCI_CAP_COMMON_CFG   ? &device->common
                                   : type == VIRTIO_PCI_CAP_NOTIFY_CFG ? &device->notify
                                   : type == VIRTIO_PCI_CAP_DEVICE_CFG ? &device->config
                                                                       : NULL;
            if (wanted && !wanted->present && range.region <= VFIO_PCI_BAR5_REGION_INDEX &&
                range.offset + range.length <= device->region_size[range.region]) {
                *wanted = range;
                if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
                    device->notify_multiplier = config_read(device, at + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
                }
            }
        }
        at = next;
    }
    if (!device->common.present || !device->notify.present || !device->config.present) {
        die("no virtio 1.0 structures in its BARs: a legacy device? use QEMU's disable-legacy=on, or another "
            "device");
    }
}

static void check_command_register(const struct device* device) {
    const uint32_t wanted = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    if ((config_read(device, PCI_COMMAND, 2) & wanted) != wanted) {
        die("memory space or bus mastering is off; the profile must have dma, for postern to switch them on");
    }
}

static void pause_for(long microseconds) {
    const struct timespec pause = {.tv_nsec = microseconds * 1000};
    (void)nanosleep(&pause, NULL);
}

static void reset(const struct device* device) {
    common_write(device, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    for (int milliseconds = 0; common_read(device, VIRTIO_PCI_COMMON_STATUS, 1) != 0; milliseconds++) {
        if (milliseconds > RESET_MILLISECONDS) die("the device does not come out of reset");
        pause_for(1000);
    }
}

/* Adds one bit to the status and looks whether the device took it. */
static void advance(const struct device* device, uint32_t bit, const char* name) {
    const uint32_t status = common_read(device, VIRTIO_PCI_COMMON_STATUS, 1) | bit;
    common_write(device, VIRTIO_PCI_COMMON_STATUS, 1, status);
    const uint32_t now = common_read(device, VIRTIO_PCI_COMMON_STATUS, 1);
    if (now != status) die("the device refuses %s: status 0x%x, not 0x%x", name, now, status);
}

static void negotiate(const struct device* device) {
    const uint64_t needed = 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_F_ACCESS_PLATFORM;
    const uint64_t welcome = 1ULL << VIRTIO_BLK_F_MQ | 1ULL << VIRTIO_BLK_F_RO | 1ULL << VIRTIO_F_RING_RESET;
    uint64_t offered = 0;
    for (uint32_t half = 0; half < 2; half++) {
        common_write(device, VIRTIO_PCI_COMMON_DFSELECT, 4, half);
        offered |= (uint64_t)common_read(device, VIRTIO_PCI_COMMON_DF, 4) << (32 * half);
    }
    if ((offered & 1ULL << VIRTIO_F_VERSION_1) == 0)
        die("the device does not offer VIRTIO_F_VERSION_1 (virtio 1.0)");
    if ((offered & 1ULL << VIRTIO_F_ACCESS_PLATFORM) == 0) {
        die("the device does not offer VIRTIO_F_ACCESS_PLATFORM and would bypass the IOMMU; use QEMU's "
            "iommu_platform=on");
    }
    const uint64_t accepted = offered & (needed | welcome);
    for (uint32_t half = 0; half < 2; half++) {
        common_write(device, VIRTIO_PCI_COMMON_GFSELECT, 4, half);
        common_write(device, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(accepted >> (32 * half)));
    }
    advance(device, VIRTIO_CONFIG_S_FEATURES_OK, "FEATURES_OK");
}

/* Capacity in sectors, read between two equal generations: the two halves belong together (4.1.4.3.1). */
static uint64_t read_capacity(const struct device* device) {
    uint64_t capacity;
    uint32_t generation;
    int tries = 0;
    do {
        if (++tries > 100) die("the device's configuration keeps changing");
        generation = common_read(device, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
        capacity = region_read(device, device->config.region, device->config.offset, 4);
        capacity |= (uint64_t)region_read(device, device->config.region, device->config.offset + 4, 4) << 32;
    } while (generation != common_read(device, VIRTIO_PCI_COMMON_CFGGENERATION, 1));
    return capacity;
}

static void set_vector(const struct device* device, uint64_t field, uint32_t vector, const char* whose) {
    common_write(device, field, 2, vector);
    const uint32_t now = common_read(device, field, 2);
    if (now != vector) die("the device refuses MSI-X vector %u for %s", vector, whose);
}

/* Where the queue's doorbell must be rung; call with the queue selected. */
static uint64_t notify_offset(const struct device* device) {
    const uint32_t factor = common_read(device, VIRTIO_PCI_COMMON_Q_NOFF, 2);
    const uint64_t offset = (uint64_t)factor * device->notify_multiplier;
    if (offset + 2 > device->notify.length) die("a doorbell lies outside the device's notify structure");
    return device->notify.offset + offset;
}

/* A window that does not hold its slice's doorbell would be a client that rings another's, or nothing. */
static void check_window(const struct device* device, const struct postern_grant* grant, int slice,
                         uint64_t doorbell) {
    const struct postern_window* window = postern_get_window_in_slice(grant, WINDOW_NAME, slice);
    if (!window) return; /* the client compares it with the control block */
    if (window->region != device->notify.region || doorbell < window->offset ||
        doorbell + 2 > window->offset + window->length) {
        die("slice %d: the doorbell of queue %d is at 0x%llx of bar%u, and window \"" WINDOW_NAME
            "\" has 0x%llx bytes at 0x%llx of region %u; correct the profile's offset (QEMU: page-per-vq=on)",
            slice, slice, (unsigned long long)doorbell, device->notify.region,
            (unsigned long long)window->length, (unsigned long long)window->offset, window->region);
    }
}

/* The control block and the rings, which is all of the memory that is looked at here: to map the rest takes
 * longer than all else that this program does. NULL with errno. */
static char* map_rings(const struct postern_dma* dma) {
    char* memory = mmap(NULL, REQUESTS_OFFSET, PROT_READ | PROT_WRITE, MAP_SHARED, dma->fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void set_up_queue(const struct device* device, const struct postern_grant* grant,
                         const struct postern_dma* dma, uint64_t capacity) {
    const int slice = dma->slice;
    const struct postern_irq* irq = postern_get_irq_in_slice(grant, IRQ_NAME, slice);
    if (dma->size < LAYOUT_SIZE) {
        die("slice %d: dma memory \"" MEMORY_NAME "\" has %llu bytes, %d are needed", slice,
            (unsigned long long)dma->size, (int)LAYOUT_SIZE);
    }
    char* memory = map_rings(dma);
    if (!memory) die("slice %d: mapping of dma memory \"" MEMORY_NAME "\": %s", slice, strerror(errno));
    memset(memory, 0, REQUESTS_OFFSET); /* the rings; the rest is the client's to fill */

    common_write(device, VIRTIO_PCI_COMMON_Q_SELECT, 2, (uint32_t)slice);
    const uint32_t largest = common_read(device, VIRTIO_PCI_COMMON_Q_SIZE, 2);
    uint32_t size = QUEUE_SIZE_MAX;
    while (size > largest) size /= 2; /* a power of 2 whatever the device's largest is */
    if (size < DESCRIPTORS_PER_READ) die("queue %d has %u descriptors: too few for one read", slice, largest);
    common_write(device, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
    if (irq && irq->index != VFIO_PCI_MSIX_IRQ_INDEX) {
        die("slice %d: irq \"" IRQ_NAME "\" must have \"index\": \"msix\"", slice);
    }
    set_vector(device, VIRTIO_PCI_COMMON_Q_MSIX, irq ? irq->vector : VIRTIO_MSI_NO_VECTOR, "a queue");
    common_write64(device, VIRTIO_PCI_COMMON_Q_DESCLO, dma->iova + DESCRIPTORS_OFFSET);
    common_write64(device, VIRTIO_PCI_COMMON_Q_AVAILLO, dma->iova + AVAIL_OFFSET);
    common_write64(device, VIRTIO_PCI_COMMON_Q_USEDLO, dma->iova + USED_OFFSET);

    struct control_block control = {
        .magic = CONTROL_MAGIC,
        .version = CONTROL_VERSION,
        .queue = (uint16_t)slice,
        .queue_size = (uint16_t)size,
        .capacity = capacity,
        .notify_region = device->notify.region,
        .notify_offset = notify_offset(device),
    };
    check_window(device, grant, slice, control.notify_offset);
    memcpy(memory + CONTROL_OFFSET, &control, sizeof control);
    postern_dma_wmb();
    common_write(device, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    (void)munmap(memory, REQUESTS_OFFSET);
}

static const struct postern_dma* memory_of_slice(const struct postern_grant* grant) {
    const struct postern_dma* dma = postern_get_dma_in_slice(grant, MEMORY_NAME, grant->slice);
    if (grant->slice == POSTERN_NO_SLICE)
        die("the manifest names no slice; this mode is for \"setup\" and \"teardown\" of a \"slice\"");
    if (!dma) die("slice %d: no dma memory \"" MEMORY_NAME "\" in the profile", grant->slice);
    return dma;
}

/* Selects the slice's queue of a device that is in use, and says whether it is enabled. */
static bool select_queue(const struct device* device, int slice) {
    const int available = (int)common_read(device, VIRTIO_PCI_COMMON_NUMQ, 2);
    if ((common_read(device, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_DRIVER_OK) == 0)
        die("the device was not set up; the profile needs \"setup\": { \"device\": [\"virtio-blk-setup\"] }");
    if (slice >= available) die("slice %d needs queue %d and the device has %d", slice, slice, available);
    common_write(device, VIRTIO_PCI_COMMON_Q_SELECT, 2, (uint32_t)slice);
    return common_read(device, VIRTIO_PCI_COMMON_Q_ENABLE, 2) == 1;
}

/*
 * Gives the device time to end what a client left in flight. Nothing here can be trusted, for the client
 * wrote it: it decides how long this waits, up to the bound, and nothing else. Requests that the client
 * announced and never rang the doorbell for are not waited for longer than that either: they are not started
 * here.
 */
static void drain(const struct postern_dma* dma) {
    char* memory = dma->size < LAYOUT_SIZE ? NULL : map_rings(dma);
    const volatile struct vring_avail* avail;
    const volatile struct vring_used* used;
    if (!memory) return;
    avail = (const volatile struct vring_avail*)(memory + AVAIL_OFFSET);
    used = (const volatile struct vring_used*)(memory + USED_OFFSET);
    for (int waited = 0; used->idx != avail->idx && waited < DRAIN_MICROSECONDS;
         waited += DRAIN_PAUSE_MICROSECONDS) {
        pause_for(DRAIN_PAUSE_MICROSECONDS);
    }
    (void)munmap(memory, REQUESTS_OFFSET);
}

static void reset_queue(const struct device* device, int slice) {
    common_write(device, VIRTIO_PCI_COMMON_GFSELECT, 4, VIRTIO_F_RING_RESET / 32);
    if ((common_read(device, VIRTIO_PCI_COMMON_GF, 4) & 1U << VIRTIO_F_RING_RESET % 32) == 0 ||
        device->common.length < VIRTIO_PCI_COMMON_Q_RESET + 2) {
        die("slice %d: the device does not offer VIRTIO_F_RING_RESET (virtio 1.2; QEMU 7.2 or later does) "
            "and "
            "cannot reset one queue; only a reset of the whole device cleans it",
            slice);
    }
    common_write(device, VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
    /* Both read 0 when the device has let go of the queue (4.1.4.3.1). */
    for (int milliseconds = 0; common_read(device, VIRTIO_PCI_COMMON_Q_RESET, 2) != 0 ||
                               common_read(device, VIRTIO_PCI_COMMON_Q_ENABLE, 2) != 0;
         milliseconds++) {
        if (milliseconds > RESET_MILLISECONDS) die("slice %d: the queue does not come out of reset", slice);
        pause_for(1000);
    }
}

static void reset_slice(const struct device* device, const struct postern_grant* grant) {
    const struct postern_dma* dma = memory_of_slice(grant);
    if (!select_queue(device, grant->slice)) return;
    drain(dma);
    reset_queue(device, grant->slice);
}

/* Whether the memory is what the queue was set up with, and not another that took its place since. */
static bool is_set_up(const struct postern_dma* dma) {
    char* memory = dma->size < LAYOUT_SIZE ? NULL : map_rings(dma);
    struct control_block control = {.magic = 0};
    if (!memory) return false;
    memcpy(&control, memory + CONTROL_OFFSET, sizeof control);
    (void)munmap(memory, REQUESTS_OFFSET);
    return control.magic == CONTROL_MAGIC;
}

static void enable_slice(const struct device* device, const struct postern_grant* grant) {
    const struct postern_dma* dma = memory_of_slice(grant);
    if ((common_read(device, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_NEEDS_RESET) != 0)
        die("slice %d: the device needs a reset: a client gave it a queue that makes no sense", grant->slice);
    if (select_queue(device, grant->slice)) {
        if (is_set_up(dma)) return;
        reset_queue(device, grant->slice);
    }
    set_up_queue(device, grant, dma, read_capacity(device));
}

static void set_up_device(const struct device* device, const struct postern_grant* grant) {
    int queues = 0;
    reset(device);
    advance(device, VIRTIO_CONFIG_S_ACKNOWLEDGE, "ACKNOWLEDGE");
    advance(device, VIRTIO_CONFIG_S_DRIVER, "DRIVER");
    negotiate(device);

    const uint64_t capacity = read_capacity(device);
    const int available = (int)common_read(device, VIRTIO_PCI_COMMON_NUMQ, 2);
    set_vector(device, VIRTIO_PCI_COMMON_MSIX, VIRTIO_MSI_NO_VECTOR, "configuration changes");
    for (size_t i = 0; i < grant->dma_count; i++) {
        const struct postern_dma* dma = &grant->dma[i];
        if (strcmp(dma->name, MEMORY_NAME) != 0) continue;
        if (dma->slice < 0) die("dma[%zu] (\"" MEMORY_NAME "\") belongs to no slice", i);
        if (dma->slice >= available) {
            die("slice %d needs queue %d and the device has %d queues; lower the profile's \"slices\"",
                dma->slice, dma->slice, available);
        }
        set_up_queue(device, grant, dma, capacity);
        queues++;
    }
    if (queues == 0) die("no dma memory \"" MEMORY_NAME "\" in the profile");
    advance(device, VIRTIO_CONFIG_S_DRIVER_OK, "DRIVER_OK");
}

static enum mode parse_mode(int argc, char** argv) {
    if (argc <= 1) return SET_UP_DEVICE;
    if (argc == 2 && strcmp(argv[1], "--reset-slice") == 0) return RESET_SLICE;
    if (argc == 2 && strcmp(argv[1], "--enable-slice") == 0) return ENABLE_SLICE;
    die("no arguments, or one of --reset-slice and --enable-slice; not \"%s\"", argv[argc - 1]);
}

int main(int argc, char** argv) {
    char error[512];
    struct device device = {.fd = -1};
    const enum mode mode = parse_mode(argc, argv);
    (void)setvbuf(stderr, NULL, _IOLBF, 0); /* a message is one write: others share the terminal */
    struct postern_grant* grant = postern_open(error, sizeof error);
    if (!grant) die("%s", error);
    device.fd = grant->device_fd;
    if (device.fd < 0)
        die("no device was passed; run it as \"setup\": { \"device\": [\"virtio-blk-setup\"] }");

    find_regions(&device);
    check_command_register(&device);
    find_structures(&device);
    switch (mode) {
        case SET_UP_DEVICE:
            set_up_device(&device, grant);
            break;
        case RESET_SLICE:
            reset_slice(&device, grant);
            break;
        case ENABLE_SLICE:
            enable_slice(&device, grant);
            break;
    }
    postern_close(grant);
    return 0;
}
