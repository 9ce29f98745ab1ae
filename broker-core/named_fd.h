// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "broker-core/unique_fd.h"

namespace postern {

/// An fd with the name that it is passed by, as LISTEN_FDNAMES says it (sd_listen_fds(3)).
struct NamedFd {
    std::string name;
    UniqueFd fd;
};

}  // namespace postern
