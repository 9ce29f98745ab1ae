// SPDX-License-Identifier: Apache-2.0
// Names that lead to the host: its root file system, its secrets, its switches in /proc and /sys, its
// sockets.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "broker-core/scope_guard.h"
#include "broker-core/unique_fd.h"
#include "tests/hostile/device_ops.h"
#include "tests/hostile/paths.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

const std::vector<int> kHiddenOrReadOnly{EROFS, ENOENT, ENOTDIR, ENXIO};

Attempt create_in(std::span<const std::string> folders) {
    return try_each(folders, "no such folder", [](const std::string& folder) {
        const std::string path = folder + "/.hostile-client";
        const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
        Attempt attempt = judged(fd.get(), folder.c_str());
        if (fd) unlink(path.c_str());
        return attempt;
    });
}

Attempt open_each(std::span<const std::string> paths, int flags) {
    return try_each(paths, "no such file", [flags](const std::string& path) {
        const UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC));
        return judged(fd.get(), path.c_str());
    });
}

Attempt read_each(std::span<const std::string> paths) {
    return try_each(paths, "no such file", [](const std::string& path) {
        const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!fd) return judged(-1, path.c_str());
        char byte = 0;
        return judged(read(fd.get(), &byte, 1), path.c_str());
    });
}

Attempt create_and_remove(const Target&) {
    const std::string folder = scratch_folder();
    if (folder.empty()) return judged(-1);
    const std::string inside[] = {folder};
    Attempt attempt = create_in(inside);
    rmdir(folder.c_str());
    return attempt;
}

Attempt read_status(const Target&) {
    const std::string path[] = {"/proc/self/status"};
    return read_each(path);
}

/// A file of this process that it may write: /proc is writable where the kernel allows it.
Attempt write_own_proc(const Target&) {
    const std::string path[] = {"/proc/self/comm"};
    return open_each(path, O_WRONLY);
}

/// `budget`: how many more entries are looked at. Somebody's source trees in the host's /tmp would take
/// longer than a probe may; a sandbox's is empty.
bool visit_sockets(const std::string& folder, unsigned depth, unsigned& budget, const Visit& visit) {
    for (const std::string& path : entries_of(folder)) {
        if (budget == 0) return false;
        --budget;
        struct stat status {};
        if (lstat(path.c_str(), &status) != 0) continue;
        if (S_ISSOCK(status.st_mode) && visit(path)) return true;
        if (S_ISDIR(status.st_mode) && depth > 0 && visit_sockets(path, depth - 1, budget, visit))
            return true;
    }
    return false;
}

Attempt make_cgroup(const Target&) {
    const std::string folders[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
    return try_each(folders, "no such folder", [](const std::string& folder) {
        const std::string path = folder + "/hostile-client";
        Attempt attempt = judged(mkdir(path.c_str(), 0700), folder.c_str());
        rmdir(path.c_str());
        return attempt;
    });
}

/// Outside there must be a socket to be found.
UniqueFd listen_outside(const Target& target, std::string& path) {
    UniqueFd fd;
    if (!target.outside) return fd;
    fd.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path = fmt::format("/tmp/hostile-client-{}", getpid());
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        listen(fd.get(), 1) != 0) {
        fd.reset();
    }
    return fd;
}

/// A read-only mount does not keep anybody from connecting to a socket in it.
Attempt connect_to_sockets(const Target& target) {
    std::string own;
    const UniqueFd listener = listen_outside(target, own);
    const ScopeGuard remove([&own] {
        if (!own.empty()) unlink(own.c_str());
    });
    std::vector<std::string> known{"/run/systemd/private", "/run/dbus/system_bus_socket",
                                   "/run/postern/broker.sock"};
    if (!own.empty()) known.push_back(own);
    const auto search = [&known](const Visit& visit) {
        if (std::any_of(known.begin(), known.end(), visit)) return;
        for (const char* folder : {"/run", "/var/run", "/tmp"}) {
            unsigned budget = 2000;
            if (visit_sockets(folder, 3, budget, visit)) return;
        }
    };
    return try_found(search, "no socket in sight", [](const std::string& path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path.size() >= sizeof address.sun_path) return nothing("the path is too long");
        std::memcpy(address.sun_path, path.c_str(), path.size());
        Attempt last = failed(ENOENT);
        for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
            const UniqueFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
            if (!fd) return judged(-1, "socket");
            last = judged(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
                          path.c_str());
            if (last.state == Attempt::State::Succeeded) return last;
        }
        // Nobody listens: as good as absent.
        return last.errnum == ECONNREFUSED || last.errnum == EPROTOTYPE ? failed(ENOENT, path) : last;
    });
}

Attempt connect_own_socket(const Target&) {
    int ends[2];
    return judged(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
}

/// Files that say that somebody may write to them, but for those of processes.
bool visit_writable(const std::string& folder, unsigned& budget, const Visit& visit) {
    for (const std::string& path : entries_of(folder)) {
        const std::string name = path.substr(path.rfind('/') + 1);
        // The one asks at the write for a capability, the other's files are for everybody to watch with.
        if (path == "/proc/sys/kernel/ns_last_pid" || path == "/proc/pressure") continue;
        if (folder == "/proc" && name.find_first_not_of("0123456789") == std::string::npos) continue;
        struct stat status {};
        if (budget == 0 || lstat(path.c_str(), &status) != 0) continue;
        --budget;
        if (S_ISDIR(status.st_mode) && visit_writable(path, budget, visit)) return true;
        if (S_ISREG(status.st_mode) && (status.st_mode & 0222) != 0 && visit(path)) return true;
    }
    return false;
}

Attempt open_any_switch(const Target&) {
    const auto search = [](const Visit& visit) {
        for (const char* folder : {"/proc", "/sys"}) {
            unsigned budget = 50'000;
            if (visit_writable(folder, budget, visit)) return;
        }
    };
    return try_found(search, "no such file", [](const std::string& path) {
        const UniqueFd fd(open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
        return judged(fd.get(), path.c_str());
    });
}

struct FileProbe {
    const char* name;
    const char* what;
    std::vector<std::string> paths;
    int flags;  ///< of open(2); O_RDONLY: read a byte too; O_CREAT: create a file in the folders
    const char* why = "";
};

}  // namespace

void add_file_probes(Probes& probes) {
    const Control create_control{"a new file in /tmp", create_and_remove};
    const Control read_control{"read of /proc/self/status", read_status};
    const Control write_control{"open of /proc/self/comm for writing", write_own_proc};
    const char* not_here = "this machine has none";
    const FileProbe files[] = {
        {"root-write",
         "a new file in /, /usr, /etc, /var, /root or /home",
         {"/", "/usr", "/etc", "/var", "/root", "/home", "/opt", "/boot"},
         O_CREAT},
        {"etc-passwd-write", "open of /etc/passwd for writing", {"/etc/passwd"}, O_RDWR},
        {"etc-shadow-read", "read of /etc/shadow", {"/etc/shadow"}, O_RDONLY},
        {"proc-core-pattern",
         "open of core_pattern, modprobe or uevent_helper for writing",
         {"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/sys/kernel/uevent_helper"},
         O_WRONLY},
        {"proc-sys-write",
         "open of kernel and vm sysctls for writing",
         {"/proc/sys/kernel/printk", "/proc/sys/vm/overcommit_memory", "/proc/sys/fs/file-max",
          "/proc/sys/kernel/randomize_va_space"},
         O_WRONLY},
        {"sysrq-trigger", "open of /proc/sysrq-trigger for writing", {"/proc/sysrq-trigger"}, O_WRONLY},
        {"proc-kcore", "read of /proc/kcore", {"/proc/kcore"}, O_RDONLY, not_here},
        {"proc-kmsg", "open of /proc/kmsg", {"/proc/kmsg"}, O_RDONLY | O_NONBLOCK, not_here},
        {"proc-irq",
         "open of interrupt affinities for writing",
         {"/proc/irq/default_smp_affinity", "/proc/irq/0/smp_affinity"},
         O_WRONLY,
         not_here},
        {"cgroup-procs",
         "open of the root cgroup's cgroup.procs for writing",
         {"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs"},
         O_WRONLY,
         not_here},
        {"cgroup-limits",
         "open of its own cgroup's limits for writing",
         {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/cgroup.subtree_control",
          "/sys/fs/cgroup/unified/cgroup.subtree_control"},
         O_WRONLY,
         not_here},
        {"tracing",
         "open of tracefs for writing",
         {"/sys/kernel/tracing/kprobe_events", "/sys/kernel/tracing/trace_marker",
          "/sys/kernel/debug/tracing/trace_marker"},
         O_WRONLY,
         not_here},
        {"sysfs-kernel",
         "open of sysfs switches for writing",
         {"/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state", "/sys/kernel/profiling"},
         O_WRONLY,
         not_here},
        {"efi-vars", "a file in the firmware's variables", {"/sys/firmware/efi/efivars"}, O_CREAT, not_here},
    };
    for (const FileProbe& file : files) {
        const bool creates = file.flags == O_CREAT;
        const bool reads = file.flags == O_RDONLY;
        Probe probe{.name = file.name,
                    .group = "files",
                    .what = file.what,
                    .attempt =
                        [paths = file.paths, flags = file.flags, creates, reads](const Target&) {
                            if (creates) return create_in(paths);
                            return reads ? read_each(paths) : open_each(paths, flags);
                        },
                    .control = creates ? create_control
                               : reads ? read_control
                                       : write_control,
                    .refusals = kHiddenOrReadOnly};
        if (*file.why != '\0') {
            probe.inherent = {ENOENT, EPERM, EACCES, EROFS};
            probe.inherent_why = file.why;
        }
        probes.push_back(std::move(probe));
    }
    probes.push_back({.name = "any-switch",
                      .group = "files",
                      .what = "open of anything in /proc and /sys for writing",
                      .attempt = open_any_switch,
                      .control = write_control,
                      .refusals = kHiddenOrReadOnly});
    probes.push_back({.name = "cgroup-make",
                      .group = "files",
                      .what = "mkdir of a cgroup",
                      .attempt = make_cgroup,
                      .control = create_control,
                      .refusals = kHiddenOrReadOnly});
    probes.push_back({.name = "host-sockets",
                      .group = "files",
                      .what = "connect to systemd, D-Bus and any socket in /run and /tmp",
                      .attempt = connect_to_sockets,
                      .control = {"socketpair", connect_own_socket},
                      .refusals = kHiddenOrReadOnly});
}

}  // namespace postern::hostile
