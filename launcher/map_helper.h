// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include "broker-core/result.h"
#include "launcher/id_map.h"

namespace postern {

/// newuidmap(1) and newgidmap(1), set-uid programs that map to an ordinary user what /etc/subuid and
/// /etc/subgid grant him.
enum class MapHelper { Uids, Gids };

/// Where it is installed; never looked for in PATH. Error: nowhere, and what to install.
[[nodiscard]] Result<std::string> find_map_helper(MapHelper helper);

/// Has it write the map of the user namespace that `pid` is the first process of. Error: in its own words.
[[nodiscard]] Status run_map_helper(MapHelper helper, pid_t pid, const IdMap& map);

}  // namespace postern
