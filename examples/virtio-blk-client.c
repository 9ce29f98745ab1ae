// SPDX-License-Identifier: Apache-2.0
/*
 * virtio-blk-client: reads a virtio-blk device through one of its queues, and checks every byte that it gets.
 * It has a doorbell page and DMA memory (profile virtio-blk-queue) and no other way to the disk: it writes
 * descriptors, rings the doorbell and polls its ring. Between its first and its last completion it makes no
 * system call, unless it is asked to wait for interrupts (then read(2) of the eventfd only), to report, or to
 * go through virtio-blk-proxy.
 *
 * Status: 0 if every read came back and was right, 1 with a line on stderr if not, 2 for a wrong command
 * line.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "cycles.h"
#include "postern.h"
#include "virtio_blk_layout.h"
#include "virtio_queue.h"

enum { PATIENCE_SECONDS = 30, WORDS_PER_BLOCK = BLOCK_SIZE / 8 };

enum wait_mode { WAIT_POLL, WAIT_IRQ, WAIT_PROXY };

struct options {
    uint64_t reads; /* 0: no limit */
    double seconds; /* 0: no limit */
    double report;  /* 0: no reports */
    uint64_t seed;  /* 0: from the slice */
    unsigned depth;
    enum wait_mode wait;
    int proxy; /* socket to virtio-blk-proxy */
    bool sequential;
    bool json;
    bool mark;
    const char* image;
};

/* The first thing that went wrong; told after the loop, which must not print. */
struct trouble {
    const char* what; /* NULL: nothing yet */
    uint64_t sector, got, wanted;
    unsigned word;
};

struct client {
    struct options options;
    struct postern_grant* grant;
    const struct postern_irq* irq;
    struct virtio_queue queue;
    struct control_block control;
    struct request_block* requests;
    uint64_t* data;           /* WORDS_PER_BLOCK words a slot */
    const uint64_t* expected; /* of the whole disk; NULL: compute the pattern */
    volatile void* doorbell;
    uint16_t announced; /* used index as the proxy last told it */

    uint64_t blocks; /* of the disk */
    uint64_t random;
    uint64_t next_block; /* when sequential */
    uint16_t free_slots[DEPTH_MAX];
    unsigned free_count;
    bool busy[DEPTH_MAX];

    uint64_t submitted, completed, verified, errors, doorbells, system_calls;
    struct trouble trouble;
    bool broken; /* the queue can no longer be trusted: leave without waiting for what is in flight */

    uint64_t patience, spin, deadline, report_interval, next_report, last_progress; /* cycles */
    double cycles_per_second;
};

static void usage(FILE* to) {
    fputs(
        "usage: virtio-blk-client [options]     (started by postern run --profile virtio-blk-queue)\n"
        "  --reads N           stop after N reads of 4 KiB (default 20000 without --seconds)\n"
        "  --seconds S         stop after S seconds\n"
        "  --depth D           reads in flight, 1 to 85 (default 32)\n"
        "  --wait poll|irq     poll the used ring (default), or wait for the interrupt's eventfd\n"
        "  --pattern random|sequential   which blocks (default random)\n"
        "  --seed N            of the random blocks\n"
        "  --image FILE|-      compare with this image (-: standard input) instead of the test pattern\n"
        "  --report S          a line on stdout every S seconds\n"
        "  --json              one line of JSON at the end\n"
        "  --mark              \"begin\" and \"end\" on stderr around the loop\n"
        "  --proxy FD          doorbell and completions by messages with virtio-blk-proxy on this socket\n",
        to);
}

__attribute__((format(printf, 2, 3), noreturn)) static void die(const struct client* client,
                                                                const char* format, ...) {
    va_list list;
    fputs("virtio-blk-client: ", stderr);
    if (client->grant) fprintf(stderr, "slice %d: ", client->grant->slice);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

/* ---- options ---- */

static bool parse_count(const char* text, uint64_t least, uint64_t most, uint64_t* value) {
    char* end;
    errno = 0;
    *value = strtoull(text, &end, 0);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && *value >= least && *value <= most;
}

static bool parse_seconds(const char* text, double* value) {
    char* end;
    *value = strtod(text, &end);
    return end != text && *end == '\0' && *value > 0 && *value < 1e6;
}

static bool parse_option(struct options* options, int key, const char* value) {
    uint64_t number;
    switch (key) {
        case 'n':
            return parse_count(value, 1, UINT64_MAX, &options->reads);
        case 's':
            return parse_seconds(value, &options->seconds);
        case 'r':
            return parse_seconds(value, &options->report);
        case 'x':
            return parse_count(value, 1, UINT64_MAX, &options->seed);
        case 'i':
            options->image = value;
            return true;
        case 'j':
            options->json = true;
            return true;
        case 'm':
            options->mark = true;
            return true;
        case 'd':
            if (!parse_count(value, 1, DEPTH_MAX, &number)) return false;
            options->depth = (unsigned)number;
            return true;
        case 'P':
            if (!parse_count(value, 0, INT32_MAX, &number)) return false;
            options->proxy = (int)number;
            options->wait = WAIT_PROXY;
            return true;
        case 'w':
            if (strcmp(value, "poll") != 0 && strcmp(value, "irq") != 0) return false;
            if (options->proxy < 0) options->wait = strcmp(value, "irq") == 0 ? WAIT_IRQ : WAIT_POLL;
            return true;
        case 'p':
            options->sequential = strcmp(value, "sequential") == 0;
            return options->sequential || strcmp(value, "random") == 0;
        default:
            return false;
    }
}

/* 0, or the status to leave with. */
static int parse_options(struct options* options, int argc, char** argv, bool* help) {
    static const struct option known[] = {
        {"reads", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 's'},
        {"depth", required_argument, NULL, 'd'},
        {"wait", required_argument, NULL, 'w'},
        {"image", required_argument, NULL, 'i'},
        {"report", required_argument, NULL, 'r'},
        {"pattern", required_argument, NULL, 'p'},
        {"seed", required_argument, NULL, 'x'},
        {"proxy", required_argument, NULL, 'P'},
        {"json", no_argument, NULL, 'j'},
        {"mark", no_argument, NULL, 'm'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int key;
    int index = 0;
    while ((key = getopt_long(argc, argv, "", known, &index)) != -1) {
        if (key == 'h') {
            *help = true;
            return 0;
        }
        if (key == '?') return 2;
        if (!parse_option(options, key, optarg)) {
            fprintf(stderr, "virtio-blk-client: --%s %s: not a value for it; see --help\n", known[index].name,
                    optarg);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "virtio-blk-client: %s: takes no arguments; see --help\n", argv[optind]);
        return 2;
    }
    if (options->reads == 0 && options->seconds == 0) options->reads = 20000;
    return 0;
}

/* ---- preparation: all that needs the kernel ---- */

/* The whole image in memory, so that comparing needs no more of the kernel than a page fault. */
static void load_image(struct client* client) {
    const char* name = client->options.image;
    const int fd = strcmp(name, "-") == 0 ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
    const uint64_t size = client->blocks * BLOCK_SIZE;
    struct stat status;
    void* image;
    if (fd < 0 || fstat(fd, &status) < 0) die(client, "image %s: %s", name, strerror(errno));
    if ((uint64_t)status.st_size < size) {
        die(client, "image %s has %lld bytes and the disk %" PRIu64, name, (long long)status.st_size, size);
    }
    image = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (image == MAP_FAILED) die(client, "image %s: mmap: %s", name, strerror(errno));
    client->expected = image;
    if (fd != STDIN_FILENO) (void)close(fd);
}

static void find_doorbell(struct client* client) {
    const struct postern_window* window = postern_get_window(client->grant, "doorbell");
    const uint64_t offset = client->control.notify_offset;
    volatile void* first;
    if (!window) die(client, "no window \"doorbell\" in the grant; use --profile virtio-blk-queue");
    if (window->region != client->control.notify_region || offset < window->offset ||
        offset + 2 > window->offset + window->length) {
        die(client, "queue %u has its doorbell at 0x%" PRIx64 ", outside window \"doorbell\"",
            client->control.queue, offset);
    }
    first = postern_map_window(window, PROT_WRITE);
    if (!first) die(client, "mapping of window \"doorbell\": %s", strerror(errno));
    client->doorbell = (volatile char*)first + (offset - window->offset);
}

static void attach_memory(struct client* client) {
    const struct postern_dma* ring = postern_get_dma(client->grant, "ring");
    char* memory;
    if (!ring) die(client, "no dma memory \"ring\" in the grant; use --profile virtio-blk-queue");
    if (ring->size < LAYOUT_SIZE) die(client, "dma memory \"ring\" is too small");
    memory = postern_map_dma(ring);
    if (!memory) die(client, "mapping of dma memory \"ring\": %s", strerror(errno));
    memcpy(&client->control, memory + CONTROL_OFFSET, sizeof client->control);
    const struct control_block* control = &client->control;
    if (control->magic != CONTROL_MAGIC || control->version != CONTROL_VERSION) {
        die(client, "the queue was not set up by this version's virtio-blk-setup");
    }
    if (control->queue_size < DESCRIPTORS_PER_READ || control->queue_size > QUEUE_SIZE_MAX ||
        (control->queue_size & (control->queue_size - 1)) != 0 || control->capacity < SECTORS_PER_BLOCK ||
        control->capacity > UINT64_MAX / SECTOR_SIZE) {
        die(client, "the control block is damaged: queue size %u, capacity %" PRIu64, control->queue_size,
            control->capacity);
    }
    client->blocks = control->capacity / SECTORS_PER_BLOCK;
    client->requests = (struct request_block*)(memory + REQUESTS_OFFSET);
    client->data = (uint64_t*)(memory + DATA_OFFSET);
    queue_attach(&client->queue, memory, control->queue_size);
    if (client->options.depth > control->queue_size / DESCRIPTORS_PER_READ) {
        client->options.depth = control->queue_size / DESCRIPTORS_PER_READ;
    }
}

/* Chains never change: slot s is descriptors 3s, 3s+1, 3s+2. Only the sector in the header does. */
static void write_descriptors(struct client* client) {
    const uint64_t iova = postern_get_dma(client->grant, "ring")->iova;
    for (unsigned slot = 0; slot < client->options.depth; slot++) {
        const uint16_t head = (uint16_t)(slot * DESCRIPTORS_PER_READ);
        const uint64_t request = iova + REQUESTS_OFFSET + slot * sizeof(struct request_block);
        queue_set_descriptor(&client->queue, head, request, offsetof(struct request_block, status),
                             VRING_DESC_F_NEXT, (uint16_t)(head + 1));
        queue_set_descriptor(&client->queue, (uint16_t)(head + 1),
                             iova + DATA_OFFSET + (uint64_t)slot * BLOCK_SIZE, BLOCK_SIZE,
                             VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, (uint16_t)(head + 2));
        queue_set_descriptor(&client->queue, (uint16_t)(head + 2),
                             request + offsetof(struct request_block, status), 1, VRING_DESC_F_WRITE, 0);
        client->requests[slot].type = htole32(VIRTIO_BLK_T_IN);
        client->requests[slot].priority = 0;
        client->free_slots[client->free_count++] = (uint16_t)slot;
    }
}

static void ignore_signal(int number) {
    (void)number;
}

/* A read(2) of the eventfd would block for ever on a dead device: a timer ends it, so that the loop can look.
 */
static void start_watchdog(void) {
    struct sigaction action;
    const struct itimerval every = {{PATIENCE_SECONDS, 0}, {PATIENCE_SECONDS, 0}};
    memset(&action, 0, sizeof action);
    action.sa_handler = ignore_signal; /* and no SA_RESTART */
    (void)sigaction(SIGALRM, &action, NULL);
    (void)setitimer(ITIMER_REAL, &every, NULL);
}

static void prepare_waiting(struct client* client) {
    const struct timeval patience = {PATIENCE_SECONDS, 0};
    switch (client->options.wait) {
        case WAIT_POLL:
            break;
        case WAIT_IRQ:
            client->irq = postern_get_irq(client->grant, "vq");
            if (!client->irq) die(client, "no irq \"vq\" in the grant; use --wait poll");
            start_watchdog();
            break;
        case WAIT_PROXY:
            if (setsockopt(client->options.proxy, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0) {
                die(client, "--proxy %d: %s", client->options.proxy, strerror(errno));
            }
            return; /* the proxy decides whether it wants interrupts */
    }
    queue_want_interrupts(&client->queue, client->options.wait == WAIT_IRQ);
}

static void prepare_clock(struct client* client) {
    const struct options* options = &client->options;
    client->cycles_per_second = measure_cycles_per_second();
    client->patience = (uint64_t)(PATIENCE_SECONDS * client->cycles_per_second);
    client->spin = (uint64_t)(PROXY_SPIN_MICROSECONDS * 1e-6 * client->cycles_per_second);
    client->report_interval = (uint64_t)(options->report * client->cycles_per_second);
    client->last_progress = cycles();
    client->deadline = options->seconds > 0
                           ? cycles() + (uint64_t)(options->seconds * client->cycles_per_second)
                           : UINT64_MAX;
    client->next_report = options->report > 0 ? cycles() + client->report_interval : UINT64_MAX;
}

/* ---- the loop ---- */

static void note(struct client* client, const char* what, uint64_t sector, unsigned word, uint64_t got,
                 uint64_t wanted) {
    client->errors++;
    if (client->trouble.what) return;
    client->trouble = (struct trouble){what, sector, got, wanted, word};
}

static void give_up(struct client* client, const char* what, uint64_t detail) {
    note(client, what, 0, 0, detail, 0);
    client->broken = true;
}

static bool send_kick(struct client* client) {
    const struct proxy_message message = {PROXY_KICK, client->queue.avail_next, 0};
    client->system_calls++;
    if (send(client->options.proxy, &message, sizeof message, MSG_NOSIGNAL) == (ssize_t)sizeof message)
        return true;
    give_up(client, "the proxy is gone", 0);
    return false;
}

static void ring_doorbell(struct client* client) {
    client->doorbells++;
    if (client->options.wait == WAIT_PROXY) {
        (void)send_kick(client);
    } else {
        postern_mmio_write16(client->doorbell, client->control.queue);
    }
}

static uint64_t choose_block(struct client* client) {
    if (client->options.sequential) {
        const uint64_t block = client->next_block++;
        if (client->next_block == client->blocks) client->next_block = 0;
        return block;
    }
    client->random++;
    return pattern_word(client->random) % client->blocks; /* a fine generator, whatever else it is used for */
}

static bool more_to_submit(const struct client* client, uint64_t now) {
    return client->errors == 0 && now < client->deadline &&
           (client->options.reads == 0 || client->submitted < client->options.reads);
}

/* Fills the queue; the doorbell is rung once for all. */
static void submit(struct client* client, uint64_t now) {
    bool any = false;
    while (client->free_count > 0 && more_to_submit(client, now)) {
        const uint16_t slot = client->free_slots[--client->free_count];
        uint64_t* block = client->data + (size_t)slot * WORDS_PER_BLOCK;
        client->requests[slot].sector = htole64(choose_block(client) * SECTORS_PER_BLOCK);
        client->requests[slot].status = 0xff;
        /* What is left of the last read must not pass for this one's data. */
        for (unsigned word = 0; word < WORDS_PER_BLOCK; word += SECTOR_SIZE / 8) block[word] = ~block[word];
        client->busy[slot] = true;
        queue_offer(&client->queue, (uint16_t)(slot * DESCRIPTORS_PER_READ));
        client->submitted++;
        any = true;
    }
    if (any && queue_publish(&client->queue)) ring_doorbell(client);
}

static uint64_t expected_word(const struct client* client, uint64_t index) {
    return client->expected ? le64toh(client->expected[index]) : pattern_word(index);
}

/* Every byte. The differences are gathered first: no branch a word. */
static void verify(struct client* client, unsigned slot) {
    const uint64_t sector = le64toh(client->requests[slot].sector);
    const uint64_t first = sector * (SECTOR_SIZE / 8);
    const uint64_t* block = client->data + (size_t)slot * WORDS_PER_BLOCK;
    uint64_t difference = 0;
    if (client->requests[slot].status != VIRTIO_BLK_S_OK) {
        note(client, "the device reports an error for a read", sector, 0, client->requests[slot].status, 0);
        return;
    }
    if (client->expected) {
        difference = memcmp(block, client->expected + first, BLOCK_SIZE) != 0;
    } else {
        for (unsigned word = 0; word < WORDS_PER_BLOCK; word++) {
            difference |= le64toh(block[word]) ^ pattern_word(first + word);
        }
    }
    if (difference == 0) {
        client->verified++;
        return;
    }
    for (unsigned word = 0; word < WORDS_PER_BLOCK; word++) {
        const uint64_t wanted = expected_word(client, first + word);
        if (le64toh(block[word]) != wanted) {
            note(client, "wrong data", sector, word, le64toh(block[word]), wanted);
            return;
        }
    }
    note(client, "data that changed while it was looked at", sector, 0, 0, 0);
}

/* How far the device is, by its ring or, as somebody without a polled ring would know it, by the proxy's
 * word. */
static uint16_t used_index(const struct client* client) {
    return client->options.wait == WAIT_PROXY ? client->announced : queue_used_index(&client->queue);
}

/* Takes back what the device has used, at most a quarter of the depth: the device then works on new reads
 * while this side checks the rest. How many. */
static unsigned reap(struct client* client) {
    const unsigned most = (client->options.depth + 3) / 4;
    const uint16_t used = used_index(client);
    unsigned count = 0;
    postern_dma_rmb(); /* the index before what it announces */
    while (client->queue.used_next != used && count < most && !client->broken) {
        uint32_t length;
        const uint32_t head = queue_take(&client->queue, &length);
        const uint32_t slot = head / DESCRIPTORS_PER_READ;
        if (head % DESCRIPTORS_PER_READ != 0 || slot >= client->options.depth || !client->busy[slot]) {
            give_up(client, "the device returned a descriptor that it was not given", head);
            break;
        }
        client->busy[slot] = false;
        client->free_slots[client->free_count++] = (uint16_t)slot;
        client->completed++;
        if (length != BLOCK_SIZE + 1) {
            note(client, "a read of the wrong length", le64toh(client->requests[slot].sector), 0, length,
                 BLOCK_SIZE + 1);
        } else {
            verify(client, slot);
        }
        count++;
    }
    return count;
}

static bool nothing_used(const struct client* client) {
    return used_index(client) == client->queue.used_next;
}

static bool out_of_patience(struct client* client) {
    if (cycles() - client->last_progress < client->patience) return false;
    give_up(client, "no completion for 30 seconds", client->submitted - client->completed);
    return true;
}

static void poll_ring(struct client* client) {
    for (unsigned spins = 1; nothing_used(client); spins++) {
        relax();
        if (spins % 1024 == 0 && out_of_patience(client)) return;
    }
}

static void wait_for_interrupt(struct client* client) {
    queue_want_interrupts(&client->queue, true);
    while (nothing_used(client)) {
        client->system_calls++;
        if (postern_irq_wait(client->irq, NULL) == 0) continue;
        if (errno != EINTR) {
            give_up(client, "read of the eventfd failed", (uint64_t)errno);
            break;
        }
        if (nothing_used(client) && out_of_patience(client)) break;
    }
    queue_want_interrupts(&client->queue, false); /* not while this side is awake */
}

/* Asks a while without blocking, as the proxy does on its side, before it sleeps: neither is made to look
 * slow. */
static void wait_for_proxy(struct client* client) {
    const uint64_t begin = cycles();
    while (nothing_used(client)) {
        const int flags = cycles() - begin < client->spin ? MSG_DONTWAIT : 0;
        struct proxy_message message;
        ssize_t got;
        client->system_calls++;
        got = recv(client->options.proxy, &message, sizeof message, flags);
        if (got == (ssize_t)sizeof message && message.type == PROXY_COMPLETED) {
            const uint16_t ahead = (uint16_t)(message.index - client->queue.used_next);
            if (ahead <= client->submitted - client->completed) client->announced = message.index;
            continue;
        }
        if (got < 0 && (errno == EINTR || (errno == EAGAIN && flags))) continue;
        give_up(client, got < 0 && errno == EAGAIN ? "no completion for 30 seconds" : "the proxy is gone",
                client->submitted - client->completed);
        return;
    }
}

static void wait_for_completion(struct client* client) {
    switch (client->options.wait) {
        case WAIT_POLL:
            poll_ring(client);
            break;
        case WAIT_IRQ:
            wait_for_interrupt(client);
            break;
        case WAIT_PROXY:
            wait_for_proxy(client);
            break;
    }
}

static void report(struct client* client, uint64_t now) {
    static uint64_t completed_before;
    const double seconds =
        (double)(now - client->next_report + client->report_interval) / client->cycles_per_second;
    char line[128];
    const int size =
        snprintf(line, sizeof line, "slice=%d completions=%" PRIu64 " rate=%.0f\n", client->grant->slice,
                 client->completed, (double)(client->completed - completed_before) / seconds);
    completed_before = client->completed;
    client->next_report = now + client->report_interval;
    client->system_calls++;
    if (write(STDOUT_FILENO, line, (size_t)size) < 0) client->next_report = UINT64_MAX; /* nobody listens */
}

static void read_blocks(struct client* client) {
    uint64_t now = cycles();
    client->last_progress = now;
    client->announced = client->queue.used_next;
    while (!client->broken) {
        submit(client, now);
        if (client->completed == client->submitted) break;
        if (reap(client) > 0) {
            now = cycles();
            client->last_progress = now;
            if (now >= client->next_report) report(client, now);
        } else if (!client->broken) {
            wait_for_completion(client);
        }
    }
}

/* An earlier client of this slice may have been killed with reads in flight: they must land before this
 * one's. */
static void drain(struct client* client) {
    const double begin = wall_seconds();
    if (queue_used_index(&client->queue) == client->queue.avail_next) return;
    ring_doorbell(client);
    while (queue_used_index(&client->queue) != client->queue.avail_next) {
        relax();
        if (wall_seconds() - begin > PATIENCE_SECONDS) {
            die(client, "an earlier client's reads never ended; the device needs a reset");
        }
    }
    client->queue.used_next = client->queue.avail_next;
    client->doorbells = 0;
    client->system_calls = 0;
    if (client->broken) die(client, "%s", client->trouble.what);
}

/* ---- the result ---- */

static void print_result(const struct client* client, double seconds) {
    static const char* const waits[] = {"poll", "irq", "proxy"};
    const char* wait = waits[client->options.wait];
    const double rate = seconds > 0 ? (double)client->completed / seconds : 0;
    if (client->options.json) {
        printf("{\"slice\":%d,\"queue\":%u,\"depth\":%u,\"wait\":\"%s\",\"pattern\":\"%s\",\"reads\":%" PRIu64
               ",\"verified\":%" PRIu64 ",\"errors\":%" PRIu64
               ",\"seconds\":%.6f,\"reads_per_second\":%.1f,\"doorbells\":%" PRIu64
               ",\"system_calls\":%" PRIu64 "}\n",
               client->grant->slice, client->control.queue, client->options.depth, wait,
               client->options.sequential ? "sequential" : "random", client->completed, client->verified,
               client->errors, seconds, rate, client->doorbells, client->system_calls);
    } else {
        printf("virtio-blk-client: slice %d: %" PRIu64 " reads of 4 KiB, %" PRIu64
               " verified, %.2f s, %.0f reads/s (depth %u, %s, %" PRIu64 " doorbells, %" PRIu64
               " system calls in the loop)\n",
               client->grant->slice, client->completed, client->verified, seconds, rate,
               client->options.depth, wait, client->doorbells, client->system_calls);
    }
    (void)fflush(stdout);
}

/* The first trouble, if there was one, ends the program. */
static void explain(const struct client* client) {
    const struct trouble* trouble = &client->trouble;
    if (!trouble->what) return;
    if (client->broken) {
        die(client, "%s (%" PRIu64 "); completed %" PRIu64 " of %" PRIu64 " reads", trouble->what,
            trouble->got, client->completed, client->submitted);
    }
    die(client,
        "%s: sector %" PRIu64 " word %u is 0x%" PRIx64 ", expected 0x%" PRIx64 "; %" PRIu64 " of %" PRIu64
        " reads are wrong",
        trouble->what, trouble->sector, trouble->word, trouble->got, trouble->wanted, client->errors,
        client->completed);
}

static void mark(const struct client* client, const char* text) {
    if (client->options.mark && write(STDERR_FILENO, text, strlen(text)) < 0) return;
}

static void prepare(struct client* client) {
    char error[512];
    client->grant = postern_open(error, sizeof error);
    if (!client->grant) die(client, "%s", error);
    attach_memory(client);
    if (client->options.wait != WAIT_PROXY) find_doorbell(client);
    if (client->options.image) load_image(client);
    prepare_waiting(client);
    drain(client);
    write_descriptors(client);
    client->random = client->options.seed ? client->options.seed : 1 + (uint64_t)client->grant->slice;
    client->random = pattern_word(client->random);
    (void)mlockall(MCL_CURRENT); /* may be over the limit; a page fault is slow and no more */
}

int main(int argc, char** argv) {
    static struct client client = {.options = {.depth = 32, .proxy = -1}};
    bool help = false;
    double begin;
    double seconds;
    int wrong;
    (void)setvbuf(stderr, NULL, _IOLBF, 0); /* a message is one write: others share the terminal */
    wrong = parse_options(&client.options, argc, argv, &help);
    if (wrong) return wrong;
    if (help) {
        usage(stdout);
        return 0;
    }
    prepare(&client);
    prepare_clock(&client);
    begin = wall_seconds();
    mark(&client, "begin\n");
    read_blocks(&client);
    mark(&client, "end\n");
    seconds = wall_seconds() - begin;
    print_result(&client, seconds);
    explain(&client);
    postern_close(client.grant);
    return 0;
}
