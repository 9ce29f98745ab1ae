// SPDX-License-Identifier: Apache-2.0
#include "launcher/cgroup.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "broker-core/scope_guard.h"
#include "launcher/cgroup_path.h"

namespace postern {
namespace {

/// inode number of the first cgroup namespace, PROC_CGROUP_INIT_INO of include/linux/proc_ns.h.
constexpr ino_t kFirstCgroupNamespace = 0xEFFFFFFB;

std::string read_file(const std::string& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

/// 0 or errno.
int write_at(int folder, const std::string& name, std::string_view value) {
    const UniqueFd file(::openat(folder, name.c_str(), O_WRONLY | O_CLOEXEC));
    if (!file) return errno;
    return ::write(file.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size()) ? 0 : errno;
}

bool holds_word(const std::string& words, std::string_view word) {
    std::istringstream stream(words);
    for (std::string each; stream >> each;) {
        if (each == word) return true;
    }
    return false;
}

/// Whether the kernel would make a threaded domain of this cgroup if it enabled a controller in it. The root
/// of the hierarchy, which has no type, may hold processes and limit its children as well.
bool holds_processes_below_root(const std::string& folder) {
    return ::access((folder + "/cgroup.type").c_str(), F_OK) == 0 &&
           !read_file(folder + "/cgroup.procs").empty();
}

/// Lets children of `parent` have `controller`. It stays enabled: other launches, and whoever made a cgroup
/// here since, may limit by it, and the kernel would drop their limits without a word.
Status enable_controller(const std::string& parent, std::string_view controller) {
    if (holds_word(read_file(parent + "/cgroup.subtree_control"), controller)) return {};
    if (!holds_word(read_file(parent + "/cgroup.controllers"), controller)) {
        return fail(
            "{}: controller {} is not there; it may be bound to a cgroup v1 hierarchy, or not be delegated "
            "to this cgroup: boot with cgroup v2 alone, or start with systemd-run --scope -p Delegate=yes",
            parent, controller);
    }
    if (::access((parent + "/cgroup.subtree_control").c_str(), W_OK) != 0) {
        return fail(
            "{}: controller {} cannot be enabled, for this cgroup is not delegated to the launcher: start it "
            "with systemd-run --user --scope -p Delegate=yes",
            parent, controller);
    }
    // Asked, not tried: memory is refused with EBUSY, but cpu and pids would be enabled, and no process can
    // be born in a cgroup below from then on, with limits or without.
    if (holds_processes_below_root(parent)) {
        return fail(
            "{}: controller {} cannot be enabled while processes (postern is one) are in this cgroup itself; "
            "let systemd limit it all (systemd-run -p MemoryMax=1G postern …), or start postern from the "
            "root cgroup",
            parent, controller);
    }
    const UniqueFd folder(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const int errnum = write_at(folder.get(), "cgroup.subtree_control", fmt::format("+{}", controller));
    if (errnum == 0) return {};
    return fail_errno(errnum, "{}: enabling controller {}", parent, controller);
}

/// Removes what launchers that were killed left below `parent`: empty cgroups, named after a launcher that is
/// gone. One that has members yet is not removed by rmdir(2), and its turn comes with the next launch.
void sweep(const std::string& parent) {
    std::error_code code;
    for (const auto& entry : std::filesystem::directory_iterator(parent, code)) {
        const std::string name = entry.path().filename().string();
        constexpr std::string_view kPrefix = "postern-";
        if (!name.starts_with(kPrefix)) continue;
        pid_t launcher = 0;
        const char* digits = name.c_str() + kPrefix.size();
        const auto [end, error] = std::from_chars(digits, name.c_str() + name.size(), launcher);
        if (error != std::errc{} || (*end != '-' && *end != '\0')) continue;
        if (::kill(launcher, 0) != 0 && errno == ESRCH) ::rmdir(entry.path().c_str());
    }
}

Result<std::uint64_t> cgroup_id(int folder) {
    // The handle of a cgroup is its 64-bit id (kernfs, since Linux 5.5).
    union {
        file_handle handle;
        unsigned char space[sizeof(file_handle) + MAX_HANDLE_SZ];
    } buffer = {};
    buffer.handle.handle_bytes = MAX_HANDLE_SZ;
    int mount_id = 0;
    if (::name_to_handle_at(folder, "", &buffer.handle, &mount_id, AT_EMPTY_PATH) != 0) {
        const int errnum = errno;
        return fail_errno(errnum, "name_to_handle_at");
    }
    std::uint64_t id = 0;
    if (buffer.handle.handle_bytes != sizeof id)
        return fail("cgroup id of {} bytes", buffer.handle.handle_bytes);
    std::memcpy(&id, buffer.handle.f_handle, sizeof id);
    return id;
}

}  // namespace

Result<Cgroup> Cgroup::create(std::string_view grant,
                              const std::vector<std::pair<std::string, std::string>>& limits) {
    if (grant.empty() || grant.find('/') != std::string_view::npos ||
        grant.find('\n') != std::string_view::npos) {
        return fail("cgroup: grant \"{}\" cannot be part of a folder's name", grant);
    }
    for (const auto& [file, value] : limits) {
        if (file.find('/') != std::string::npos || file.find('.') == std::string::npos ||
            file.starts_with("cgroup.")) {
            return fail("cgroup: \"{}\" is not a controller's file; such are memory.max, pids.max, cpu.max",
                        file);
        }
    }
    POSTERN_ASSIGN(const CgroupPath own,
                   own_cgroup(read_file("/proc/self/mountinfo"), read_file("/proc/self/cgroup")));
    sweep(own.folder);
    for (const auto& [file, value] : limits) {
        if (Status enabled = enable_controller(own.folder, file.substr(0, file.find('.'))); !enabled) {
            return propagate(std::move(enabled), fmt::format("cgroup: {}", file));
        }
    }
    Cgroup cgroup;
    cgroup.path_ = fmt::format("{}/postern-{}", own.folder, grant);
    cgroup.depth_ = own.depth + 1;
    if (::mkdir(cgroup.path_.c_str(), 0755) != 0) {
        const int errnum = errno;
        return fail_errno(errnum, "cgroup: making {}{}", cgroup.path_,
                          errnum == EACCES || errnum == EROFS || errnum == EPERM
                              ? " (this cgroup is not delegated to the launcher: systemd-run --user --scope "
                                "-p Delegate=yes)"
                              : "");
    }
    cgroup.dir_.reset(::open(cgroup.path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!cgroup.dir_) {
        const int errnum = errno;
        ::rmdir(cgroup.path_.c_str());
        return fail_errno(errnum, "cgroup: {}", cgroup.path_);
    }
    // From here on ~Cgroup removes it.
    if (auto id = cgroup_id(cgroup.dir_.get())) {
        cgroup.id_ = *id;
    } else {
        return propagate(std::move(id), fmt::format("cgroup: {}", cgroup.path_));
    }
    for (const auto& [file, value] : limits) {
        if (const int errnum = write_at(cgroup.dir_.get(), file, value); errnum != 0) {
            return fail_errno(errnum, "cgroup: writing \"{}\" to {}/{}", value, cgroup.path_, file);
        }
    }
    return cgroup;
}

Result<unsigned> Cgroup::level() const {
    struct stat status = {};
    if (::stat("/proc/self/ns/cgroup", &status) == 0 && status.st_ino != kFirstCgroupNamespace) {
        return fail(
            "cgroup: the depth of {} cannot be seen from inside a cgroup namespace; run outside of the "
            "container",
            path_);
    }
    return depth_;
}

void Cgroup::kill() {
    if (write_at(dir_.get(), "cgroup.kill", "1") == 0) return;
    // Before Linux 5.14. A process that forks may escape one round, not all.
    for (int round = 0; round < 100; ++round) {
        std::ifstream processes(path_ + "/cgroup.procs");
        bool any = false;
        for (pid_t pid = 0; processes >> pid;) {
            any = true;
            ::kill(pid, SIGKILL);
        }
        if (!any) return;
    }
}

Cgroup::~Cgroup() {
    if (!dir_) return;
    // Dead processes leave their cgroup a moment after they are gone from everywhere else.
    for (int attempt = 0; attempt < 1000; ++attempt) {
        if (::rmdir(path_.c_str()) == 0 || errno != EBUSY) return;
        kill();
        const timespec pause = {0, 1'000'000 * std::min(attempt + 1, 10)};
        ::nanosleep(&pause, nullptr);
    }
}

}  // namespace postern
