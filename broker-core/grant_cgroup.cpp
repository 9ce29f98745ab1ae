// SPDX-License-Identifier: Apache-2.0
#include "broker-core/grant_cgroup.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "broker-core/cgroup_file.h"
#include "broker-core/cgroup_path.h"
#include "broker-core/file.h"
#include "broker-core/guard_cgroup.h"
#include "broker-core/peer.h"

namespace postern {
namespace {

constexpr unsigned kMostNested = 16;

/// The inode number of a cgroup's folder is its id (kernfs, since Linux 5.5, on 64-bit machines).
uint64_t id_of(const std::string& path) {
    struct stat found {};
    return ::lstat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode) ? found.st_ino : 0;
}

Status set_limits(const std::string& path, const std::string& parent,
                  const std::map<std::string, std::string>& limits) {
    for (const auto& [file, value] : limits) {
        const std::string controller = file.substr(0, file.find('.'));
        if (!holds_word(read_cgroup_file(parent + "/cgroup.subtree_control"), controller)) {
            return fail(
                "cgroup: {}: the controller {} is not enabled in {}, where the caller is, and cannot be "
                "while there "
                "are processes in it; start the caller in a leaf of a cgroup that limits its children, or "
                "set the "
                "limit on the unit that starts it",
                file, controller, parent);
        }
        if (const int error = write_cgroup_file(fmt::format("{}/{}", path, file), value); error != 0)
            return fail_errno(error, "cgroup: writing \"{}\" to {}/{}", value, path, file);
    }
    return {};
}

/// Where the folder above is the caller's, it may have removed ours and made one of its own.
Failure replaced(const std::string& path) {
    return Failure(Error{
        fmt::format(
            "cgroup: {} is not what the broker has made there; who owns the folder above has replaced it",
            path),
        0});
}

/// Folders below first; files of a cgroup go with it.
void remove_below(const std::string& path, unsigned depth) {
    if (depth > kMostNested) return;
    for (const std::string& name : names_in(path)) {
        const std::string below = fmt::format("{}/{}", path, name);
        struct stat found {};
        if (::lstat(below.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) continue;
        remove_below(below, depth + 1);
        (void)::rmdir(below.c_str());
    }
}

}  // namespace

GrantCgroup::GrantCgroup(std::string path, uint64_t id, uint32_t level, bool is_container)
    : path_(std::move(path)), identity_{id != 0 ? id : id_of(path_), level}, is_container_(is_container) {}

Result<GrantCgroup> GrantCgroup::place(pid_t pid, const std::string& grant) {
    POSTERN_ASSIGN(const CgroupPath parent,
                   own_cgroup(read_cgroup_file("/proc/self/mountinfo"),
                              read_cgroup_file(fmt::format("/proc/{}/cgroup", pid))));
    return GrantCgroup(fmt::format("{}/postern-grant-{}", parent.folder, grant), 0, parent.depth + 1);
}

Result<GrantCgroup> GrantCgroup::of_container(pid_t pid, pid_t runtime, uid_t uid) {
    const std::string mounts = read_cgroup_file("/proc/self/mountinfo");
    const auto place_of = [&](const std::string& who) {
        return own_cgroup(mounts, read_cgroup_file(fmt::format("/proc/{}/cgroup", who)));
    };
    POSTERN_ASSIGN(const CgroupPath its, place_of(std::to_string(pid)));
    for (const std::string& other : {std::string("self"), std::to_string(runtime)}) {
        POSTERN_ASSIGN(const CgroupPath place, place_of(other));
        if (its.depth == 0 || (place.folder + "/").starts_with(its.folder + "/")) {
            return fail(
                "the container of pid {} has no cgroup of its own, but is in {}, where {} is, too; leave out "
                "--cgroups=disabled and the like",
                pid, its.folder, other == "self" ? "the broker" : "its runtime");
        }
    }
    struct stat found {};
    if (::lstat(its.folder.c_str(), &found) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot look at {}, where pid {} is", its.folder, pid);
    }
    if (uid != 0 && found.st_uid != uid)
        return fail("pid {} is in {}, which is not uid {}'s but uid {}'s", pid, its.folder, uid,
                    found.st_uid);
    return GrantCgroup(its.folder, found.st_ino, its.depth, true);
}

Status GrantCgroup::make(const std::map<std::string, std::string>& limits) {
    // Its files are for its caller to read.
    if (auto made = make_folder(path_, 0755); !made) return propagate(std::move(made), "cgroup");
    struct stat found {};
    if (::lstat(path_.c_str(), &found) != 0 || !S_ISDIR(found.st_mode) || found.st_uid != ::geteuid()) {
        identity_.cgroup_id = 0;
        return replaced(path_);
    }
    identity_.cgroup_id = found.st_ino;
    return set_limits(path_, path_.substr(0, path_.rfind('/')), limits);
}

bool GrantCgroup::is_there() const {
    return identity_.cgroup_id != 0 && id_of(path_) == identity_.cgroup_id;
}

Status GrantCgroup::take_in(int pidfd) const {
    POSTERN_ASSIGN(const pid_t pid, pid_of(pidfd));
    const int error = pid == 0 ? ESRCH : write_cgroup_file(path_ + "/cgroup.procs", fmt::format("{}", pid));
    if (error != 0) return fail_errno(error, "cgroup: moving the caller, pid {}, to {}", pid, path_);
    if (!is_there()) {
        (void)let_out();
        return replaced(path_);
    }
    // While it lives, its number is nobody else's.
    if (!has_ended(pidfd)) return {};
    (void)let_out();
    return fail("cgroup: the caller ended while it was moved to {}", path_);
}

bool GrantCgroup::let_out() const {
    const std::string above = path_.substr(0, path_.rfind('/'));
    const std::string members = read_cgroup_file(path_ + "/cgroup.procs");
    for (size_t at = 0; at < members.size();) {
        const size_t end = members.find('\n', at);
        const int error = write_cgroup_file(above + "/cgroup.procs", members.substr(at, end - at));
        // That one takes nobody by now (cgroups(7), "no internal processes"; threaded): each try costs all
        // of the machine's forks a wait.
        if (error == EBUSY || error == EOPNOTSUPP) return false;
        if (end == std::string::npos) break;
        at = end + 1;
    }
    return true;
}

void GrantCgroup::kill() const {
    if (is_there()) (void)write_cgroup_file(path_ + "/cgroup.kill", "1");
}

bool GrantCgroup::is_populated() const {
    // What cannot be asked may have somebody in it.
    const CgroupState state =
        identity_.cgroup_id != 0 ? cgroup_state(identity_.cgroup_id) : CgroupState::Gone;
    return state == CgroupState::Populated || state == CgroupState::Unknown;
}

Status GrantCgroup::remove() const {
    if (is_container_ || !is_there()) return {};
    remove_below(path_, 0);
    if (::rmdir(path_.c_str()) == 0 || errno == ENOENT) return {};
    const int error = errno;
    return fail_errno(error, "cgroup: removing {}", path_);
}

}  // namespace postern
