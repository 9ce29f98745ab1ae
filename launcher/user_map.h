// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include "broker-core/result.h"
#include "launcher/id_map.h"

namespace postern {

/// Who the client is in the sandbox's user namespace, and outside.
struct UserMap {
    uid_t inside_uid = 65534;
    uid_t outside_uid = 65534;
    gid_t inside_gid = 65534;
    gid_t outside_gid = 65534;
    /// Whether the kernel lets a member of the namespace drop supplementary groups: it does when the map was
    /// written with CAP_SETGID. Without, setgroups(2) has to be forbidden before the gid map is accepted.
    bool may_set_groups = false;
    bool keep_groups = false;  ///< … and that they stay all the same
    /// All ids that exist in the namespace; empty: the one uid and the one gid above.
    IdMap uids = {};
    IdMap gids = {};
    bool by_helper = false;  ///< of the launcher's, who may not write them itself
};

/// A privileged launcher maps the ids to themselves: a client with uid 65534 is nobody outside too and reads
/// no file of root's. Any other launcher has only its own ids to give. Pure.
UserMap make_user_map(uid_t inside_uid, gid_t inside_gid, uid_t own_uid, gid_t own_gid, bool privileged);

/// The same user and group with more ids, in `uids` and `gids`. Error: they are not among them, or root's
/// would be. Pure.
[[nodiscard]] Result<UserMap> make_wide_user_map(const UserMap& own, IdMap uids, IdMap gids, bool privileged);

/// Writes the map of the user namespace that `pid` is the first process of. Once per namespace.
/// Source: user_namespaces(7).
Status write_user_map(pid_t pid, const UserMap& map);

}  // namespace postern
