// SPDX-License-Identifier: Apache-2.0
#include "launcher/user_map.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "broker-core/unique_fd.h"

namespace postern {
namespace {

Status write_once(const std::string& path, const std::string& text) {
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    // One write: the kernel takes the whole map or nothing.
    if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
        const int errnum = errno;
        return fail_errno(
            errnum,
            "user namespace: writing \"{}\" to {} (the enclosing namespace or an AppArmor profile gives no "
            "right to map; start as root or leave \"user\" out of the namespaces)",
            text, path);
    }
    return {};
}

std::string map_line(unsigned inside, unsigned outside) {
    return std::to_string(inside) + " " + std::to_string(outside) + " 1";
}

}  // namespace

UserMap make_user_map(uid_t inside_uid, gid_t inside_gid, uid_t own_uid, gid_t own_gid, bool privileged) {
    return UserMap{.inside_uid = inside_uid,
                   .outside_uid = privileged ? inside_uid : own_uid,
                   .inside_gid = inside_gid,
                   .outside_gid = privileged ? inside_gid : own_gid,
                   .may_set_groups = privileged};
}

Status write_user_map(pid_t pid, const UserMap& map) {
    const std::string folder = "/proc/" + std::to_string(pid) + "/";
    POSTERN_TRY(write_once(folder + "uid_map", map_line(map.inside_uid, map.outside_uid)));
    // Why before the gid map: without CAP_SETGID the kernel refuses a gid map while setgroups(2) is allowed,
    // since a group can also be what *denies* access to a file.
    if (!map.may_set_groups) POSTERN_TRY(write_once(folder + "setgroups", "deny"));
    return write_once(folder + "gid_map", map_line(map.inside_gid, map.outside_gid));
}

}  // namespace postern
