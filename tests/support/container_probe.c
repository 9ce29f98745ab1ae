// SPDX-License-Identifier: Apache-2.0
/**
 * container-probe [--vfio NODE:NODE…] [CMD [ARG…]]: what a container's process was started with, as one line
 * of JSON on stdout: its pid, the variables of sd_listen_fds(3), each open fd and what it is, user,
 * capabilities, seccomp; with --vfio also what each node of VFIO's or iommufd's that it opens itself answers
 * (0, or -errno). Then it is CMD. Linked statically, so that it runs in any image.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
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

int main(int argc, char** argv) {
    const int with_vfio = argc > 2 && strcmp(argv[1], "--vfio") == 0;
    char** command = argv + (with_vfio ? 3 : 1);
    (void)printf("{\"pid\": %ld, \"uid\": %ld, \"terminal\": %s", (long)getpid(), (long)getuid(),
                 isatty(STDIN_FILENO) ? "true" : "false");
    print_variable("LISTEN_FDS");
    print_variable("LISTEN_FDNAMES");
    print_variable("LISTEN_PID");
    print_fds();
    print_status("CapEff");
    print_status("Seccomp");
    if (with_vfio) {
        (void)printf(", \"vfio\": {");
        for (char* node = strtok(argv[2], ":"); node; node = strtok(NULL, ":"))
            (void)printf("%s\"%s\": %d", node == argv[2] ? "" : ", ", node, ask_vfio(node));
        (void)printf("}");
    }
    (void)printf("}\n");
    (void)fflush(stdout);
    if (!*command) return 0;
    (void)execvp(*command, command);
    (void)fprintf(stderr, "container-probe: %s: %s\n", *command, strerror(errno));
    return 127;
}
