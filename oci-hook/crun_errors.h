// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/result.h"
#include "oci-hook/crun_command_line.h"

namespace postern {

/// Tells why there is no container, as crun would: a line on stderr, and in the file of its options --log and
/// --log-format, which podman reads. Returns crun's exit status for that.
int report_crun_error(const Error& error, const CrunCommandLine& line);

}  // namespace postern
