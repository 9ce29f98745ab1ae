// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/json_reader.h"
#include "broker-core/profile.h"
#include "broker-core/profile_path.h"
#include "broker-core/result.h"

namespace postern {

/// Reads one layer (`partial`) or a merged profile from JSON. Pure.
[[nodiscard]] Result<Profile> read_profile(const Json& document, bool partial);

/// Later keys win; objects merge, everything else is replaced. "include" is dropped.
void merge_profile(Json& below, const Json& above);

struct LoadedProfile {
    Profile profile;
    Json merged;                  ///< after includes, as `postern profile show` prints it
    std::vector<ReadFile> files;  ///< the files read, the including one last
};

/// The file that a profile's name or file name means. Error: there is none, with the names that there are.
[[nodiscard]] Result<std::string> find_profile(std::string_view name_or_file);

/// Loads a profile by name ("virtio-blk-queue") or by file (anything with a slash, or ending in .json),
/// merges its includes, reads and checks it. Errors start with "profile NAME:".
[[nodiscard]] Result<LoadedProfile> load_profile(std::string_view name_or_file);

}  // namespace postern
