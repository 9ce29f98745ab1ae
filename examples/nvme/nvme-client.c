// SPDX-License-Identifier: Apache-2.0
/*
 * nvme-client: reads blocks of 4 KiB through the I/O queue pair that nvme-server has given it, and checks
 * every byte against the test pattern. It writes commands into its own memory, rings its own doorbells and
 * polls its completion queue: between its first and its last read it makes no system call and asks nobody.
 *
 * Status: 0 if every read came back and was right, 1 with a line on stderr if not, 2 for a wrong command
 * line.
 */
#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cycles.h"
#include "nvme_layout.h"
#include "postern.h"

enum { PATIENCE_SECONDS = 30, WORDS_PER_BLOCK = BLOCK_SIZE / 8 };

struct client {
    uint64_t reads; /* 0: no limit */
    double seconds; /* 0: no limit */
    unsigned depth;
    bool json;
    const char* socket_path;

    struct postern_grant* grant;
    struct client_control control;
    struct nvme_command* sq;
    const volatile struct nvme_completion* cq;
    uint64_t* data; /* WORDS_PER_BLOCK words a slot */
    uint64_t data_iova;
    volatile char* sq_doorbell;
    volatile char* cq_doorbell;

    uint16_t tail, head, phase;
    uint64_t blocks, random;
    uint64_t block_of[DEPTH_MAX]; /* by slot */
    bool busy[DEPTH_MAX];
    uint16_t free_slots[DEPTH_MAX];
    unsigned free_count;
    uint64_t submitted, completed, verified;
    char trouble[160]; /* the first; told after the loop, which must not print */
};

static void usage(FILE* to) {
    fputs(
        "usage: nvme-client [options]      (started by nvme-server, or with --socket)\n"
        "  --reads N        stop after N reads of 4 KiB (default 20000 without --seconds)\n"
        "  --seconds S      stop after S seconds\n"
        "  --depth D        reads in flight, 1 to 63 (default 32)\n"
        "  --json           one line of JSON at the end\n"
        "  --socket PATH    ask nvme-server at this socket for a grant\n",
        to);
}

__attribute__((format(printf, 2, 3), noreturn)) static void die(const struct client* client,
                                                                const char* format, ...) {
    va_list list;
    fputs("nvme-client: ", stderr);
    if (client->grant) fprintf(stderr, "slice %d: ", client->grant->slice);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

/* ---- preparation: all that needs the kernel ---- */

static struct postern_grant* receive_grant(const struct client* client, char* error, size_t size) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct postern_grant* grant;
    int connection;
    if (strlen(client->socket_path) >= sizeof address.sun_path)
        die(client, "%s: too long for a socket", client->socket_path);
    strcpy(address.sun_path, client->socket_path);
    connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (connection < 0 || connect(connection, (const struct sockaddr*)&address, sizeof address) < 0)
        die(client, "%s: %s", client->socket_path, strerror(errno));
    grant = postern_open_socket(connection, error, size);
    (void)close(connection);
    return grant;
}

static void attach_memory(struct client* client) {
    const struct postern_dma* queue = postern_get_dma(client->grant, "queue");
    char* memory = postern_map_dma(queue);
    if (!memory || queue->size < CLIENT_SIZE)
        die(client, "no dma memory \"queue\" in the grant, as nvme-server gives it");
    memcpy(&client->control, memory, sizeof client->control);
    if (client->control.magic != CLIENT_MAGIC || client->control.version != CLIENT_VERSION)
        die(client, "the queue was not set up by this version's nvme-server");
    if (client->control.lba_size < 512 || BLOCK_SIZE % client->control.lba_size != 0)
        die(client, "blocks of %u bytes", client->control.lba_size);
    client->blocks = client->control.lbas / (BLOCK_SIZE / client->control.lba_size);
    if (client->blocks == 0) die(client, "the disk is smaller than %d bytes", (int)BLOCK_SIZE);
    client->sq = (struct nvme_command*)(memory + CLIENT_SQ_OFFSET);
    client->cq = (const volatile struct nvme_completion*)(memory + CLIENT_CQ_OFFSET);
    client->data = (uint64_t*)(memory + CLIENT_DATA_OFFSET);
    client->data_iova = queue->iova + CLIENT_DATA_OFFSET;
}

static volatile char* doorbell_at(const struct client* client, const struct postern_window* window,
                                  volatile char* first, uint32_t offset) {
    if (offset < window->offset || offset + 4 > window->offset + window->length)
        die(client, "queue %u has a doorbell at 0x%x, outside window \"doorbell\"", client->control.queue,
            offset);
    return first + (offset - window->offset);
}

static void find_doorbells(struct client* client) {
    const struct postern_window* window = postern_get_window(client->grant, "doorbell");
    volatile char* first = postern_map_window(window, PROT_READ | PROT_WRITE);
    if (!first) die(client, "window \"doorbell\": %s", strerror(errno));
    client->sq_doorbell = doorbell_at(client, window, first, client->control.sq_doorbell);
    client->cq_doorbell = doorbell_at(client, window, first, client->control.cq_doorbell);
}

static void prepare(struct client* client) {
    char error[512];
    client->grant =
        client->socket_path ? receive_grant(client, error, sizeof error) : postern_open(error, sizeof error);
    if (!client->grant) die(client, "%s", error);
    attach_memory(client);
    find_doorbells(client);
    client->phase = 1;
    client->random = pattern_word(1 + (uint64_t)client->grant->slice);
    for (unsigned slot = client->depth; slot-- > 0;)
        client->free_slots[client->free_count++] = (uint16_t)slot;
    (void)mlockall(MCL_CURRENT); /* may be over the limit; a page fault is slow and no more */
}

/* ---- the loop ---- */

static void note(struct client* client, const char* what, uint64_t block, uint64_t detail) {
    if (client->trouble[0]) return;
    snprintf(client->trouble, sizeof client->trouble, "%s: block %" PRIu64 ": 0x%" PRIx64, what, block,
             detail);
}

static void submit(struct client* client, bool more) {
    const uint32_t lbas = BLOCK_SIZE / client->control.lba_size;
    bool any = false;
    while (more && client->free_count > 0 && (client->reads == 0 || client->submitted < client->reads)) {
        const uint16_t slot = client->free_slots[--client->free_count];
        struct nvme_command* command = &client->sq[client->tail];
        uint64_t* block = client->data + (size_t)slot * WORDS_PER_BLOCK;
        uint64_t lba;
        client->block_of[slot] = pattern_word(client->random++) % client->blocks; /* a fine generator, too */
        lba = client->block_of[slot] * lbas;
        /* What is left of the last read must not pass for this one's data. */
        for (unsigned word = 0; word < WORDS_PER_BLOCK; word += 64) block[word] = ~block[word];
        memset(command, 0, sizeof *command);
        command->opcode = NVME_READ;
        command->id = htole16(slot);
        command->nsid = htole32(client->control.nsid);
        command->prp1 = htole64(client->data_iova + (uint64_t)slot * BLOCK_SIZE);
        command->cdw[0] = htole32((uint32_t)lba);
        command->cdw[1] = htole32((uint32_t)(lba >> 32));
        command->cdw[2] = htole32(lbas - 1);
        client->tail = (uint16_t)((client->tail + 1) % QUEUE_ENTRIES);
        client->busy[slot] = true;
        client->submitted++;
        any = true;
    }
    if (!any) return;
    postern_dma_wmb(); /* the commands before the doorbell */
    postern_mmio_write32(client->sq_doorbell, client->tail);
}

/* Every byte. The differences are gathered first: no branch a word. */
static void verify(struct client* client, uint16_t slot) {
    const uint64_t* block = client->data + (size_t)slot * WORDS_PER_BLOCK;
    const uint64_t first = client->block_of[slot] * WORDS_PER_BLOCK;
    uint64_t difference = 0;
    for (unsigned word = 0; word < WORDS_PER_BLOCK; word++)
        difference |= le64toh(block[word]) ^ pattern_word(first + word);
    if (difference) {
        note(client, "wrong data", client->block_of[slot], difference);
    } else {
        client->verified++;
    }
}

static bool is_new(const struct client* client) {
    return (le16toh(client->cq[client->head].status) & 1U) == client->phase;
}

/* A quarter of the depth at most: the device then works on new reads while this side checks the rest. How
 * many. */
static unsigned reap(struct client* client) {
    const unsigned most = (client->depth + 3) / 4;
    unsigned count = 0;
    while (count < most && is_new(client) && !client->trouble[0]) {
        uint16_t slot;
        uint16_t status;
        postern_dma_rmb(); /* the phase before the rest */
        slot = le16toh(client->cq[client->head].id);
        status = le16toh(client->cq[client->head].status) >> 1 & 0x7ffU;
        client->head = (uint16_t)((client->head + 1) % QUEUE_ENTRIES);
        if (client->head == 0) client->phase ^= 1U;
        count++;
        if (slot >= client->depth || !client->busy[slot]) {
            note(client, "the device answers a command that it was not given", 0, slot);
            break;
        }
        client->busy[slot] = false;
        client->completed++;
        if (status) {
            note(client, "the device reports an error for a read", client->block_of[slot], status);
        } else {
            verify(client, slot);
        }
        client->free_slots[client->free_count++] = slot;
    }
    if (count > 0) postern_mmio_write32(client->cq_doorbell, client->head);
    return count;
}

static void read_blocks(struct client* client) {
    const double cycles_per_second = measure_cycles_per_second();
    const uint64_t begin = cycles();
    const uint64_t patience = (uint64_t)(PATIENCE_SECONDS * cycles_per_second);
    const uint64_t limit = client->seconds > 0 ? (uint64_t)(client->seconds * cycles_per_second) : UINT64_MAX;
    uint64_t now = begin;
    uint64_t progress = begin;
    while (!client->trouble[0]) {
        submit(client, now - begin < limit);
        if (client->completed == client->submitted) break;
        if (reap(client) > 0) {
            progress = now = cycles();
            continue;
        }
        relax();
        now = cycles();
        if (now - progress > patience)
            note(client, "no completion for 30 seconds", 0, client->submitted - client->completed);
    }
}

/* ---- the result ---- */

static void print_result(const struct client* client, double seconds) {
    const double rate = seconds > 0 ? (double)client->completed / seconds : 0;
    if (client->json) {
        printf("{\"slice\":%d,\"queue\":%u,\"depth\":%u,\"reads\":%" PRIu64 ",\"verified\":%" PRIu64
               ",\"seconds\":%.6f,\"reads_per_second\":%.1f}\n",
               client->grant->slice, client->control.queue, client->depth, client->completed,
               client->verified, seconds, rate);
    } else {
        printf("nvme-client: slice %d: queue %u: %" PRIu64 " reads of 4 KiB, %" PRIu64
               " verified, %.2f s, %.0f reads/s (depth %u)\n",
               client->grant->slice, client->control.queue, client->completed, client->verified, seconds,
               rate, client->depth);
    }
    (void)fflush(stdout);
}

static bool parse_options(struct client* client, int argc, char** argv) {
    static const struct option known[] = {
        {"reads", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 's'},
        {"depth", required_argument, NULL, 'd'},
        {"socket", required_argument, NULL, 'u'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int key;
    while ((key = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (key) {
            case 'n':
                client->reads = strtoull(optarg, NULL, 0);
                if (client->reads == 0) return false;
                break;
            case 's':
                client->seconds = strtod(optarg, NULL);
                if (!(client->seconds > 0 && client->seconds < 1e6)) return false;
                break;
            case 'd':
                client->depth = (unsigned)strtoul(optarg, NULL, 0);
                if (client->depth < 1 || client->depth > DEPTH_MAX) return false;
                break;
            case 'u':
                client->socket_path = optarg;
                break;
            case 'j':
                client->json = true;
                break;
            case 'h':
                usage(stdout);
                exit(0);
            default:
                return false;
        }
    }
    if (client->reads == 0 && client->seconds <= 0) client->reads = 20000;
    return optind == argc;
}

int main(int argc, char** argv) {
    static struct client client = {.depth = 32};
    double begin;
    (void)setvbuf(stderr, NULL, _IOLBF, 0); /* a message is one write: others share the terminal */
    if (!parse_options(&client, argc, argv)) {
        usage(stderr);
        return 2;
    }
    prepare(&client);
    begin = wall_seconds();
    read_blocks(&client);
    print_result(&client, wall_seconds() - begin);
    if (client.trouble[0]) die(&client, "%s", client.trouble);
    postern_close(client.grant);
    return 0;
}
