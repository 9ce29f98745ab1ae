// SPDX-License-Identifier: Apache-2.0
/*
 * The driver's half of a split virtqueue (virtio 1.2, 2.7) that lies in DMA memory, without event indexes.
 * Indices run freely modulo 2^16, so the queue goes on where an earlier user left it.
 */
#ifndef EXAMPLES_VIRTIO_QUEUE_H
#define EXAMPLES_VIRTIO_QUEUE_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>

#include "postern.h"
#include "virtio_blk_layout.h"

struct virtio_queue {
    uint16_t size;       /* descriptors; a power of 2 */
    uint16_t avail_next; /* index of the next entry offered */
    uint16_t used_next;  /* index of the next entry taken back */
    struct vring_desc* desc;
    struct vring_avail* avail;
    volatile struct vring_used* used;
};

static inline uint16_t queue_used_index(const struct virtio_queue* queue) {
    return le16toh(queue->used->idx);
}

static inline void queue_attach(struct virtio_queue* queue, void* memory, uint16_t size) {
    char* base = (char*)memory;
    queue->size = size;
    queue->desc = (struct vring_desc*)(base + DESCRIPTORS_OFFSET);
    queue->avail = (struct vring_avail*)(base + AVAIL_OFFSET);
    queue->used = (volatile struct vring_used*)(base + USED_OFFSET);
    queue->avail_next = le16toh(*(volatile __virtio16*)&queue->avail->idx);
    queue->used_next = queue_used_index(queue);
}

static inline void queue_set_descriptor(struct virtio_queue* queue, uint16_t index, uint64_t iova,
                                        uint32_t length, uint16_t flags, uint16_t next) {
    queue->desc[index].addr = htole64(iova);
    queue->desc[index].len = htole32(length);
    queue->desc[index].flags = htole16(flags);
    queue->desc[index].next = htole16(next);
}

/* Puts a chain into the ring; the device looks at it after queue_publish(). */
static inline void queue_offer(struct virtio_queue* queue, uint16_t head) {
    queue->avail->ring[queue->avail_next & (queue->size - 1)] = htole16(head);
    queue->avail_next++;
}

/* Shows the device all that was offered. Whether it wants its doorbell rung for that. */
static inline bool queue_publish(struct virtio_queue* queue) {
    postern_dma_wmb(); /* descriptors and ring before the index that announces them */
    *(volatile __virtio16*)&queue->avail->idx = htole16(queue->avail_next);
    postern_dma_mb(); /* the index before the look at the flag, or both sides may sleep */
    return (le16toh(queue->used->flags) & VRING_USED_F_NO_NOTIFY) == 0;
}

/* Whether the device is to interrupt when it has used a chain. */
static inline void queue_want_interrupts(struct virtio_queue* queue, bool wanted) {
    *(volatile __virtio16*)&queue->avail->flags = htole16(wanted ? 0 : VRING_AVAIL_F_NO_INTERRUPT);
    postern_dma_mb(); /* before the caller's last look at the used index */
}

/* Head of the next used chain. Call after the used index was seen to be ahead, and postern_dma_rmb(). */
static inline uint32_t queue_take(struct virtio_queue* queue, uint32_t* length) {
    const volatile struct vring_used_elem* element = &queue->used->ring[queue->used_next & (queue->size - 1)];
    const uint32_t head = le32toh(element->id);
    *length = le32toh(element->len);
    queue->used_next++;
    return head;
}

#endif
