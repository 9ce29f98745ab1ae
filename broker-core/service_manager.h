// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker-core/named_fd.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// What a service manager passed by the sd_listen_fds(3) convention, in its order, owned and O_CLOEXEC;
/// nothing if the variables are missing or another process's. The variables are unset, so that a child does
/// not take them for its own.
[[nodiscard]] Result<std::vector<NamedFd>> take_passed_fds();

/// The socket of sd_notify(3), which libsystemd.a does not exist for.
class ServiceManager {
  public:
    /// By $NOTIFY_SOCKET, a path or an abstract name ("@…"), which is unset; nothing where there is none.
    [[nodiscard]] static Result<std::optional<ServiceManager>> from_environment();
    /// By such an address.
    [[nodiscard]] static Result<ServiceManager> at(const std::string& address);

    /// Sends assignments ("READY=1\nSTATUS=…") with `fds` (borrowed); waits while the manager's queue is
    /// full, up to 30 s. That it was received is not known then.
    [[nodiscard]] Status notify(std::string_view assignments, std::span<const int> fds = {}) const;
    /// Waits until the manager has worked through all that was sent before, as sd_notify_barrier(3) does, up
    /// to 30 s.
    [[nodiscard]] Status barrier() const;

  private:
    explicit ServiceManager(UniqueFd socket) : socket_(std::move(socket)) {}

    UniqueFd socket_;
};

}  // namespace postern
