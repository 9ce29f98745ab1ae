// SPDX-License-Identifier: Apache-2.0
// bare-launcher ROOT FILTER CMD [ARG…]: the floor of `postern bench launch`. The same sandbox as the others',
// by the same steps, an init that reaps among them, and by the shortest way: it parses nothing, tells nothing
// of why it failed but the call, and takes no signals. Not a launcher to use.

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// sys/mount.h has some of linux/mount.h again, otherwise.
int mount(const char* source, const char* target, const char* type, unsigned long flags, const void* data);
int umount2(const char* target, int flags);
#define MS_REC_PRIVATE (16384UL | (1UL << 18))
#define MNT_DETACH_ALL 2
#define CLIENT_ID "65534"
#define CLIENT_NUMBER 65534

static struct sock_filter filter[BPF_MAXINSNS];

static void need(long result, const char* what) {
    if (result >= 0) return;
    perror(what);
    _exit(125);
}

static void write_map(pid_t pid, const char* name) {
    static const char map[] = CLIENT_ID " " CLIENT_ID " 1";
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    const int file = open(path, O_WRONLY | O_CLOEXEC);
    need(file, path);
    need(write(file, map, sizeof map - 1), path);
    close(file);
}

/// A new file system of `type`, attached at `target`.
static void mount_new(const char* type, const char* mode, unsigned attributes, const char* target) {
    const int fs = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
    need(fs, "fsopen");
    if (mode != NULL) need(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "mode", mode, 0), "fsconfig");
    need(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), "fsconfig");
    const int tree = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes);
    need(tree, "fsmount");
    need(syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH), "move_mount");
    close(tree);
    close(fs);
}

static void make_root(const char* root) {
    need(mount(NULL, "/", NULL, MS_REC_PRIVATE, NULL), "mount");
    const int tree =
        (int)syscall(SYS_open_tree, AT_FDCWD, root, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    need(tree, root);
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    need(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes),
         "mount_setattr");
    need(syscall(SYS_move_mount, tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH), "move_mount");
    need(fchdir(tree), "fchdir");
    mount_new("proc", NULL, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, "proc");
    mount_new("tmpfs", "1777", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, "tmp");
    need(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    need(umount2(".", MNT_DETACH_ALL), "umount2");
    need(chdir("/"), "chdir");
    close(tree);
}

static void drop_bounding_set(void) {
    for (int capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; ++capability) {
    }
}

static void drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    need(syscall(SYS_capset, &header, none), "capset");
}

/// Scopes of Linux 6.12 for abstract sockets and signals, where the kernel has them.
static void enter_landlock(void) {
    const struct { unsigned long long handled_access_fs, handled_access_net, scoped; } rules = {0, 0, 3};
    const int ruleset = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
    if (ruleset < 0) return;
    need(syscall(SYS_landlock_restrict_self, ruleset, 0), "landlock_restrict_self");
    close(ruleset);
}

/// Pid 1 of the sandbox, with nothing open and no rights.
_Noreturn static void be_init(pid_t client) {
    need(syscall(SYS_close_range, 0, ~0U, 0), "close_range");
    need(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl");
    drop_capabilities();
    int status = 0;
    while (waitpid(-1, &status, 0) != client) {
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int main(int argc, char** argv) {
    if (argc < 4) {
        fputs("usage: bare-launcher ROOT FILTER CMD [ARG…]\n", stderr);
        return 125;
    }
    const int file = open(argv[2], O_RDONLY | O_CLOEXEC);
    need(file, argv[2]);
    const ssize_t size = read(file, filter, sizeof filter);
    need(size, argv[2]);
    close(file);
    int go[2];
    need(pipe2(go, O_CLOEXEC), "pipe2");

    struct clone_args arguments = {
        .flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
        .exit_signal = SIGCHLD,
    };
    const pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    need(pid, "clone3");
    if (pid > 0) {
        write_map(pid, "uid_map");
        write_map(pid, "gid_map");
        need(write(go[1], "g", 1), "write");
        int status = 0;
        while (waitpid(pid, &status, 0) < 0) {
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    need(syscall(SYS_unshare, CLONE_NEWCGROUP), "unshare");
    char byte;
    need(read(go[0], &byte, 1), "read");
    need(syscall(SYS_setgroups, 0, NULL), "setgroups");
    need(syscall(SYS_setresgid, CLIENT_NUMBER, CLIENT_NUMBER, CLIENT_NUMBER), "setresgid");
    need(syscall(SYS_setresuid, CLIENT_NUMBER, CLIENT_NUMBER, CLIENT_NUMBER), "setresuid");
    make_root(argv[1]);
    need(sethostname("postern", 7), "sethostname");
    drop_bounding_set();
    need(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "prctl");
    const pid_t client = vfork();
    need(client, "vfork");
    if (client > 0) be_init(client);
    need(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "prctl");
    need(setsid(), "setsid");
    need(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL), "keyctl");
    need(syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC), "close_range");
    need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
    enter_landlock();
    drop_capabilities();
    const struct sock_fprog program = {(unsigned short)((size_t)size / sizeof filter[0]), filter};
    need(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), "seccomp");
    char* environment[] = {"PATH=/usr/bin:/bin", NULL};
    execve(argv[3], argv + 3, environment);
    need(-1, argv[3]);
}
