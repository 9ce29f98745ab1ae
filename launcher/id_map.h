// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/id_range.h"
#include "broker-core/result.h"

namespace postern {

/// A map of user or group ids, as a user namespace has it.
using IdMap = std::vector<IdRange>;

/// Ids that somebody else's users may be: `count` from `first` on.
struct SubordinateIds {
    std::uint32_t first = 0;
    std::uint32_t count = 0;

    bool operator==(const SubordinateIds&) const = default;
};

/// Those of one user in the text of /etc/subuid or /etc/subgid, which names users by name or number. Lines
/// that are none are passed over, as newuidmap(1) does. Source: subuid(5). Pure.
[[nodiscard]] std::vector<SubordinateIds> subordinate_ids(std::string_view text, const std::string& name,
                                                          std::uint32_t uid);

/// From 0 on upwards, in their order; `own`, if given, is at the place of its `inside`, and the others around
/// it. Pure.
[[nodiscard]] IdMap map_subordinate_ids(const std::vector<SubordinateIds>& ids, std::optional<IdRange> own);

/// That the kernel would take it. Pure.
[[nodiscard]] Status check_id_map(const IdMap& map, std::string_view name);

/// nullopt: it is not in the map. Pure.
[[nodiscard]] std::optional<std::uint32_t> outside_id(const IdMap& map, std::uint32_t inside);

/// Lines for uid_map and gid_map in /proc. Pure.
[[nodiscard]] std::string id_map_text(const IdMap& map);

}  // namespace postern
