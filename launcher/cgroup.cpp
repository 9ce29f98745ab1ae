// SPDX-License-Identifier: Apache-2.0
#include "launcher/cgroup.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>

#include "broker-core/cgroup_file.h"
#include "broker-core/file.h"

namespace postern {
namespace {

/// inode number of the first cgroup namespace, PROC_CGROUP_INIT_INO of include/linux/proc_ns.h.
constexpr ino_t kFirstCgroupNamespace = 0xEFFFFFFB;

/// Opens the cgroup at `path` and locks it, as its launcher does for its life: in another pid namespace
/// nothing else shows that it lives. 0; EWOULDBLOCK: another one has it, or it is gone; or errno.
int lock_folder(const std::string& path, UniqueFd& folder) {
    folder.reset(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder) return errno == ENOENT ? EWOULDBLOCK : errno;
    if (::flock(folder.get(), LOCK_EX | LOCK_NB) != 0) return errno;
    struct stat locked = {};
    struct stat there = {};
    const bool is_there = ::fstat(folder.get(), &locked) == 0 && ::stat(path.c_str(), &there) == 0 &&
                          locked.st_ino == there.st_ino;
    return is_there ? 0 : EWOULDBLOCK;
}

/// Removes the empty cgroup at `path`, unless its launcher lives.
bool remove_deserted(const std::string& path) {
    UniqueFd folder;
    return lock_folder(path, folder) == 0 && ::rmdir(path.c_str()) == 0;
}

/// Removes what launchers that were killed left below `parent`: empty cgroups, named after a launcher that is
/// gone. One that has members yet is not removed by rmdir(2), and its turn comes with the next launch.
void sweep(const std::string& parent) {
    for (const std::string& name : names_in(parent)) {
        constexpr std::string_view kPrefix = "postern-";
        if (!name.starts_with(kPrefix)) continue;
        pid_t launcher = 0;
        const char* digits = name.c_str() + kPrefix.size();
        const auto [end, error] = std::from_chars(digits, name.c_str() + name.size(), launcher);
        if (error != std::errc{} || (*end != '-' && *end != '\0')) continue;
        if (::kill(launcher, 0) != 0 && errno == ESRCH) remove_deserted(fmt::format("{}/{}", parent, name));
    }
}

/// Makes the folder `wanted`, or, where another launcher has that, one whose name goes on: in another pid
/// namespace it may have the same pid. 0 or errno; `made` is its path, and `folder` locks it.
int make_folder(const std::string& wanted, std::string& made, UniqueFd& folder) {
    const auto make = [&] { return ::mkdir(made.c_str(), 0755) == 0 ? 0 : errno; };
    constexpr int kMost = 1000;
    for (int i = 0; i < kMost; ++i) {
        made = i == 0 ? wanted : fmt::format("{}-{}", wanted, i);
        int errnum = make();
        // Of a dead launcher with this very pid: no sweep removes it.
        if (errnum == EEXIST && remove_deserted(made)) errnum = make();
        if (errnum == EEXIST) continue;
        if (errnum != 0) return errnum;
        // Before it is locked, another one may take it for such.
        errnum = lock_folder(made, folder);
        if (errnum == 0) return 0;
        if (errnum == EWOULDBLOCK) continue;
        ::rmdir(made.c_str());
        return errnum;
    }
    return EEXIST;
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
    Cgroup cgroup;
    POSTERN_ASSIGN(cgroup.parent_, CgroupParent::find(limits));
    const CgroupParent& parent = *cgroup.parent_;
    sweep(parent.folder());
    cgroup.depth_ = parent.depth() + 1;
    const std::string wanted = fmt::format("{}/postern-{}", parent.folder(), grant);
    if (const int errnum = make_folder(wanted, cgroup.path_, cgroup.dir_); errnum != 0) {
        return fail_errno(errnum, "cgroup: making {}{}", wanted,
                          errnum == EACCES || errnum == EROFS || errnum == EPERM
                              ? " (this cgroup is not delegated to the launcher: systemd-run --user --scope "
                                "-p Delegate=yes)"
                              : "");
    }
    // From here on ~Cgroup removes it.
    if (auto id = cgroup_id(cgroup.dir_.get())) {
        cgroup.id_ = *id;
    } else {
        return propagate(std::move(id), fmt::format("cgroup: {}", cgroup.path_));
    }
    for (const auto& [file, value] : limits) {
        if (const int errnum = write_cgroup_file(fmt::format("{}/{}", cgroup.path_, file), value);
            errnum != 0) {
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
    (void)write_cgroup_file(path_ + "/cgroup.kill", "1");
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
