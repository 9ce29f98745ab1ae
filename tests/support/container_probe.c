// SPDX-License-Identifier: Apache-2.0
/**
 * container-probe [--vfio NODE:NODE…] [--trace PID:PID…] [CMD [ARG…]]: what a container's process was started
 * with, as one line of JSON on stdout: its pid, the variables of sd_listen_fds(3), each open fd and what it
 * is, user, capabilities, seccomp; with --vfio also what each node of VFIO's or iommufd's that it opens
 * itself answers (0, or -errno), with --trace what each process does of which it would be the tracer or have
 * a file. Then it is CMD. Linked statically, so that it runs in any image.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

static void print_text(const char* text) {
    (void)putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\' || (unsigned char)*text < 0x20) {
            (void)printf("\\u%04x", (unsigned char)*text);
        } else {
            (void)putchar(*text);
        }
    }
    (void)putchar('"');
}

static void print_variable(const char* name) {
    const char* value = getenv(name);
    (void)printf(", \"%s\": ", name);
    if (value) {
        print_text(value);
    } else {
        (void)printf("null");
    }
}

static void print_fds(void) {
    DIR* folder = opendir("/proc/self/fd");
    const struct dirent* entry;
    const char* comma = "";
    (void)printf(", \"fds\": {");
    while (folder && (entry = readdir(folder))) {
        char target[256];
        const int fd = atoi(entry->d_name);
        ssize_t size;
        if (entry->d_name[0] == '.' || fd == dirfd(folder)) continue;
        size = readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1);
        target[size < 0 ? 0 : size] = '\0';
        (void)printf("%s\"%d\": ", comma, fd);
        print_text(target);
        comma = ", ";
    }
    (void)printf("}");
    if (folder) (void)closedir(folder);
}

/* A line of /proc/self/status. */
static void print_status(const char* key) {
    FILE* file = fopen("/proc/self/status", "re");
    char line[256];
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) != 0 || line[strlen(key)] != ':') continue;
        line[strcspn(line, "\n")] = '\0';
        (void)printf(", \"%s\": ", key);
        print_text(line + strlen(key) + 1 + strspn(line + strlen(key) + 1, "\t "));
    }
    if (file) (void)fclose(file);
}

static int ask_vfio(const char* node) {
    const int fd = open(node, O_RDWR | O_CLOEXEC);
    int answer;
    if (fd < 0) return -errno;
    answer = ioctl(fd, VFIO_GET_API_VERSION);
    if (answer < 0) answer = -errno;
    (void)close(fd);
    return answer;
}

/* The first that goes wrong of a file of another process and of tracing it; both are let go of at once. */
static int ask_trace(const char* number) {
    const pid_t pid = (pid_t)atol(number);
    const int process = (int)syscall(SYS_pidfd_open, pid, 0);
    int taken;
    if (process < 0) return -errno;
    taken = (int)syscall(SYS_pidfd_getfd, process, 0, 0);
    (void)close(process);
    if (taken < 0) return -errno;
    (void)close(taken);
    if (ptrace(PTRACE_SEIZE, pid, 0L, 0L) != 0) return -errno;
    /* It cannot be detached from while it runs; this process's end does it. */
    return 0;
}

static void print_answers(const char* name, char* words, int (*ask)(const char*)) {
    const char* comma = "";
    (void)printf(", \"%s\": {", name);
    for (char* word = strtok(words, ":"); word; word = strtok(NULL, ":")) {
        (void)printf("%s\"%s\": %d", comma, word, ask(word));
        comma = ", ";
    }
    (void)printf("}");
}

int main(int argc, char** argv) {
    char* nodes = NULL;
    char* processes = NULL;
    char** command = argv + (argc > 0 ? 1 : 0);
    while (command[0] && command[1] && strncmp(command[0], "--", 2) == 0) {
        *(strcmp(command[0], "--vfio") == 0 ? &nodes : &processes) = command[1];
        command += 2;
    }
    (void)printf("{\"pid\": %ld, \"uid\": %ld, \"terminal\": %s", (long)getpid(), (long)getuid(),
                 isatty(STDIN_FILENO) ? "true" : "false");
    print_variable("LISTEN_FDS");
    print_variable("LISTEN_FDNAMES");
    print_variable("LISTEN_PID");
    print_fds();
    print_status("CapEff");
    print_status("Seccomp");
    if (nodes) print_answers("vfio", nodes, ask_vfio);
    if (processes) print_answers("trace", processes, ask_trace);
    (void)printf("}\n");
    (void)fflush(stdout);
    if (!*command) return 0;
    (void)execvp(*command, command);
    (void)fprintf(stderr, "container-probe: %s: %s\n", *command, strerror(errno));
    return 127;
}
