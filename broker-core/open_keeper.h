// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "broker-core/keeper.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// What a service is started with.
struct ServicePlace {
    std::unique_ptr<Keeper> keeper;
    UniqueFd listener;  ///< that systemd listened on and passed; empty if it passed none
    /// Tells a service manager how it goes (sd_notify(3)); does nothing where there is none.
    std::function<Status(std::string_view assignments)> notify;
};

/// Takes what was passed to this process, and opens a keeper of that kind: "holder" (a process of its own, at
/// a socket in `folder`), "systemd" (which must have started this process with a file descriptor store),
/// "none", or "auto": systemd where it is that, else a holder.
[[nodiscard]] Result<ServicePlace> open_service_place(const std::string& kind, const std::string& folder);

}  // namespace postern
