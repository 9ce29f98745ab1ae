// SPDX-License-Identifier: Apache-2.0
/*
 * The driver that nvme-server keeps for itself: controller and admin queue. Every function returns 0, or -1
 * with a line in nvme->error.
 */
#ifndef EXAMPLES_NVME_CONTROLLER_H
#define EXAMPLES_NVME_CONTROLLER_H

#include <stdint.h>

#include <postern/libpostern.h>

#include "nvme_layout.h"

struct nvme {
    volatile char* registers; /* BAR 0: registers, and the page of doorbells */
    struct libpostern_memory admin;
    uint16_t tail, head, next_id;
    uint16_t phase;
    uint32_t doorbell_stride; /* bytes */
    double timeout;           /* seconds, of the controller itself */
    uint32_t queues;          /* I/O queue pairs that can be made */
    uint32_t lba_size;
    uint64_t lbas;
    char error[256];
};

enum { NVME_NSID = 1 };

/* Maps the registers, resets and enables the controller with an admin queue in memory at `admin_iova` (three
 * pages), looks at namespace 1. The device is enabled already, and borrowed. */
int nvme_start(struct nvme* nvme, struct libpostern_device* device, uint64_t admin_iova,
               uint32_t queues_wanted);
/* An I/O queue pair `queue` (from 1 on) in a client's memory; polled, no interrupt. */
int nvme_create_queue(struct nvme* nvme, uint32_t queue, uint64_t client_iova);
/* Ends it: commands in flight have ended when this returns. Goes on after an error. */
int nvme_delete_queue(struct nvme* nvme, uint32_t queue);
uint32_t nvme_sq_doorbell(const struct nvme* nvme, uint32_t queue);
uint32_t nvme_cq_doorbell(const struct nvme* nvme, uint32_t queue);
/* Disables the controller. */
int nvme_stop(struct nvme* nvme);

#endif
