// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "broker-core/guard_pins.h"

namespace postern {

/// A grant of which files are open: what the guard's map of files says of it.
struct LiveGrant {
    std::string id;
    std::string device;
    std::string profile;
    unsigned slice = 0;
    pid_t launcher = 0;
    uint64_t since = 0;    ///< CLOCK_BOOTTIME, ns: of its first file
    uint64_t sandbox = 0;  ///< id of its cgroup, 0: none
    uint64_t refused = 0;
    bool revoked = false;  ///< all of its files are
    std::vector<GuardPins::Key> files;
};

/// By age, the oldest first. Pure.
[[nodiscard]] std::vector<LiveGrant> live_grants(const GuardPins::Policies& files);

}  // namespace postern
