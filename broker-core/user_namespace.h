// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/result.h"

namespace postern {

/// Whether this process is root of the machine. In a user namespace that an ordinary user has made (podman
/// without root, `unshare -Ur`) the user's own processes are uid 0, and root's files somebody's that has no
/// number there.
[[nodiscard]] bool is_machines_root();

/// Error: this process is uid 0 and not the machine's root, so that it would be told of wrong owners of
/// files, and might believe that it can start a broker.
[[nodiscard]] Status refuse_root_of_a_namespace();

}  // namespace postern
