// SPDX-License-Identifier: Apache-2.0
/**
 * /run/postern/shim CMD [ARG…]: in a container whose runtime cannot pass fds, fetches the grant that waits at
 * /run/postern/grant.sock, puts it where sd_listen_fds(3) says, and becomes CMD.
 *
 * It runs with the container's root file system, as whoever the container's process is: linked statically,
 * needs nothing but the socket. Status: 125 without a grant, 126 where CMD cannot be run, 127 where it is not
 * found.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/postern.h"

enum { NO_GRANT = 125, CANNOT_RUN = 126, NOT_FOUND = 127 };

static int fail(int status, const char* what, const char* why) {
    (void)fprintf(stderr, "postern: %s: %s\n", what, why);
    return status;
}

/* How many fds from 3 on are free. Those that the container was started with are its own: the grant's must
 * not take their place. */
static int free_fds(void) {
    int count = 0;
    while (count < POSTERN_SOCKET_FDS_ && fcntl(POSTERN_FIRST_FD + count, F_GETFD) < 0) count++;
    return count;
}

/* The grant's fds to 3, 4, … in the order of their names, left open for CMD. Both passes matter: a source may
 * stand where another is to go. */
static int place(const struct postern_grant* grant) {
    size_t i;
    const int first_free = POSTERN_FIRST_FD + (int)grant->fd_count;
    for (i = 0; i < grant->fd_count; i++) {
        const int fd = fcntl(grant->fds[i].fd, F_DUPFD_CLOEXEC, first_free);
        if (fd < 0) return -1;
        (void)close(grant->fds[i].fd);
        grant->fds[i].fd = fd;
    }
    for (i = 0; i < grant->fd_count; i++) {
        if (dup2(grant->fds[i].fd, POSTERN_FIRST_FD + (int)i) < 0) return -1;
        (void)close(grant->fds[i].fd);
        grant->fds[i].fd = POSTERN_FIRST_FD + (int)i;
    }
    return 0;
}

static int tell(const struct postern_grant* grant) {
    char number[24];
    size_t i;
    size_t room = 1;
    char* names;
    int failed;
    for (i = 0; i < grant->fd_count; i++) room += strlen(grant->fds[i].name) + 1;
    names = (char*)calloc(1, room);
    if (!names) return -1;
    for (i = 0; i < grant->fd_count; i++) {
        if (i > 0) (void)strcat(names, ":");
        (void)strcat(names, grant->fds[i].name);
    }
    failed = setenv("LISTEN_FDNAMES", names, 1);
    free(names);
    (void)snprintf(number, sizeof number, "%lu", (unsigned long)grant->fd_count);
    if (failed || setenv("LISTEN_FDS", number, 1)) return -1;
    (void)snprintf(number, sizeof number, "%ld", (long)getpid());
    return setenv("LISTEN_PID", number, 1);
}

int main(int argc, char** argv) {
    char why[512];
    struct postern_grant* grant;
    int room;
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        (void)fprintf(
            argc < 2 ? stderr : stdout,
            "usage: /run/postern/shim CMD [ARG...]\n"
            "Fetches the grant of this container from %s and becomes CMD, which finds it\n"
            "by LISTEN_FDS. Status 125: there is no grant; 126, 127: CMD cannot be run, is not found.\n",
            POSTERN_GRANT_SOCKET);
        return argc < 2 ? NO_GRANT : 0;
    }
    if (getenv("LISTEN_FDS"))
        return fail(NO_GRANT, "shim",
                    "LISTEN_FDS is set: fds were passed to this program by somebody else already");
    room = free_fds(); /* before anything is opened here */
    grant = postern_open_path(POSTERN_GRANT_SOCKET, why, sizeof why);
    if (!grant) {
        (void)fprintf(stderr, "%s\n", why);
        return NO_GRANT;
    }
    if ((size_t)room < grant->fd_count) {
        (void)snprintf(why, sizeof why,
                       "fd %d is open already, and a place of the grant's %lu fds from 3 on; start the "
                       "container without "
                       "--preserve-fds, or let the program fetch its grant itself (postern.h)",
                       POSTERN_FIRST_FD + room, (unsigned long)grant->fd_count);
        return fail(NO_GRANT, "shim", why);
    }
    if (place(grant) || tell(grant)) return fail(NO_GRANT, "shim", strerror(errno));
    (void)execvp(argv[1], argv + 1);
    {
        const int error = errno;
        return fail(error == ENOENT || error == ENOTDIR ? NOT_FOUND : CANNOT_RUN, argv[1], strerror(error));
    }
}
