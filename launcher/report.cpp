// SPDX-License-Identifier: Apache-2.0
#include "launcher/report.h"

#include <cstdio>

namespace postern {

int report(const Error& error, int status) {
    fmt::print(stderr, "postern: {}\n", error.message);
    return status;
}

}  // namespace postern
