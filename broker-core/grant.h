// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/json_reader.h"
#include "broker-core/named_fd.h"
#include "broker-core/result.h"

namespace postern {

/// The cgroup v2 that a client's sandbox is born in, as the guard knows it.
struct SandboxIdentity {
    uint64_t cgroup_id = 0;
    uint32_t cgroup_level = 0;
};

/// What one client gets: fds, owned, in the order in which they are passed from 3 on. Whoever holds it is the
/// broker.
struct Grant {
    std::string id;
    unsigned slice = 0;
    std::vector<NamedFd> fds;
    Json manifest;  ///< as far as it is written: all but "fds"
};

/// A grant with the part of its manifest that every client reads, and room for the manifest at fd 3.
[[nodiscard]] Grant begin_grant(unsigned slice, std::string id = random_id());
/// Writes the manifest, now that every fd is there.
[[nodiscard]] Status finish_grant(Grant& grant);

}  // namespace postern
