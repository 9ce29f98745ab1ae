// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "broker-core/named_fd.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "oci-hook/container_peer.h"

namespace postern {

/// How a grant gets to a container whose runtime passes no fds: over a socket of the container's own, to the
/// first of its processes that asks, once. Owns all that it needs; whoever destroys it gives the grant up.
struct Delivery {
    UniqueFd listener;            ///< SOCK_SEQPACKET
    UniqueFd init;                ///< pidfd of the container's init, whose end is the grant's
    ContainerIdentity container;  ///< who may have it
    std::vector<NamedFd> fds;     ///< the client's from 3 on, in this order
};

/// How serve_delivery() ended.
enum class DeliveryEnd { Delivered, ContainerEnded };

/// Waits for a process of the container, and gives it the fds; refuses everybody else and goes on (`log` is
/// told of the first ones, and of what comes after that once a minute). Error: it cannot wait any more.
[[nodiscard]] Result<DeliveryEnd> serve_delivery(const Delivery& delivery,
                                                 const std::function<void(const std::string&)>& log);

}  // namespace postern
