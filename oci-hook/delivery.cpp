// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/delivery.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <functional>

#include "broker-core/packet.h"
#include "broker-core/vended_grant.h"

namespace postern {
namespace {

/// Accepts one, and gives it the grant. Error: that one has not got it.
Status give_to_next(const Delivery& delivery) {
    const UniqueFd connection(::accept4(delivery.listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!connection) {
        const int error = errno;
        return fail_errno(error, "accept");
    }
    POSTERN_TRY(check_container_peer(connection.get(), delivery.container));
    std::vector<int> fds;
    fds.reserve(delivery.fds.size());
    for (const NamedFd& each : delivery.fds) fds.push_back(each.fd.get());
    // The queue of a fresh connection is empty: this never waits for a peer that does not read.
    return send_packet(connection.get(), vended_header(delivery.fds), fds, MSG_DONTWAIT);
}

}  // namespace

Result<DeliveryEnd> serve_delivery(const Delivery& delivery,
                                   const std::function<void(const std::string&)>& log) {
    while (true) {
        std::array<pollfd, 2> events{
            {{delivery.init.get(), POLLIN, 0}, {delivery.listener.get(), POLLIN, 0}}};
        if (::poll(events.data(), events.size(), -1) < 0) {
            const int error = errno;
            if (error == EINTR) continue;
            return fail_errno(error, "poll");
        }
        if (events[0].revents != 0) return DeliveryEnd::ContainerEnded;
        if (events[1].revents == 0) continue;
        const Status given = give_to_next(delivery);
        if (given) return DeliveryEnd::Delivered;
        log(fmt::format("somebody who asked for the grant was refused: {}", given.error().message));
    }
}

}  // namespace postern
