// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "broker-core/result.h"
#include "launcher/sandbox_spec.h"
#include "launcher/user_map.h"

namespace postern {

/// Whether `id` exists in the user namespace that the launcher is in.
[[nodiscard]] bool id_exists(const char* map_path, std::uint32_t id);

/// Who the ids of the sandbox are outside, by what the launcher may give. Error: ids that it has not got, no
/// program that maps them for it.
[[nodiscard]] Result<UserMap> choose_user_map(const SandboxSpec& spec);

}  // namespace postern
