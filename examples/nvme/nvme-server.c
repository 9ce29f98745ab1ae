// SPDX-License-Identifier: Apache-2.0
/*
 * nvme-server: a driver of its own that keeps an NVMe controller's admin queue and gives I/O queue pairs away
 * with libpostern. Each client has its queues and buffers in memory of its own and rings its doorbells
 * itself: between the server's last word and the client's end nobody asks the server anything. See README.md
 * for what clients must be trusted with.
 *
 * Status: the worst of the clients' (--clients), 0 (--socket), 1 with a line on stderr if the server fails, 2
 * for a wrong command line.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <postern/libpostern.h>

#include "nvme_controller.h"
#include "nvme_layout.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

enum { CLIENTS_MAX = 16 };

static const uint64_t kAdminIova = 0x10000000;
static const uint64_t kClientIova = 0x20000000;
static const uint64_t kClientStride = 0x1000000;

struct slot {
    struct libpostern_memory memory;
    struct libpostern_grant* grant; /* NULL: free */
    bool has_queue;
    int pidfd;      /* of the client; of a launched one libpostern's */
    bool own_pidfd; /* of one that has connected */
};

struct server {
    const char* bdf;
    const char* profile_name;
    const char* socket_path;
    char** command;
    unsigned clients;
    bool restart;

    struct libpostern_context* postern;
    struct libpostern_profile* profile;
    struct libpostern_device* device;
    struct nvme nvme;
    struct slot slots[CLIENTS_MAX];
    int listener, signals;
    bool ending;
    int status; /* the worst so far */
};

static void usage(FILE* to) {
    fputs(
        "usage: nvme-server --device BDF [options] -- CMD [ARG...]\n"
        "       nvme-server --device BDF [options] --socket PATH\n"
        "  --clients N      sandboxed clients at once, 1 to 16 (default 1); with --socket: at most (default "
        "16)\n"
        "  --profile FILE   windows and sandbox (default: nvme-queue.json beside this program)\n"
        "  --restart        a client that a signal ended is started again, on the same slot\n"
        "  --socket PATH    grants go to whoever connects to this unix socket, instead\n"
        "SIGUSR1 revokes all grants; SIGTERM and SIGINT end all clients.\n",
        to);
}

__attribute__((format(printf, 1, 2))) static void say(const char* format, ...) {
    va_list list;
    fputs("nvme-server: ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
}

/* -1 with what libpostern says. */
static int complain(const char* what) {
    say("%s: %s", what, libpostern_error());
    return -1;
}

static unsigned queue_of(unsigned slot) {
    return slot + 1; /* 0 is the admin queue */
}

/* ---- one client's slot ---- */

static void fill_control(struct server* server, unsigned index) {
    const unsigned queue = queue_of(index);
    const struct nvme* nvme = &server->nvme;
    const struct client_control control = {.magic = CLIENT_MAGIC,
                                           .version = CLIENT_VERSION,
                                           .queue = queue,
                                           .nsid = NVME_NSID,
                                           .lba_size = nvme->lba_size,
                                           .sq_doorbell = nvme_sq_doorbell(nvme, queue),
                                           .cq_doorbell = nvme_cq_doorbell(nvme, queue),
                                           .lbas = nvme->lbas};
    /* Nothing of the last client: its data, and completions whose phase would pass for this one's. */
    memset(server->slots[index].memory.address, 0, CLIENT_SIZE);
    memcpy(server->slots[index].memory.address, &control, sizeof control);
}

static int make_grant(struct server* server, unsigned index) {
    struct slot* slot = &server->slots[index];
    struct libpostern_policy* policy = NULL;
    int failed;
    if (libpostern_policy_from_profile(&policy, server->profile, index)) return complain("policy");
    failed = libpostern_grant_new(server->postern, server->profile, index, &slot->grant) ||
             libpostern_grant_add_device(slot->grant, server->device, policy) ||
             libpostern_grant_add_dma(slot->grant, "queue", slot->memory.fd, slot->memory.size,
                                      slot->memory.iova, LIBPOSTERN_READ | LIBPOSTERN_WRITE);
    libpostern_policy_free(policy);
    return failed ? complain("grant") : 0;
}

/* After this the slot is as it was before its client: the queue deleted, so that nothing of it is in flight,
 * then its memory may be given again. */
static int close_slot(struct server* server, unsigned index) {
    struct slot* slot = &server->slots[index];
    int failed = 0;
    if (slot->grant && libpostern_grant_end(slot->grant)) failed = complain("end of a grant");
    slot->grant = NULL;
    if (slot->own_pidfd) (void)close(slot->pidfd);
    slot->own_pidfd = false;
    slot->pidfd = -1;
    if (slot->has_queue && nvme_delete_queue(&server->nvme, queue_of(index))) {
        say("slot %u: %s", index, server->nvme.error);
        failed = -1;
    }
    slot->has_queue = false;
    return failed;
}

static int open_slot(struct server* server, unsigned index) {
    struct slot* slot = &server->slots[index];
    fill_control(server, index);
    if (nvme_create_queue(&server->nvme, queue_of(index), slot->memory.iova)) {
        say("slot %u: %s", index, server->nvme.error);
        return -1;
    }
    slot->has_queue = true;
    if (make_grant(server, index) == 0) return 0;
    (void)close_slot(server, index);
    return -1;
}

static int launch(struct server* server, unsigned index) {
    struct slot* slot = &server->slots[index];
    if (open_slot(server, index)) return -1;
    if (libpostern_grant_launch(slot->grant, (const char* const*)server->command, NULL, &slot->pidfd)) {
        complain("launch");
        (void)close_slot(server, index);
        return -1;
    }
    say("slot %u: queue %u, grant %s: client runs", index, queue_of(index), libpostern_grant_id(slot->grant));
    return 0;
}

/* The client of the slot has ended. */
static int collect(struct server* server, unsigned index) {
    struct slot* slot = &server->slots[index];
    struct libpostern_exit how = {LIBPOSTERN_EXITED, 0};
    const bool launched = !slot->own_pidfd;
    bool again;
    if (launched && libpostern_grant_wait(slot->grant, -1, &how)) return complain("wait");
    if (close_slot(server, index)) return -1;
    again = launched && server->restart && !server->ending && how.reason != LIBPOSTERN_EXITED;
    if (launched) {
        say("slot %u: client ended with status %d; queue %u deleted%s", index, how.status, queue_of(index),
            again ? ", the slot is given again" : "");
    } else {
        say("slot %u: client is gone; queue %u deleted", index, queue_of(index));
    }
    if (again) return launch(server, index);
    if (how.status > server->status) server->status = how.status;
    return 0;
}

/* ---- clients that connect ---- */

static int peer_of(int connection) {
    int pidfd = -1;
    socklen_t size = sizeof pidfd;
    struct ucred who;
    if (getsockopt(connection, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0) return pidfd;
    /* Before Linux 6.5 by number: one that has ended since may be somebody else's by now. */
    size = sizeof who;
    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0) return -1;
    return (int)syscall(SYS_pidfd_open, who.pid, 0);
}

static void serve_connection(struct server* server) {
    const int connection = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
    unsigned index = 0;
    struct slot* slot;
    if (connection < 0) return;
    while (index < server->clients && server->slots[index].grant) index++;
    if (index == server->clients) {
        say("a client connected and all %u slots are taken", server->clients);
    } else if (open_slot(server, index) == 0) {
        slot = &server->slots[index];
        slot->pidfd = peer_of(connection);
        slot->own_pidfd = slot->pidfd >= 0;
        /* Moved into the grant's sandbox first: the kernel gives the guarded device to nobody else. */
        if (slot->pidfd < 0 || libpostern_grant_admit(slot->grant, slot->pidfd) ||
            libpostern_grant_vend(slot->grant, connection)) {
            if (slot->pidfd < 0) say("slot %u: who has connected? %s", index, strerror(errno));
            if (slot->pidfd >= 0) complain("vending");
            (void)close_slot(server, index);
        } else {
            say("slot %u: queue %u, grant %s: sent", index, queue_of(index),
                libpostern_grant_id(slot->grant));
        }
    }
    (void)close(connection);
}

static int listen_at(struct server* server) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(server->socket_path) >= sizeof address.sun_path) {
        say("%s: too long for a socket", server->socket_path);
        return -1;
    }
    strcpy(address.sun_path, server->socket_path);
    server->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (server->listener < 0 ||
        bind(server->listener, (const struct sockaddr*)&address, sizeof address) < 0 ||
        listen(server->listener, CLIENTS_MAX) < 0) {
        say("%s: %s", server->socket_path, strerror(errno));
        return -1;
    }
    return 0;
}

/* ---- the whole ---- */

static void handle_signal(struct server* server) {
    struct signalfd_siginfo info;
    if (read(server->signals, &info, sizeof info) != (ssize_t)sizeof info) return;
    if (info.ssi_signo != SIGUSR1) server->ending = true;
    for (unsigned i = 0; i < server->clients; i++) {
        if (!server->slots[i].grant) continue;
        if (info.ssi_signo != SIGUSR1) {
            if (libpostern_grant_kill(server->slots[i].grant)) complain("kill");
        } else if (libpostern_grant_revoke(server->slots[i].grant)) {
            complain("revoke");
        } else {
            say("slot %u: grant %s revoked", i, libpostern_grant_id(server->slots[i].grant));
        }
    }
}

static bool anyone_there(const struct server* server) {
    for (unsigned i = 0; i < server->clients; i++) {
        if (server->slots[i].grant) return true;
    }
    return false;
}

static int run(struct server* server) {
    while (anyone_there(server) || (server->listener >= 0 && !server->ending)) {
        struct pollfd fds[CLIENTS_MAX + 2];
        fds[0] = (struct pollfd){server->signals, POLLIN, 0};
        fds[1] = (struct pollfd){server->ending ? -1 : server->listener, POLLIN, 0};
        for (unsigned i = 0; i < server->clients; i++)
            fds[2 + i] = (struct pollfd){server->slots[i].grant ? server->slots[i].pidfd : -1, POLLIN, 0};
        if (poll(fds, 2 + server->clients, -1) < 0 && errno != EINTR) {
            say("poll: %s", strerror(errno));
            return -1;
        }
        for (unsigned i = 0; i < server->clients; i++) {
            if (fds[2 + i].revents && collect(server, i)) return -1;
        }
        if (fds[0].revents) handle_signal(server);
        if (fds[1].revents) serve_connection(server);
    }
    return 0;
}

static int block_signals(struct server* server) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0) return -1;
    server->signals = signalfd(-1, &set, SFD_CLOEXEC);
    return server->signals < 0 ? -1 : 0;
}

static int start(struct server* server) {
    if (block_signals(server)) {
        say("signals: %s", strerror(errno));
        return -1;
    }
    if (libpostern_new(&server->postern) || libpostern_profile_load(&server->profile, server->profile_name))
        return complain("profile");
    if (libpostern_profile_slices(server->profile) < server->clients) {
        say("profile %s has %u slices", server->profile_name, libpostern_profile_slices(server->profile));
        return -1;
    }
    say("weakened: all doorbells of an NVMe controller lie in one page, so each client can ring the others' "
        "and the admin queue's, "
        "and its commands reach all memory that is mapped for the controller; serve only clients that trust "
        "each other");
    if (libpostern_device_open(server->postern, server->bdf, &server->device) ||
        libpostern_device_enable(server->device))
        return complain("device");
    if (nvme_start(&server->nvme, server->device, kAdminIova, server->clients)) {
        say("%s: %s", server->bdf, server->nvme.error);
        return -1;
    }
    for (unsigned i = 0; i < server->clients; i++) {
        if (libpostern_device_dma_alloc(server->device, CLIENT_SIZE, kClientIova + i * kClientStride,
                                        LIBPOSTERN_READ | LIBPOSTERN_WRITE, &server->slots[i].memory))
            return complain("memory");
    }
    if (server->socket_path) return listen_at(server);
    for (unsigned i = 0; i < server->clients; i++) {
        if (launch(server, i)) return -1;
    }
    return 0;
}

static int stop(struct server* server) {
    int failed = 0;
    for (unsigned i = 0; i < server->clients; i++) failed |= close_slot(server, i);
    if (nvme_stop(&server->nvme)) {
        say("%s", server->nvme.error);
        failed = -1;
    }
    if (libpostern_free(server->postern)) failed = complain("end");
    libpostern_profile_free(server->profile);
    if (server->listener >= 0) (void)unlink(server->socket_path);
    return failed;
}

static bool parse_options(struct server* server, int argc, char** argv) {
    static const struct option known[] = {
        {"device", required_argument, NULL, 'd'},
        {"clients", required_argument, NULL, 'n'},
        {"profile", required_argument, NULL, 'p'},
        {"socket", required_argument, NULL, 's'},
        {"restart", no_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int key;
    while ((key = getopt_long(argc, argv, "+", known, NULL)) != -1) {
        switch (key) {
            case 'd':
                server->bdf = optarg;
                break;
            case 'n':
                server->clients = (unsigned)strtoul(optarg, NULL, 10);
                if (server->clients < 1 || server->clients > CLIENTS_MAX) return false;
                break;
            case 'p':
                server->profile_name = optarg;
                break;
            case 's':
                server->socket_path = optarg;
                break;
            case 'r':
                server->restart = true;
                break;
            case 'h':
                usage(stdout);
                exit(0);
            default:
                return false;
        }
    }
    server->command = argv + optind;
    if (server->clients == 0) server->clients = server->socket_path ? CLIENTS_MAX : 1;
    return server->bdf && (server->socket_path ? !*server->command : *server->command != NULL);
}

static const char* profile_beside_program(void) {
    static char path[PATH_MAX + 32];
    const ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
    char* slash = NULL;
    if (length > 0) {
        path[length] = '\0';
        slash = strrchr(path, '/');
    }
    strcpy(slash ? slash + 1 : path, "nvme-queue.json");
    return path;
}

int main(int argc, char** argv) {
    static struct server server = {.listener = -1, .signals = -1};
    int failed;
    (void)setvbuf(stderr, NULL, _IOLBF, 0); /* others share the terminal */
    for (unsigned i = 0; i < CLIENTS_MAX; i++) server.slots[i].pidfd = -1;
    server.profile_name = profile_beside_program();
    if (!parse_options(&server, argc, argv)) {
        usage(stderr);
        return 2;
    }
    failed = start(&server) || run(&server);
    if (stop(&server)) failed = 1;
    return failed ? 1 : server.status;
}
