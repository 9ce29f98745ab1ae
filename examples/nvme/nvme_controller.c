// SPDX-License-Identifier: Apache-2.0
/* Numbers and names are those of NVM Express 1.4. */
#include "nvme_controller.h"

#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "cycles.h"
#include "postern.h"

enum {
    REGISTER_CAP = 0x00,
    REGISTER_CC = 0x14,
    REGISTER_CSTS = 0x1c,
    REGISTER_AQA = 0x24,
    REGISTER_ASQ = 0x28,
    REGISTER_ACQ = 0x30,
    DOORBELLS = 0x1000,
    MAPPED_SIZE = 0x2000, /* registers and one page of doorbells */
    PAGE = 4096,
    ADMIN_ENTRIES = 32
};

enum {
    ADMIN_DELETE_SQ = 0x00,
    ADMIN_CREATE_SQ = 0x01,
    ADMIN_DELETE_CQ = 0x04,
    ADMIN_CREATE_CQ = 0x05,
    ADMIN_IDENTIFY = 0x06,
    ADMIN_SET_FEATURES = 0x09,
    FEATURE_QUEUES = 0x07
};

/* Entries of 64 and 16 bytes, the NVM command set, pages of 4 KiB. */
static const uint32_t kConfiguration = (4U << 20) | (6U << 16);

__attribute__((format(printf, 2, 3))) static int fail(struct nvme* nvme, const char* format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(nvme->error, sizeof nvme->error, format, list);
    va_end(list);
    return -1;
}

static uint32_t read_register(const struct nvme* nvme, uint32_t offset) {
    return postern_mmio_read32(nvme->registers + offset);
}

static void write_register(const struct nvme* nvme, uint32_t offset, uint32_t value) {
    postern_mmio_write32(nvme->registers + offset, value);
}

/* In halves: not every controller takes 64 bits at once. */
static void write_address(const struct nvme* nvme, uint32_t offset, uint64_t value) {
    write_register(nvme, offset, (uint32_t)value);
    write_register(nvme, offset + 4, (uint32_t)(value >> 32));
}

static int await_ready(struct nvme* nvme, uint32_t ready) {
    const struct timespec pause = {0, 1000000};
    const double begin = wall_seconds();
    while ((read_register(nvme, REGISTER_CSTS) & 1U) != ready) {
        if (wall_seconds() - begin > nvme->timeout)
            return fail(nvme, "the controller does not become %s within %.1f s", ready ? "ready" : "idle",
                        nvme->timeout);
        (void)nanosleep(&pause, NULL);
    }
    return 0;
}

/* One command at a time; its result may be wanted. */
static int run_admin(struct nvme* nvme, const struct nvme_command* wanted, const char* what,
                     uint32_t* result) {
    char* memory = nvme->admin.address;
    struct nvme_command* sq = (struct nvme_command*)memory;
    const volatile struct nvme_completion* cq = (const volatile struct nvme_completion*)(memory + PAGE);
    const volatile struct nvme_completion* entry = &cq[nvme->head];
    const double begin = wall_seconds();
    struct nvme_command command = *wanted;
    uint16_t status;
    command.id = htole16(nvme->next_id++);
    sq[nvme->tail] = command;
    nvme->tail = (uint16_t)((nvme->tail + 1) % ADMIN_ENTRIES);
    postern_dma_wmb();
    write_register(nvme, nvme_sq_doorbell(nvme, 0), nvme->tail);
    while ((le16toh(entry->status) & 1U) != nvme->phase) {
        const struct timespec pause = {0, 50000};
        if (wall_seconds() - begin > nvme->timeout)
            return fail(nvme, "%s: no answer within %.1f s", what, nvme->timeout);
        (void)nanosleep(&pause, NULL);
    }
    postern_dma_rmb();
    status = le16toh(entry->status) >> 1;
    if (result) *result = le32toh(entry->result);
    nvme->head = (uint16_t)((nvme->head + 1) % ADMIN_ENTRIES);
    if (nvme->head == 0) nvme->phase ^= 1U;
    write_register(nvme, nvme_cq_doorbell(nvme, 0), nvme->head);
    if ((status & 0x7ffU) != 0) return fail(nvme, "%s: status 0x%x", what, status & 0x7ffU);
    return 0;
}

static uint32_t load32(const char* at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return le32toh(value);
}

static uint64_t load64(const char* at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return le64toh(value);
}

static int identify(struct nvme* nvme) {
    const char* data = (const char*)nvme->admin.address + 2 * PAGE;
    struct nvme_command command = {.opcode = ADMIN_IDENTIFY, .prp1 = htole64(nvme->admin.iova + 2 * PAGE)};
    unsigned format;
    unsigned shift;
    command.cdw[0] = htole32(1); /* the controller */
    if (run_admin(nvme, &command, "identify the controller", NULL)) return -1;
    if (load32(data + 516) < NVME_NSID) return fail(nvme, "the controller has no namespace");
    command.nsid = htole32(NVME_NSID);
    command.cdw[0] = htole32(0); /* a namespace */
    if (run_admin(nvme, &command, "identify namespace 1", NULL)) return -1;
    nvme->lbas = load64(data);
    format = (unsigned)data[26] & 0xfU;
    shift = load32(data + 128 + 4 * format) >> 16 & 0xffU;
    if (nvme->lbas == 0 || shift < 9 || shift > 12)
        return fail(nvme, "namespace 1 has %llu blocks of 2^%u bytes", (unsigned long long)nvme->lbas, shift);
    nvme->lba_size = 1U << shift;
    return 0;
}

static int map_registers(struct nvme* nvme, struct libpostern_device* device) {
    struct libpostern_region bar;
    void* first;
    if (libpostern_device_region(device, 0, &bar)) return fail(nvme, "%s", libpostern_error());
    if (bar.size < MAPPED_SIZE || !(bar.flags & LIBPOSTERN_MMAP))
        return fail(nvme, "BAR 0 is no NVMe controller's");
    first = mmap(NULL, MAPPED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, libpostern_device_fd(device),
                 (off_t)bar.file_offset);
    if (first == MAP_FAILED) return fail(nvme, "BAR 0: mmap: %s", strerror(errno));
    /* The init of a client's sandbox begins as a copy of this process. */
    (void)madvise(first, MAPPED_SIZE, MADV_DONTFORK);
    nvme->registers = first;
    return 0;
}

int nvme_start(struct nvme* nvme, struct libpostern_device* device, uint64_t admin_iova,
               uint32_t queues_wanted) {
    struct nvme_command command = {.opcode = ADMIN_SET_FEATURES};
    uint64_t capabilities;
    uint32_t queues = 0;
    memset(nvme, 0, sizeof *nvme);
    nvme->phase = 1;
    if (map_registers(nvme, device)) return -1;
    if (libpostern_device_dma_alloc(device, 3 * PAGE, admin_iova, LIBPOSTERN_READ | LIBPOSTERN_WRITE,
                                    &nvme->admin))
        return fail(nvme, "%s", libpostern_error());
    capabilities = read_register(nvme, REGISTER_CAP) | (uint64_t)read_register(nvme, REGISTER_CAP + 4) << 32;
    nvme->doorbell_stride = 4U << (capabilities >> 32 & 0xfU);
    nvme->timeout = 0.5 * (double)(capabilities >> 24 & 0xffU) + 0.5;
    if ((capabilities & 0xffffU) + 1 < QUEUE_ENTRIES)
        return fail(nvme, "the controller's queues are too short");

    write_register(nvme, REGISTER_CC, read_register(nvme, REGISTER_CC) & ~1U);
    if (await_ready(nvme, 0)) return -1;
    write_register(nvme, REGISTER_AQA, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));
    write_address(nvme, REGISTER_ASQ, nvme->admin.iova);
    write_address(nvme, REGISTER_ACQ, nvme->admin.iova + PAGE);
    write_register(nvme, REGISTER_CC, kConfiguration | 1U);
    if (await_ready(nvme, 1)) return -1;

    if (identify(nvme)) return -1;
    command.cdw[0] = htole32(FEATURE_QUEUES);
    command.cdw[1] = htole32((queues_wanted - 1) << 16 | (queues_wanted - 1));
    if (run_admin(nvme, &command, "set the number of queues", &queues)) return -1;
    nvme->queues = (queues & 0xffffU) < queues >> 16 ? (queues & 0xffffU) + 1 : (queues >> 16) + 1;
    if (nvme->queues < queues_wanted)
        return fail(nvme, "the controller has %u queue pairs, and %u are wanted", nvme->queues,
                    queues_wanted);
    return 0;
}

int nvme_create_queue(struct nvme* nvme, uint32_t queue, uint64_t client_iova) {
    const uint32_t shape = (QUEUE_ENTRIES - 1) << 16 | queue;
    struct nvme_command command = {.opcode = ADMIN_CREATE_CQ,
                                   .prp1 = htole64(client_iova + CLIENT_CQ_OFFSET)};
    command.cdw[0] = htole32(shape);
    command.cdw[1] = htole32(1); /* physically contiguous: to the device it is; no interrupts */
    if (run_admin(nvme, &command, "create a completion queue", NULL)) return -1;
    command.opcode = ADMIN_CREATE_SQ;
    command.prp1 = htole64(client_iova + CLIENT_SQ_OFFSET);
    command.cdw[1] = htole32(queue << 16 | 1);
    if (run_admin(nvme, &command, "create a submission queue", NULL) == 0) return 0;
    command = (struct nvme_command){.opcode = ADMIN_DELETE_CQ};
    command.cdw[0] = htole32(queue);
    /* Its failure is not what there is to tell. */
    char error[sizeof nvme->error];
    memcpy(error, nvme->error, sizeof error);
    (void)run_admin(nvme, &command, "delete a completion queue", NULL);
    memcpy(nvme->error, error, sizeof error);
    return -1;
}

int nvme_delete_queue(struct nvme* nvme, uint32_t queue) {
    struct nvme_command command = {.opcode = ADMIN_DELETE_SQ};
    int failed;
    command.cdw[0] = htole32(queue);
    failed = run_admin(nvme, &command, "delete a submission queue", NULL);
    command.opcode = ADMIN_DELETE_CQ;
    return run_admin(nvme, &command, "delete a completion queue", NULL) || failed ? -1 : 0;
}

uint32_t nvme_sq_doorbell(const struct nvme* nvme, uint32_t queue) {
    return DOORBELLS + 2 * queue * nvme->doorbell_stride;
}

uint32_t nvme_cq_doorbell(const struct nvme* nvme, uint32_t queue) {
    return DOORBELLS + (2 * queue + 1) * nvme->doorbell_stride;
}

int nvme_stop(struct nvme* nvme) {
    int failed = 0;
    if (!nvme->registers) return 0;
    write_register(nvme, REGISTER_CC, read_register(nvme, REGISTER_CC) & ~1U);
    failed = await_ready(nvme, 0);
    (void)munmap((void*)(uintptr_t)nvme->registers, MAPPED_SIZE);
    nvme->registers = NULL;
    return failed;
}
