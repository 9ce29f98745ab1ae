// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/broker_config.h"
#include "broker-core/result.h"

// By which names containers ask for slices: `disk.0` … `disk.3` of /etc/postern/devices.d/disk.json, whose
// profile has four; `disk` is any of them that is free. Pure.

namespace postern {

/// A device of the broker's configuration, with what its profile says.
struct SlicedDevice {
    std::string name;  ///< of the configuration's file, without ".json"
    std::string bdf;
    unsigned slices = 1;
    bool trusts_annotations = false;  ///< as of BrokerDevice
};
[[nodiscard]] SlicedDevice sliced_device(const BrokerDevice& device, unsigned slices);

struct NamedSlice {
    std::string name;
    std::string bdf;
    std::optional<unsigned> slice;  ///< none: any that is free
    bool trusts_annotations = false;
};

/// Whether `name` can be one: letters, digits and "_.:-", a letter or digit at both ends, at most 63 bytes.
/// Every such name is also one of a device in the sense of CDI.
[[nodiscard]] bool is_slice_name(std::string_view name);

/// All names, each device's own first and then its slices'. Error: a name that cannot be one, or that means
/// two things ("disk.0" of a file disk.0.json, and of disk.json's first slice).
[[nodiscard]] Result<std::vector<NamedSlice>> name_slices(std::span<const SlicedDevice> devices);

/// Error: there is none of that name; the nearest one is told.
[[nodiscard]] Result<NamedSlice> find_slice(std::span<const NamedSlice> names, std::string_view name);

}  // namespace postern
