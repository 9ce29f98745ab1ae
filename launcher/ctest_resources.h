// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "broker-core/json_reader.h"
#include "broker-core/result.h"

namespace postern {

/// A slice that CTest hands out, and its device (empty: a profile without one).
struct CtestSlice {
    std::string device;
    unsigned slice = 0;

    bool operator==(const CtestSlice&) const = default;
};

/// "0000_00_02_0_s1", or "s1" without a device: an id of [a-z0-9_]+, as CTest wants them.
[[nodiscard]] std::string ctest_id(const CtestSlice& slice);
[[nodiscard]] Result<CtestSlice> parse_ctest_id(std::string_view id);

/// The resource specification file, version 1.0, for `ctest --resource-spec-file`: slices 0 to `slices` - 1
/// as resources of type "postern", one slot each. Source: ctest(1), Resource Allocation.
[[nodiscard]] Json ctest_resource_spec(const std::string& device, unsigned slices);

/// What CTest has allotted to the test that this is part of: exactly one resource of type "postern".
/// `variable` looks an environment variable up.
[[nodiscard]] Result<CtestSlice> allotted_slice(
    const std::function<std::optional<std::string>(const std::string&)>& variable);

}  // namespace postern
