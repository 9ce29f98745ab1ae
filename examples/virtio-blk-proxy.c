// SPDX-License-Identifier: Apache-2.0
/*
 * virtio-blk-proxy [--spin MICROSECONDS] -- CLIENT [ARG…]: what a device costs whose doorbell belongs to
 * somebody else. It takes the grant, starts the client (virtio-blk-client) with a grant of the DMA memory
 * alone and `--proxy FD`, and then rings the doorbell at each message of the client, and tells it of each
 * completion by a message.
 *
 * It is as good at that as such a process can be: it polls the ring and the socket, sleeps (on both, by
 * interrupt) only after a while without anything, and says at once how far the device is. Its status is the
 * client's; 1 if it fails itself.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cycles.h"
#include "postern.h"
#include "virtio_blk_layout.h"
#include "virtio_queue.h"

/* Where the client's fds are: the grant's two, and the socket behind them. */
enum { CLIENT_MANIFEST = POSTERN_FIRST_FD, CLIENT_RING, CLIENT_SOCKET };

struct proxy {
    struct postern_grant* grant;
    const struct postern_irq* irq;
    struct virtio_queue queue;
    uint16_t queue_index;
    uint16_t announced; /* used index as the client was last told */
    volatile void* doorbell;
    int socket;
    uint64_t spin; /* cycles without an event before it sleeps */
};

static int complain(const char* what) {
    fprintf(stderr, "virtio-blk-proxy: %s\n", what);
    return 1;
}

static int complain_errno(const char* what) {
    fprintf(stderr, "virtio-blk-proxy: %s: %s\n", what, strerror(errno));
    return 1;
}

static int attach(struct proxy* proxy) {
    const struct postern_dma* ring = postern_get_dma(proxy->grant, "ring");
    const struct postern_window* window = postern_get_window(proxy->grant, "doorbell");
    const struct control_block* control;
    volatile char* first;
    char* memory;
    proxy->irq = postern_get_irq(proxy->grant, "vq");
    if (!ring || !window || !proxy->irq) {
        return complain(
            "window \"doorbell\", dma \"ring\" or irq \"vq\" is not in the grant; use --profile "
            "virtio-blk-queue");
    }
    if (ring->size < LAYOUT_SIZE) return complain("dma memory \"ring\" is too small");
    memory = postern_map_dma(ring);
    if (!memory) return complain_errno("mapping of dma memory \"ring\"");
    control = (const struct control_block*)(memory + CONTROL_OFFSET);
    if (control->magic != CONTROL_MAGIC || control->version != CONTROL_VERSION || control->queue_size == 0 ||
        control->queue_size > QUEUE_SIZE_MAX) {
        return complain("the queue was not set up by this version's virtio-blk-setup");
    }
    if (window->region != control->notify_region || control->notify_offset < window->offset ||
        control->notify_offset + 2 > window->offset + window->length) {
        return complain("the queue's doorbell is outside window \"doorbell\"");
    }
    first = postern_map_window(window, PROT_WRITE);
    if (!first) return complain_errno("mapping of window \"doorbell\"");
    proxy->doorbell = first + (control->notify_offset - window->offset);
    proxy->queue_index = control->queue;
    queue_attach(&proxy->queue, memory, control->queue_size);
    proxy->announced = proxy->queue.used_next;
    return 0;
}

/* A manifest of the same slice with the memory and nothing else, in a memfd. -1 with errno. */
static int make_manifest(const struct postern_grant* grant) {
    const struct postern_dma* ring = postern_get_dma(grant, "ring");
    const int fd = memfd_create("manifest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -1;
    if (dprintf(fd,
                "{\"postern\":1,\"grant\":\"proxy\",\"slice\":%d,\"fds\":{\"manifest\":%d,\"dma.ring\":%d},"
                "\"windows\":[],\"dma\":[{\"name\":\"ring\",\"size\":%" PRIu64 ",\"iova\":%" PRIu64
                ",\"access\":\"rw\",\"fd\":\"dma.ring\"}],\"irqs\":[],\"ioctls\":[]}",
                grant->slice, CLIENT_MANIFEST, CLIENT_RING, ring->size, ring->iova) < 0) {
        return -1;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) return -1;
    return fd;
}

/* In the child: fds to their places, the environment, exec. Returns only if that fails. */
static int exec_client(int manifest, int ring, int socket, char** command, int words) {
    const int sources[] = {manifest, ring, socket};
    int above[3];
    char number[16];
    char** argv = calloc((size_t)words + 3, sizeof *argv);
    if (!argv) return complain_errno("starting the client");
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) return complain_errno("PR_SET_PDEATHSIG");
    memcpy(argv, command, (size_t)words * sizeof *argv);
    (void)snprintf(number, sizeof number, "%d", CLIENT_SOCKET);
    argv[words] = "--proxy";
    argv[words + 1] = number;
    /* First out of the way: a source may be where another one has to go. */
    for (int i = 0; i < 3; i++) {
        above[i] = fcntl(sources[i], F_DUPFD_CLOEXEC, CLIENT_SOCKET + 1);
        if (above[i] < 0) return complain_errno("passing fds to the client");
    }
    for (int i = 0; i < 3; i++) {
        if (dup2(above[i], CLIENT_MANIFEST + i) < 0) return complain_errno("passing fds to the client");
    }
    (void)snprintf(number, sizeof number, "%d", (int)getpid());
    if (setenv("LISTEN_FDS", "2", 1) < 0 || setenv("LISTEN_PID", number, 1) < 0 ||
        setenv("LISTEN_FDNAMES", "manifest:dma.ring", 1) < 0) {
        return complain_errno("starting the client");
    }
    (void)snprintf(number, sizeof number, "%d", CLIENT_SOCKET);
    (void)execvp(argv[0], argv);
    return complain_errno(argv[0]);
}

/* Starts the client; its pid, or -1 after a message. */
static pid_t start_client(struct proxy* proxy, char** command, int words) {
    int ends[2];
    pid_t pid;
    const int manifest = make_manifest(proxy->grant);
    if (manifest < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        complain_errno("starting the client");
        return -1;
    }
    pid = fork();
    if (pid < 0) complain_errno("fork");
    if (pid == 0) {
        (void)exec_client(manifest, postern_get_dma(proxy->grant, "ring")->fd, ends[1], command, words);
        _exit(127);
    }
    (void)close(manifest);
    (void)close(ends[1]); /* so that the socket ends when the client does */
    proxy->socket = ends[0];
    return pid;
}

/* Tells the client how far the device is, if that is news. */
static bool announce(struct proxy* proxy) {
    const uint16_t used = queue_used_index(&proxy->queue);
    const struct proxy_message message = {PROXY_COMPLETED, used, 0};
    if (used == proxy->announced) return false;
    proxy->announced = used;
    /* A client that is gone is seen by receive(). */
    (void)send(proxy->socket, &message, sizeof message, MSG_NOSIGNAL);
    return true;
}

enum received { NOTHING, KICK, CLIENT_GONE };

static enum received receive(const struct proxy* proxy) {
    struct proxy_message message;
    const ssize_t got = recv(proxy->socket, &message, sizeof message, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return NOTHING;
    if (got != (ssize_t)sizeof message || message.type != PROXY_KICK) return CLIENT_GONE;
    postern_mmio_write16(proxy->doorbell, proxy->queue_index);
    return KICK;
}

/* Until the client or the device does something. Always on both: a client does not ring while the device is
 * awake. */
static bool sleep_on_both(struct proxy* proxy) {
    struct pollfd sources[2] = {{proxy->socket, POLLIN, 0}, {proxy->irq->fd, POLLIN, 0}};
    uint64_t count;
    bool ok = true;
    queue_want_interrupts(&proxy->queue, true);
    if (queue_used_index(&proxy->queue) == proxy->announced) {
        ok = poll(sources, 2, -1) >= 0 || errno == EINTR;
        if (sources[1].revents & POLLIN)
            ok = ok && read(proxy->irq->fd, &count, sizeof count) == (ssize_t)sizeof count;
    }
    queue_want_interrupts(&proxy->queue, false);
    return ok;
}

static int serve(struct proxy* proxy) {
    uint64_t last_event = cycles();
    queue_want_interrupts(&proxy->queue, false);
    for (unsigned turn = 0;; turn++) {
        bool event = announce(proxy);
        /* Looking at the ring is a load, looking at the socket a system call: not every time. */
        if (turn % 16 == 0) {
            const enum received received = receive(proxy);
            if (received == CLIENT_GONE) return 0;
            event = event || received == KICK;
        }
        if (event) {
            last_event = cycles();
        } else if (cycles() - last_event > proxy->spin) {
            if (!sleep_on_both(proxy)) return complain_errno("waiting for the device");
            last_event = cycles();
            turn = UINT32_MAX; /* the next turn looks at the socket */
        } else {
            relax();
        }
    }
}

/* The whole of it; the status to leave with. */
static int run(struct proxy* proxy, char** command, int words, unsigned long spin_microseconds) {
    int status;
    pid_t pid;
    if (attach(proxy)) return 1;
    proxy->spin = (uint64_t)((double)spin_microseconds * 1e-6 * measure_cycles_per_second());
    pid = start_client(proxy, command, words);
    if (pid < 0 || serve(proxy)) return 1;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) return complain_errno("waitpid");
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int argc, char** argv) {
    static const struct option known[] = {
        {"spin", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    static const char usage[] = "usage: virtio-blk-proxy [--spin MICROSECONDS] -- CLIENT [ARG…]\n";
    struct proxy proxy;
    char error[512];
    char* end;
    unsigned long spin = PROXY_SPIN_MICROSECONDS;
    int key;
    int status;
    (void)setvbuf(stderr, NULL, _IOLBF, 0); /* a message is one write: others share the terminal */
    memset(&proxy, 0, sizeof proxy);
    while ((key = getopt_long(argc, argv, "+", known, NULL)) != -1) {
        if (key == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        if (key == '?') return 2;
        spin = strtoul(optarg, &end, 10);
        if (*optarg < '0' || *optarg > '9' || *end || spin > 1000000) {
            fprintf(stderr, "virtio-blk-proxy: --spin %s: not 0 to 1000000 microseconds\n", optarg);
            return 2;
        }
    }
    if (optind == argc) {
        fputs(usage, stderr);
        return 2;
    }
    proxy.grant = postern_open(error, sizeof error);
    if (!proxy.grant) return complain(error);
    status = run(&proxy, argv + optind, argc - optind, spin);
    postern_close(proxy.grant);
    return status;
}
