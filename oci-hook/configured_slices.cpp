// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/configured_slices.h"

#include "broker-core/profile_reader.h"

namespace postern {

Result<std::vector<NamedSlice>> configured_slices(const std::string& folder) {
    POSTERN_ASSIGN(const std::vector<BrokerDevice> configured, load_broker_config(folder));
    std::vector<SlicedDevice> devices;
    devices.reserve(configured.size());
    for (const BrokerDevice& each : configured) {
        auto loaded = load_profile(each.profile);
        if (!loaded) return propagate(std::move(loaded), fmt::format("{}/{}.json", folder, each.name));
        devices.push_back(sliced_device(each, loaded->profile.slices));
    }
    auto names = name_slices(devices);
    if (!names) return propagate(std::move(names), folder);
    return names;
}

}  // namespace postern
