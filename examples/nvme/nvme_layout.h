// SPDX-License-Identifier: Apache-2.0
/*
 * What nvme-server and nvme-client agree on: the part of NVM Express (1.4) that both use, and how the memory
 * of one client is laid out.
 */
#ifndef EXAMPLES_NVME_LAYOUT_H
#define EXAMPLES_NVME_LAYOUT_H

#include <stdint.h>

/* NVMe 1.4, 4.2: a submission queue entry; all little endian. */
struct nvme_command {
    uint8_t opcode;
    uint8_t flags;
    uint16_t id;
    uint32_t nsid;
    uint64_t reserved;
    uint64_t metadata;
    uint64_t prp1;
    uint64_t prp2;
    uint32_t cdw[6]; /* command dwords 10 to 15 */
};

/* 4.6: a completion queue entry. */
struct nvme_completion {
    uint32_t result;
    uint32_t reserved;
    uint16_t sq_head;
    uint16_t sq_id;
    uint16_t id;
    uint16_t status; /* bit 0: phase */
};

_Static_assert(sizeof(struct nvme_command) == 64, "a submission queue entry has 64 bytes");
_Static_assert(sizeof(struct nvme_completion) == 16, "a completion queue entry has 16 bytes");

enum { NVME_READ = 2 };

/* A client's memory: "queue" in its grant. */
enum {
    CLIENT_CONTROL_OFFSET = 0,
    CLIENT_SQ_OFFSET = 0x1000,
    CLIENT_CQ_OFFSET = 0x2000,
    CLIENT_DATA_OFFSET = 0x4000,
    QUEUE_ENTRIES = 64,            /* a page of commands */
    DEPTH_MAX = QUEUE_ENTRIES - 1, /* a full queue has one free entry */
    BLOCK_SIZE = 4096,
    CLIENT_SIZE = CLIENT_DATA_OFFSET + QUEUE_ENTRIES * BLOCK_SIZE
};

#define CLIENT_MAGIC 0x6e766d65U /* "nvme" */
#define CLIENT_VERSION 1U

/* Written by the server, once; in the machine's own order. */
struct client_control {
    uint32_t magic;
    uint32_t version;
    uint32_t queue; /* its id */
    uint32_t nsid;
    uint32_t lba_size;    /* bytes */
    uint32_t sq_doorbell; /* offsets in BAR 0 */
    uint32_t cq_doorbell;
    uint32_t reserved;
    uint64_t lbas; /* of the namespace */
};

/* The test pattern: word i of the disk, see tests/lab/mkimage.cpp. */
static inline uint64_t pattern_word(uint64_t index) {
    uint64_t z = index + 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
}

#endif
