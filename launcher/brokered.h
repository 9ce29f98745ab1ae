// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "broker-core/broker_client.h"
#include "broker-core/profile.h"
#include "launcher/supervisor.h"

namespace postern {

/// A broker that is to be asked for a device, rather than to own it.
struct BrokerPlace {
    std::string socket;
    std::string profile;  ///< name or file by which it has the device
};

/// Whether a broker has the device at `bdf`. `wanted`: "auto", "none", or a socket. With auto it is asked
/// where that is there: root owns a device itself unless the broker has it, others have no other way. Error:
/// it was named and cannot be asked, or has no such device for this user.
[[nodiscard]] Result<std::optional<BrokerPlace>> find_broker(const std::string& wanted,
                                                             const std::string& bdf);

/// What the usual broker answers, if there is one; nullopt if there is none.
[[nodiscard]] Result<std::optional<BrokerReply>> ask_usual_broker(const BrokerRequest& request);

/// What a client on `profile` asks for.
[[nodiscard]] BrokerRequest grant_request(const Profile& profile, const std::string& bdf,
                                          std::optional<unsigned> slice, bool wait);

}  // namespace postern
