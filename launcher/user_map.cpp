// SPDX-License-Identifier: Apache-2.0
#include "launcher/user_map.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>

#include "broker-core/unique_fd.h"
#include "launcher/map_helper.h"

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
    return id_map_text({{inside, outside, 1}});
}

/// Who has root's id outside is root to the host's files. What an ordinary user may give is his own, whatever
/// its number.
Status check_without_root(const IdMap& map, std::string_view name, std::optional<std::uint32_t> own) {
    for (const IdRange& range : map) {
        if (range.outside == 0 && !(own == 0U && range.count == 1))
            return fail(
                "user namespace: {}: [{}, 0, {}] would make an id inside root's on the host; give ranges "
                "without 0",
                name, range.inside, range.count);
    }
    return {};
}

Result<std::uint32_t> find_outside(const IdMap& map, std::string_view name, std::uint32_t inside) {
    if (const auto found = outside_id(map, inside)) return *found;
    return fail(
        "user namespace: {} {} is not among the ids that are mapped ({}); take one of them, or map more",
        name, inside, id_map_text(map.size() > 3 ? IdMap(map.begin(), map.begin() + 3) : map));
}

}  // namespace

UserMap make_user_map(uid_t inside_uid, gid_t inside_gid, uid_t own_uid, gid_t own_gid, bool privileged) {
    return UserMap{.inside_uid = inside_uid,
                   .outside_uid = privileged ? inside_uid : own_uid,
                   .inside_gid = inside_gid,
                   .outside_gid = privileged ? inside_gid : own_gid,
                   .may_set_groups = privileged};
}

Result<UserMap> make_wide_user_map(const UserMap& own, IdMap uids, IdMap gids, bool privileged) {
    POSTERN_TRY(check_id_map(uids, "uid_map"));
    POSTERN_TRY(check_id_map(gids, "gid_map"));
    const bool is_root = own.outside_uid == 0;
    POSTERN_TRY(check_without_root(uids, "uid_map", std::nullopt));
    POSTERN_TRY(check_without_root(
        gids, "gid_map",
        privileged || is_root ? std::nullopt : std::optional<std::uint32_t>(own.outside_gid)));
    UserMap wide = own;
    POSTERN_ASSIGN(wide.outside_uid, find_outside(uids, "uid", own.inside_uid));
    POSTERN_ASSIGN(wide.outside_gid, find_outside(gids, "gid", own.inside_gid));
    // newgidmap(1) leaves setgroups(2) allowed to whom the administrator has given groups beside his own.
    wide.may_set_groups = privileged || std::any_of(gids.begin(), gids.end(), [&](const IdRange& range) {
                              return range.count != 1 || range.outside != own.outside_gid;
                          });
    wide.by_helper = !privileged;
    wide.uids = std::move(uids);
    wide.gids = std::move(gids);
    return wide;
}

Status write_user_map(pid_t pid, const UserMap& map) {
    if (map.by_helper) {
        POSTERN_TRY(run_map_helper(MapHelper::Uids, pid, map.uids));
        return run_map_helper(MapHelper::Gids, pid, map.gids);
    }
    const std::string folder = "/proc/" + std::to_string(pid) + "/";
    POSTERN_TRY(write_once(folder + "uid_map", map.uids.empty() ? map_line(map.inside_uid, map.outside_uid)
                                                                : id_map_text(map.uids)));
    // Why before the gid map: without CAP_SETGID the kernel refuses a gid map while setgroups(2) is allowed,
    // since a group can also be what *denies* access to a file.
    if (!map.may_set_groups) POSTERN_TRY(write_once(folder + "setgroups", "deny"));
    return write_once(folder + "gid_map",
                      map.gids.empty() ? map_line(map.inside_gid, map.outside_gid) : id_map_text(map.gids));
}

}  // namespace postern
