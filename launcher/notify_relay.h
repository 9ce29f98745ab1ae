// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "launcher/sandbox.h"
#include "launcher/sandbox_spec.h"
#include "launcher/supervisor.h"

namespace postern {

class ServiceManager;

/// Readiness and watchdog of a client in its sandbox (sd_notify(3), sd_watchdog_enabled(3)): a NOTIFY_SOCKET
/// of its own, from which filter_notify_message() passes on what the client may say to the service manager.
/// What is in the client's hands is bounded: messages a second, their size, their fds, which are closed.
class NotifyRelay {
  public:
    /// Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of the environment, and makes the client's
    /// socket in a folder that only this user enters. Error: nobody started postern who wants to be told.
    [[nodiscard]] static Result<std::unique_ptr<NotifyRelay>> open();

    NotifyRelay(const NotifyRelay&) = delete;
    NotifyRelay& operator=(const NotifyRelay&) = delete;
    ~NotifyRelay();

    /// Shows the socket to the client of `spec`, and tells it of the watchdog.
    [[nodiscard]] Status add_to(SandboxSpec& spec) const;

    /// The client runs: from here on its messages are passed on from `supervisor`'s loop (borrowed until
    /// this ends). The socket's file is removed: the sandbox has it.
    void begin(Supervisor& supervisor, const RunningClient& client);

  private:
    explicit NotifyRelay(ServiceManager manager);

    [[nodiscard]] Status make_socket();
    void remove_files();
    void read();
    /// Reads no more until the second is over.
    void pause();
    [[nodiscard]] bool is_clients(pid_t sender) const;
    void pass_on(std::string_view message);

    std::unique_ptr<ServiceManager> manager_;
    std::string folder_;
    std::optional<std::string> watchdog_;  ///< WATCHDOG_USEC, if it is this process's
    UniqueFd socket_;
    UniqueFd timer_;
    UniqueFd ready_;  ///< epoll(7) of both
    Supervisor* supervisor_ = nullptr;
    pid_t init_ = -1;
    pid_t client_ = -1;
    unsigned taken_ = 0;  ///< messages since the timer ran out
    bool told_loss_ = false;
};

}  // namespace postern
