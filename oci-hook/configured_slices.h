// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "broker-core/broker_config.h"
#include "broker-core/result.h"
#include "oci-hook/slice_name.h"

namespace postern {

/// The names of all slices that the configuration in `folder` gives, by the profiles that it names. Error: a
/// file of either kind cannot be read: a name that is missing, or means another device, is never a guess.
[[nodiscard]] Result<std::vector<NamedSlice>> configured_slices(const std::string& folder = kBrokerConfig);

}  // namespace postern
