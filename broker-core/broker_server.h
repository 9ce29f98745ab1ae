// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "broker-core/broker.h"
#include "broker-core/broker_message.h"
#include "broker-core/packet.h"
#include "broker-core/peer.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// The broker's door: a SOCK_SEQPACKET socket that everybody may connect. What a caller can cost is bounded:
/// connections in all and per user, bytes and files of a message, one request at a time; one that does not
/// read its answers is cut off. One thread, one message of each connection in turn.
class BrokerServer {
  public:
    struct Limits {
        size_t connections = 512;
        size_t per_user = 32;     ///< but for the broker's own
        bool until_idle = false;  ///< run() comes back when nothing is left to do
    };

    /// `listener` is taken; the signals SIGINT, SIGTERM and SIGHUP are blocked from here on. `broker` is
    /// borrowed.
    [[nodiscard]] static Result<BrokerServer> create(Broker& broker, UniqueFd listener, Limits limits);

    BrokerServer(BrokerServer&&) noexcept = default;

    /// Why run() came back.
    enum class End {
        Asked,    ///< SIGINT, SIGTERM
        Restart,  ///< SIGHUP: what is kept goes on in a new program
        Stopped,  ///< by the operation "stop": no grants are left
        Idle,     ///< nobody is connected, and nothing of a grant is left to be seen to
    };
    [[nodiscard]] Result<End> run();
    /// Lets in who is waiting at the door. False if nobody is.
    bool let_in();

  private:
    struct Connection {
        UniqueFd socket;
        Peer peer;
        UniqueFd pidfd;     ///< of the process that connected; none if it had ended by then
        std::string nonce;  ///< told after `pidfd` was opened
        uint64_t last_used = 0;
        std::optional<BrokerRequest> waiting;
        bool stopping = false;  ///< asked for the end, and hears of it
        bool closed = false;
    };
    using Connections = std::list<Connection>;

    BrokerServer(Broker& broker, UniqueFd listener, Limits limits)
        : broker_(&broker), listener_(std::move(listener)), limits_(limits) {}

    void accept_some();
    [[nodiscard]] bool accept_one();
    [[nodiscard]] static Status check_sender(const Connection& connection, const BrokerRequest& request,
                                             const std::optional<ucred>& sender);
    void sweep();
    [[nodiscard]] size_t count_of(uid_t uid) const;
    void make_room();
    void serve(Connection& connection);
    void answer(Connection& connection, const BrokerRequest& request);
    void grant(Connection& connection, const BrokerRequest& request);
    void serve_waiting();
    void send(Connection& connection, const std::string& text, std::span<const int> fds = {});
    void refuse(Connection& connection, BrokerRefusal kind, std::string_view message);

    Broker* broker_;
    UniqueFd listener_;
    Limits limits_;
    UniqueFd signals_;
    Connections connections_;
    uint64_t turn_ = 0;
    int64_t idle_seen_ = 0;  ///< when it was last seen to be idle: CLOCK_MONOTONIC, ns; 0: it is not
    int64_t idle_for_ = 0;   ///< ns, of the time in which this process runs
    bool called_ = false;    ///< somebody has been let in
    bool stopping_ = false;
    [[nodiscard]] bool is_idle();
};

}  // namespace postern
