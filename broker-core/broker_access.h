// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "broker-core/broker_config.h"

namespace postern {

/// Who asks, as the kernel says it.
struct Caller {
    uid_t uid = 0;
    gid_t gid = 0;
    std::vector<gid_t> groups;  ///< supplementary ones
};

/// A slice that is not free, and whose it is.
struct TakenSlice {
    unsigned slice = 0;
    uid_t uid = 0;
};

struct SliceChoice {
    enum class Kind {
        Free,    ///< `slice` is the caller's
        Busy,    ///< the caller may have one, but none is free now
        Denied,  ///< none, and never will be by this configuration
    };
    Kind kind = Kind::Denied;
    unsigned slice = 0;
    std::string reason;  ///< of Busy and Denied, in words
};

/// Whether `caller` may have any slice of the device at all. root may. Pure.
[[nodiscard]] bool may_use(const BrokerDevice& device, const Caller& caller);

/// The slice that `caller` gets: `wanted`, or the first free one of those it may have. root may have all.
/// Pure.
[[nodiscard]] SliceChoice choose_slice(const BrokerDevice& device, unsigned slices, const Caller& caller,
                                       std::optional<unsigned> wanted, std::span<const TakenSlice> taken);

}  // namespace postern
