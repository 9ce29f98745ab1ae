// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// How a second broker of one socket says that there is one.
inline constexpr const char* kBrokerRunsAlready = "a broker is running already";

/// Sees to it that somebody serves the broker's socket at `path`: where nobody does, root starts `postern
/// broker --on-demand`, which takes up what an earlier one has kept and ends when nothing is left to do. It
/// reads the configuration `config`, one that serves already goes on with its own. Returns a connection, and
/// as long as that is open the broker stays; an empty one for anybody but root, who has only so many of them
/// (BrokerServer::Limits): each would hold one, and wait for another's to ask by. Error: what the broker
/// said, or that there is none and this user cannot start one.
[[nodiscard]] Result<UniqueFd> need_broker(const std::string& path, const std::string& config);

}  // namespace postern
