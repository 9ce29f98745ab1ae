// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdio>

#include "broker-core/result.h"
#include "launcher/commands.h"

namespace postern {

int report(const Error& error, int status) {
    fmt::print(stderr, "postern: {}\n", error.message);
    return status;
}

}  // namespace postern
