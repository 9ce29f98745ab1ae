// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

/// Where profiles are looked for by name, in order: $POSTERN_PROFILE_PATH, /etc/postern/profiles, and the
/// folder share/postern/profiles beside the program's own folder.
[[nodiscard]] std::vector<std::string> profile_search_path();

/// The file that a profile's name ("virtio-blk-queue") or file name (anything with a slash, or ending in
/// .json) means. nullopt: there is none of that name.
[[nodiscard]] std::optional<std::string> find_profile_file(std::string_view name_or_file);

}  // namespace postern
