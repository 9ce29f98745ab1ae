// SPDX-License-Identifier: Apache-2.0
/**
 * /proc/self/fd/N CMD [ARG…]: becomes CMD with LISTEN_PID as its own process ID (sd_listen_fds(3)), which
 * nobody knows before in a container that has no pid namespace of its own. postern-crun passes this program
 * as the fd N, which is closed; it runs with the container's root file system, as whoever the container's
 * process is, so it is linked statically. Status: 126 where CMD cannot be run, 127 where it is not found.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CANNOT_RUN = 126, NOT_FOUND = 127 };

int main(int argc, char** argv) {
    static const char own[] = "/proc/self/fd/";
    char number[24];
    int error;
    if (argc < 2 || strncmp(argv[0], own, sizeof own - 1) != 0) {
        (void)fprintf(stderr, "postern: listen-pid is postern-crun's, to start a container's command\n");
        return CANNOT_RUN;
    }
    (void)close(atoi(argv[0] + sizeof own - 1));
    (void)snprintf(number, sizeof number, "%ld", (long)getpid());
    if (setenv("LISTEN_PID", number, 1)) {
        (void)fprintf(stderr, "postern: LISTEN_PID: %s\n", strerror(errno));
        return CANNOT_RUN;
    }
    (void)execvp(argv[1], argv + 1);
    error = errno;
    (void)fprintf(stderr, "postern: %s: %s\n", argv[1], strerror(error));
    return error == ENOENT || error == ENOTDIR ? NOT_FOUND : CANNOT_RUN;
}
