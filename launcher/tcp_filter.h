// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>

#include <vector>

#include "broker-core/result.h"

namespace postern {

/// The program for seccomp(2) that stands beside Landlock's rules for TCP ports, and closes the ways to a
/// connection of which Landlock does not hear: MSG_FASTOPEN connects in the middle of a send, and sockets of
/// MPTCP and SMC are not TCP's to it and become TCP on the wire; and an io_uring does all that without a
/// system call. Everything else is allowed, but for other ABIs, whose calls it could not tell: they end the
/// process.
Result<std::vector<sock_filter>> tcp_filter();

}  // namespace postern
