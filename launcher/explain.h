// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "broker-core/profile.h"

namespace postern {

/// Sizes of BAR 0 to 5 where a device is at hand; 0 where not known: the drawing then ends with the last
/// window.
using BarSizes = std::array<uint64_t, 6>;

/// A drawing of each BAR to scale with what is granted, and in words what a client may do. `columns` is the
/// terminal's width, at least 60. Pure.
[[nodiscard]] std::string explain_profile(const Profile& profile, const BarSizes& bars, unsigned columns);

/// In words what a client may do with one file. Pure.
[[nodiscard]] std::string explain_file(const FileProfile& file, unsigned slices);

}  // namespace postern
