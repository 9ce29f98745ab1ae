// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "broker-core/unique_fd.h"

namespace postern {

struct NamedFd {
    std::string name;  ///< as LISTEN_FDNAMES says it
    UniqueFd fd;
};

/// What one client gets: fds, owned, in the order in which they are passed from 3 on. Whoever holds it is the
/// broker.
struct Grant {
    std::string id;
    unsigned slice = 0;
    std::vector<NamedFd> fds;
};

}  // namespace postern
