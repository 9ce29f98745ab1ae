// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "broker-core/broker_message.h"
#include "broker-core/grant.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// A connection to `postern broker`.
class BrokerClient {
  public:
    /// Connects, and hears the greeting; `give_up` as of ask(). Errnum ENOENT or ECONNREFUSED: there is no
    /// broker. ETIMEDOUT: systemd or a holder has the socket, and in all of `patience` no broker has come.
    /// That must be longer than what holds up a broker (the setup of a device), and shorter than what CDI
    /// leaves to a hook (two minutes). A broker that has too many of this user's callers is called again for
    /// up to 10 s.
    [[nodiscard]] static Result<BrokerClient> connect(
        const std::string& path, const std::function<bool()>& give_up = {},
        std::chrono::milliseconds patience = std::chrono::seconds{100});

    struct Answer {
        BrokerReply reply;
        std::vector<UniqueFd> fds;
    };
    /// Asks and waits. A grant is for this process, which must be the one that connected. `give_up` is asked
    /// every now and then; true makes it an error with errnum EINTR. An errnum of ECONNRESET means that the
    /// broker is gone.
    [[nodiscard]] Result<Answer> ask(const BrokerRequest& request, const std::function<bool()>& give_up = {});

  private:
    BrokerClient(UniqueFd socket, std::string nonce) : socket_(std::move(socket)), nonce_(std::move(nonce)) {}

    UniqueFd socket_;
    std::string nonce_;  ///< of the greeting
};

/// Connects to the broker at `path` and asks. A broker that goes away meanwhile may be being replaced: the
/// next one is asked, for a minute without any. Errnum ENOENT or ECONNREFUSED: there was none from the
/// beginning; `expected` says that there must be one, which is waited for, too.
[[nodiscard]] Result<BrokerClient::Answer> ask_broker(const std::string& path, const BrokerRequest& request,
                                                      bool expected = false,
                                                      const std::function<bool()>& give_up = {});

/// What the broker gave to this process, which is in the grant's cgroup by now.
struct BrokeredGrant {
    std::string id;
    std::string device;
    unsigned slice = 0;
    std::string cgroup;  ///< folder
    std::vector<NamedFd> fds;
};

/// Why there is none, with the broker's own word for it.
struct BrokerDenial {
    Error error;
    std::optional<BrokerRefusal> refusal;  ///< none: the broker could not be asked
};

/// Asks the broker at `path`, which is expected to be there, for a grant for this process.
[[nodiscard]] tl::expected<BrokeredGrant, BrokerDenial> ask_for_grant(
    const std::string& path, const BrokerRequest& request, const std::function<bool()>& give_up = {});

/// Makes the container whose first process is `pid`, which is made but does not run yet, the one that has
/// `grant`: asked for with `container`, by a process that still lives. Its cgroup is the grant's sandbox from
/// then on, and the grant ends with that process. May be repeated.
[[nodiscard]] Status enter_container(const std::string& path, const std::string& grant, pid_t pid);

}  // namespace postern
