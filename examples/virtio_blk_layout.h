// SPDX-License-Identifier: Apache-2.0
/*
 * What virtio-blk-setup, virtio-blk-client and virtio-blk-proxy agree on: where things lie in a slice's DMA
 * memory "ring", and the messages between the client and the proxy. Offsets are bytes from the first one of
 * the memory, which the device knows by its iova.
 */
#ifndef EXAMPLES_VIRTIO_BLK_LAYOUT_H
#define EXAMPLES_VIRTIO_BLK_LAYOUT_H

#include <linux/types.h>
#include <linux/virtio_ring.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SECTOR_SIZE = 512, /* of virtio-blk, whatever the disk's own is */
    BLOCK_SIZE = 4096, /* what one read asks for */
    SECTORS_PER_BLOCK = BLOCK_SIZE / SECTOR_SIZE,

    QUEUE_SIZE_MAX = 256,                              /* what the offsets below have room for */
    DESCRIPTORS_PER_READ = 3,                          /* header, data, status */
    DEPTH_MAX = QUEUE_SIZE_MAX / DESCRIPTORS_PER_READ, /* reads in flight */

    CONTROL_OFFSET = 0x0,
    DESCRIPTORS_OFFSET = 0x1000,
    AVAIL_OFFSET = 0x2000,
    USED_OFFSET = 0x3000,
    REQUESTS_OFFSET = 0x4000, /* struct request_block [DEPTH_MAX] */
    DATA_OFFSET = 0x10000,    /* BLOCK_SIZE bytes [DEPTH_MAX], each on a page of its own */
    LAYOUT_SIZE = DATA_OFFSET + DEPTH_MAX * BLOCK_SIZE
};

#define CONTROL_MAGIC 0x6b6c626f69747269ULL
#define CONTROL_VERSION 1

/* What setup tells the client, so that the client needs no window onto the device's configuration. */
struct control_block {
    uint64_t magic;
    uint32_t version;
    uint16_t queue;         /* index; what the doorbell is rung with */
    uint16_t queue_size;    /* descriptors; a power of 2, at most QUEUE_SIZE_MAX */
    uint64_t capacity;      /* of the disk, in sectors */
    uint32_t notify_region; /* where this queue's doorbell is: VFIO region index … */
    uint32_t reserved;
    uint64_t notify_offset; /* … and byte in it */
};

/* One read's header and status; the device reads the first 16 bytes and writes the last. */
struct request_block {
    uint32_t type; /* VIRTIO_BLK_T_IN */
    uint32_t priority;
    uint64_t sector;
    uint8_t status;
    uint8_t padding[15];
};

_Static_assert(sizeof(struct control_block) <= DESCRIPTORS_OFFSET, "control block has a page");
_Static_assert(sizeof(struct request_block) == 32, "request_block is packed");
_Static_assert(sizeof(struct vring_desc) * QUEUE_SIZE_MAX <= AVAIL_OFFSET - DESCRIPTORS_OFFSET,
               "descriptors fit");
_Static_assert(sizeof(struct vring_avail) + 2 * (QUEUE_SIZE_MAX + 1) <= USED_OFFSET - AVAIL_OFFSET,
               "avail fits");
_Static_assert(sizeof(struct vring_used) + 8 * QUEUE_SIZE_MAX + 2 <= REQUESTS_OFFSET - USED_OFFSET,
               "used fits");
_Static_assert(sizeof(struct request_block) * DEPTH_MAX <= DATA_OFFSET - REQUESTS_OFFSET, "requests fit");

/* One SOCK_SEQPACKET message between client and proxy, either way. */
enum proxy_message_type {
    PROXY_KICK = 1,      /* client → proxy: ring the doorbell */
    PROXY_COMPLETED = 2, /* proxy → client: the used ring has reached `index` */
};

/* How long client and proxy look for the next message before they sleep. */
enum { PROXY_SPIN_MICROSECONDS = 50 };

struct proxy_message {
    uint32_t type;
    uint16_t index;
    uint16_t reserved;
};

/* The test image: word i (little endian) of sector s is splitmix64(s * 64 + i). */
static inline uint64_t pattern_word(uint64_t n) {
    uint64_t z = n + 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

#endif
