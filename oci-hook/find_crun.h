// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "broker-core/result.h"

namespace postern {

/// The crun that postern-crun becomes: $POSTERN_CRUN, else the first of $PATH, and of the usual folders, that
/// is not this program itself, whatever that is called.
[[nodiscard]] Result<std::string> find_crun();

}  // namespace postern
