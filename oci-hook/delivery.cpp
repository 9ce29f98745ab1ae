// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/delivery.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <functional>
#include <utility>

#include "broker-core/packet.h"
#include "broker-core/vended_grant.h"

namespace postern {
namespace {

using Clock = std::chrono::steady_clock;

/// Of those who are refused. Whoever is in the container may ask as often as it can start processes, and the
/// log is the machine's.
constexpr unsigned kToldEach = 16;
constexpr std::chrono::minutes kBetweenLines{1};
constexpr int kPauseAfter = 10;  ///< milliseconds, once there were so many

/// Tells of the first ones, and then of some.
class Refusals {
  public:
    explicit Refusals(const std::function<void(const std::string&)>& log) : log_(log) {}
    void add(const std::string& why) {
        ++untold_;
        if (are_many() && Clock::now() < next_line_) return;
        const std::string others = untold_ > 1 ? fmt::format(", after {} others", untold_ - 1) : "";
        log_(fmt::format("somebody who asked for the grant was refused{}: {}", others, why));
        untold_ = 0;
        ++told_;
        next_line_ = Clock::now() + kBetweenLines;
    }
    [[nodiscard]] bool are_many() const { return told_ >= kToldEach; }

  private:
    const std::function<void(const std::string&)>& log_;
    unsigned told_ = 0;  ///< lines
    uint64_t untold_ = 0;
    Clock::time_point next_line_;
};

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
    Refusals refusals(log);
    bool pauses = false;
    while (true) {
        std::array<pollfd, 2> events{
            {{delivery.init.get(), POLLIN, 0}, {delivery.listener.get(), POLLIN, 0}}};
        if (::poll(events.data(), pauses ? 1 : 2, pauses ? kPauseAfter : -1) < 0) {
            const int error = errno;
            if (error == EINTR) continue;
            return fail_errno(error, "poll");
        }
        if (events[0].revents != 0) return DeliveryEnd::ContainerEnded;
        if (std::exchange(pauses, false) || events[1].revents == 0) continue;
        const Status given = give_to_next(delivery);
        if (given) return DeliveryEnd::Delivered;
        refusals.add(given.error().message);
        pauses = refusals.are_many();
    }
}

}  // namespace postern
