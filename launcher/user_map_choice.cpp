// SPDX-License-Identifier: Apache-2.0
#include "launcher/user_map_choice.h"

#include <linux/capability.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker-core/file.h"
#include "launcher/id_map.h"
#include "launcher/map_helper.h"
#include "launcher/syscalls.h"

namespace postern {

bool id_exists(const char* map_path, std::uint32_t id) {
    const auto map = read_file(map_path, std::size_t{1} << 16);  // it has 340 lines at most
    const char* at = map ? map->c_str() : "";
    while (true) {
        std::array<std::uint64_t, 3> line = {};  // inside, outside, count
        for (std::uint64_t& number : line) {
            char* behind = nullptr;
            number = std::strtoull(at, &behind, 10);
            if (behind == at) return false;
            at = behind;
        }
        if (id >= line[0] && id - line[0] < line[2]) return true;
    }
}

namespace {

/// inode number of the first user namespace, PROC_USER_INIT_INO of include/linux/proc_ns.h.
constexpr ino_t kFirstUserNamespace = 0xEFFFFFFD;

bool ids_exist(uid_t uid, gid_t gid) {
    struct stat own = {};
    if (::stat("/proc/self/ns/user", &own) == 0 && own.st_ino == kFirstUserNamespace) return true;
    return id_exists("/proc/self/uid_map", uid) && id_exists("/proc/self/gid_map", gid);
}

/// Of the local file alone: a static program has no other source of names.
std::string user_name(uid_t uid) {
    const std::unique_ptr<FILE, decltype(&::fclose)> users(std::fopen("/etc/passwd", "re"), &::fclose);
    while (users) {
        const passwd* user = ::fgetpwent(users.get());
        if (user == nullptr) break;
        if (user->pw_uid == uid) return user->pw_name;
    }
    return "";
}

Result<std::vector<SubordinateIds>> own_subordinate_ids(const char* file) {
    const uid_t uid = ::getuid();
    const std::string name = user_name(uid);
    const auto text = read_file(file, std::size_t{16} << 20);
    auto ids = subordinate_ids(text ? *text : "", name, uid);
    if (!ids.empty()) return ids;
    return fail(
        "user namespace: {} has no range of subordinate ids for {}; add one that nobody else has, e.g. "
        "\"{}:100000:65536\"",
        file, name.empty() ? fmt::format("uid {}", uid) : name, name.empty() ? std::to_string(uid) : name);
}

/// With more ids than one. What is missing for it is said before anything is started.
Result<UserMap> widen_user_map(const SandboxSpec& spec, const UserMap& own, bool privileged) {
    IdMap uids = spec.uid_map;
    IdMap gids = spec.gid_map;
    if (spec.subids) {
        const auto own_uid = privileged ? std::nullopt : std::optional(IdRange{spec.uid, own.outside_uid, 1});
        const auto own_gid = privileged ? std::nullopt : std::optional(IdRange{spec.gid, own.outside_gid, 1});
        POSTERN_ASSIGN(const auto sub_uids, own_subordinate_ids("/etc/subuid"));
        POSTERN_ASSIGN(const auto sub_gids, own_subordinate_ids("/etc/subgid"));
        uids = map_subordinate_ids(sub_uids, own_uid);
        gids = map_subordinate_ids(sub_gids, own_gid);
    }
    for (const MapHelper helper : {MapHelper::Uids, MapHelper::Gids}) {
        if (!privileged) POSTERN_TRY(find_map_helper(helper));
    }
    return make_wide_user_map(own, std::move(uids), std::move(gids), privileged);
}

}  // namespace

Result<UserMap> choose_user_map(const SandboxSpec& spec) {
    constexpr std::uint64_t setgid = std::uint64_t{1} << CAP_SETGID;
    constexpr std::uint64_t setuid = std::uint64_t{1} << CAP_SETUID;
    const bool capable = (sys::permitted_capabilities() & (setgid | setuid)) == (setgid | setuid);
    if (spec.subids || !spec.uid_map.empty()) {
        const UserMap own = make_user_map(spec.uid, spec.gid, ::geteuid(), ::getegid(), false);
        return widen_user_map(spec, own, capable);
    }
    const bool privileged = capable && !spec.own_ids && ids_exist(spec.uid, spec.gid);
    UserMap map = make_user_map(spec.uid, spec.gid, ::geteuid(), ::getegid(), privileged);
    // Without a new user namespace the ids are what they are, and groups can be dropped by who has the
    // capability.
    if (!spec.namespaces.user) map.may_set_groups = capable;
    map.keep_groups = spec.keep_groups;
    return map;
}

}  // namespace postern
