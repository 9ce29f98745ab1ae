// SPDX-License-Identifier: Apache-2.0
#include "broker-core/broker_server.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <map>
#include <span>
#include <utility>

namespace postern {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};

/// A socket that is full is one whose owner does not read: nobody waits for it.
bool send_now(int socket, const std::string& text, std::span<const int> fds) {
    return send_packet(socket, text, fds, MSG_DONTWAIT).has_value();
}

}  // namespace

Result<BrokerServer> BrokerServer::create(Broker& broker, UniqueFd listener, Limits limits) {
    BrokerServer server(broker, std::move(listener), limits);
    sigset_t mask;
    ::sigemptyset(&mask);
    for (const int signal : kSignals) ::sigaddset(&mask, signal);
    server.signals_.reset(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!server.signals_) {
        const int error = errno;
        return fail_errno(error, "signalfd");
    }
    ::pthread_sigmask(SIG_BLOCK, &mask, nullptr);
    return server;
}

Result<BrokerServer::End> BrokerServer::run() {
    std::vector<pollfd> polled;
    while (true) {
        if (broker_->attend()) serve_waiting();
        if (stopping_ && !broker_->has_grants()) {
            for (Connection& each : connections_) {
                if (each.stopping) send(each, broker_answer({{"stopped", true}}));
            }
            return End::Stopped;
        }
        polled.clear();
        polled.push_back({signals_.get(), POLLIN, 0});
        polled.push_back({listener_.get(), POLLIN, 0});
        for (const int pidfd : broker_->clients()) polled.push_back({pidfd, POLLIN, 0});
        const size_t first = polled.size();
        std::vector<Connections::iterator> in_order;
        for (auto each = connections_.begin(); each != connections_.end(); ++each) {
            // Of one that waits only its end matters.
            const short events = each->waiting || each->stopping ? 0 : POLLIN;
            polled.push_back({each->socket.get(), events, 0});
            in_order.push_back(each);
        }
        if (::poll(polled.data(), polled.size(), broker_->attention_due()) < 0) {
            const int error = errno;
            if (error == EINTR) continue;
            return fail_errno(error, "poll");
        }
        if (polled[0].revents != 0) {
            signalfd_siginfo info{};
            if (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
                return info.ssi_signo == SIGHUP ? End::Restart : End::Asked;
        }
        if (polled[1].revents != 0) accept_one();
        for (size_t i = 0; i < in_order.size(); ++i) {
            const short events = polled[first + i].revents;
            if (events == 0) continue;
            Connection& connection = *in_order[i];
            if ((events & POLLIN) != 0 && !connection.waiting && !connection.stopping) {
                serve(connection);
            } else {
                connection.closed = true;
            }
        }
        connections_.remove_if([](const Connection& each) { return each.closed; });
    }
}

// ---- connections
// ----------------------------------------------------------------------------------------------------

size_t BrokerServer::count_of(uid_t uid) const {
    return static_cast<size_t>(
        std::count_if(connections_.begin(), connections_.end(),
                      [&](const Connection& each) { return !each.closed && each.peer.caller.uid == uid; }));
}

void BrokerServer::accept_one() {
    UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
        // Somebody gave up; or files are short, and then the oldest idle connection is the price.
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) make_room();
        return;
    }
    const int on = 1;
    auto peer = read_peer(socket.get());
    if (!peer || ::setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) return;
    const uid_t uid = peer->caller.uid;
    if (count_of(uid) >= limits_.per_user) {
        (void)send_now(
            socket.get(),
            broker_refusal(BrokerRefusal::Busy,
                           fmt::format("uid {} has {} connections to the broker already, which is the most; "
                                       "close one",
                                       uid, limits_.per_user)),
            {});
        return;
    }
    if (connections_.size() >= limits_.connections) make_room();
    Connection& made = connections_.emplace_back();
    made.socket = std::move(socket);
    made.peer = std::move(*peer);
    made.last_used = ++turn_;
    send(made, broker_greeting());
}

/// The user with the most connections loses the one that has been idle for longest.
void BrokerServer::make_room() {
    std::map<uid_t, size_t> counts;
    for (const Connection& each : connections_) {
        if (!each.closed) ++counts[each.peer.caller.uid];
    }
    Connection* victim = nullptr;
    const auto weight = [&](const Connection& each) {
        // Of those who wait the latest goes first; of others the one that was quiet for longest, and before
        // those.
        return std::make_pair(each.waiting || each.stopping ? 0U : 1U, counts[each.peer.caller.uid]);
    };
    for (Connection& each : connections_) {
        if (each.closed) continue;
        if (victim == nullptr || weight(each) > weight(*victim) ||
            (weight(each) == weight(*victim) && each.last_used < victim->last_used)) {
            victim = &each;
        }
    }
    if (victim == nullptr) return;
    (void)send_now(
        victim->socket.get(),
        broker_refusal(BrokerRefusal::Busy, "the broker has too many connections; try again later"), {});
    victim->closed = true;
}

void BrokerServer::send(Connection& connection, const std::string& text, std::span<const int> fds) {
    if (!send_now(connection.socket.get(), text, fds)) connection.closed = true;
}

void BrokerServer::refuse(Connection& connection, BrokerRefusal kind, std::string_view message) {
    send(connection, broker_refusal(kind, message));
}

// ---- requests
// -------------------------------------------------------------------------------------------------------

void BrokerServer::serve(Connection& connection) {
    connection.last_used = ++turn_;
    auto packet = receive_packet(connection.socket.get(), kMaxBrokerRequest, 1, MSG_DONTWAIT);
    if (!packet) {
        if (packet.error().errnum == EAGAIN) return;
        refuse(connection, BrokerRefusal::BadRequest, packet.error().message);
        connection.closed = true;
        return;
    }
    if (packet->end) {
        connection.closed = true;
        return;
    }
    auto request = read_broker_request(packet->text);
    if (!request) {
        refuse(connection, BrokerRefusal::BadRequest, request.error().message);
        connection.closed = true;
        return;
    }
    UniqueFd pidfd;
    if (request->op == BrokerRequest::Op::Grant) {
        // Who sent this message must be who is granted: the kernel says the sender's pid, and a pidfd that
        // was opened before it was sent and has that pid now can be no other process's.
        const Status sender = [&]() -> Status {
            if (packet->fds.size() != 1)
                return fail("a grant is asked for with one file, the caller's own pidfd");
            POSTERN_ASSIGN(const pid_t pid, pid_of(packet->fds.front().get()));
            if (!packet->sender || packet->sender->pid == 0 || packet->sender->pid != pid)
                return fail(
                    "the pidfd must be the sender's own, and be sent after the greeting was received");
            if (packet->sender->uid != connection.peer.caller.uid)
                return fail("the connection is of uid {}, and its sender of uid {}",
                            connection.peer.caller.uid, packet->sender->uid);
            return {};
        }();
        if (!sender) {
            refuse(connection, BrokerRefusal::BadRequest, sender.error().message);
            connection.closed = true;
            return;
        }
        pidfd = std::move(packet->fds.front());
    } else if (!packet->fds.empty()) {
        refuse(connection, BrokerRefusal::BadRequest, "only a grant is asked for with a file");
        connection.closed = true;
        return;
    }
    answer(connection, *request, std::move(pidfd));
}

void BrokerServer::answer(Connection& connection, const BrokerRequest& request, UniqueFd pidfd) {
    const Caller& caller = connection.peer.caller;
    switch (request.op) {
        case BrokerRequest::Op::Devices:
            return send(connection, broker_answer(broker_->devices(caller)));
        case BrokerRequest::Op::Grants:
            return send(connection, broker_answer(broker_->grants(caller)));
        case BrokerRequest::Op::Grant:
            if (stopping_) return refuse(connection, BrokerRefusal::Busy, "the broker is being stopped");
            return grant(connection, request, std::move(pidfd));
        case BrokerRequest::Op::Revoke: {
            const auto words = broker_->revoke(caller, request);
            if (!words) return refuse(connection, words.error().kind, words.error().message);
            return send(connection, broker_answer({{"revoked", *words}}));
        }
        case BrokerRequest::Op::Stop:
            if (caller.uid != 0)
                return refuse(connection, BrokerRefusal::Denied, "only root may stop the broker");
            if (broker_->has_grants() && !request.kill) {
                return refuse(connection, BrokerRefusal::Busy,
                              "there are live grants (`postern ps`); end their clients, or ask for --kill");
            }
            connection.stopping = true;
            stopping_ = true;
            broker_->kill_all();
            return;
    }
}

void BrokerServer::grant(Connection& connection, const BrokerRequest& request, UniqueFd pidfd) {
    auto granted = broker_->grant(connection.peer.caller, pidfd.get(), request);
    if (!granted) {
        if (granted.error().kind == BrokerRefusal::Busy && request.wait) {
            connection.waiting = Waiting{request, std::move(pidfd)};
            return;
        }
        return refuse(connection, granted.error().kind, granted.error().message);
    }
    Json names = Json::array();
    std::vector<int> fds;
    for (const NamedFd& each : granted->fds) {
        names.push_back(each.name);
        fds.push_back(each.fd.get());
    }
    // If this cannot be sent, the caller may ask again: it gets the same grant until it ends.
    send(connection,
         broker_answer({{"grant", granted->grant},
                        {"device", granted->device},
                        {"slice", granted->slice},
                        {"cgroup", granted->cgroup},
                        {"fds", std::move(names)}}),
         fds);
}

/// In the order in which they came.
void BrokerServer::serve_waiting() {
    std::vector<Connection*> waiting;
    for (Connection& each : connections_) {
        if (each.waiting && !each.closed) waiting.push_back(&each);
    }
    std::sort(waiting.begin(), waiting.end(),
              [](const Connection* a, const Connection* b) { return a->last_used < b->last_used; });
    for (Connection* each : waiting) {
        Waiting asked = std::move(*each->waiting);
        each->waiting.reset();
        grant(*each, asked.request, std::move(asked.pidfd));
    }
}

}  // namespace postern
