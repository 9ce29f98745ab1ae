// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "broker-core/keeper.h"
#include "broker-core/result.h"

namespace postern {

/// The keeper of that kind: "holder" (a process of its own, at a socket in `folder`), "systemd" (which must
/// have started this process with a file descriptor store), "none", or "auto": systemd where it is that, else
/// a holder.
[[nodiscard]] Result<std::unique_ptr<Keeper>> open_keeper(const std::string& kind, const std::string& folder);

/// The socket that systemd listened on and passed (sd_listen_fds(3)); none if it passed none. Call once,
/// after open_keeper().
[[nodiscard]] UniqueFd passed_listener();

}  // namespace postern
