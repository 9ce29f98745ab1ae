// SPDX-License-Identifier: Apache-2.0
#include "broker-core/broker_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <map>
#include <span>
#include <tuple>
#include <utility>

#include "broker-core/boot_clock.h"
#include "broker-core/file.h"

namespace postern {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
/// For whoever asks again at once, such as one container after another.
constexpr int64_t kIdleEnough = 500 * kMillisecond;
/// Whoever has started it is about to call.
constexpr int64_t kUncalledEnough = 5'000 * kMillisecond;
constexpr int kIdleLook = 100;           ///< milliseconds
constexpr unsigned kMostAccepted = 256;  ///< a turn
/// Who connects while so many are not accepted yet waits, at most once a process: a long queue would be
/// filled by those who connect without end, and others would stand behind all of them.
constexpr int kBacklog = 64;

/// A socket that is full is one whose owner does not read: nobody waits for it.
bool send_now(int socket, const std::string& text, std::span<const int> fds) {
    return send_packet(socket, text, fds, MSG_DONTWAIT).has_value();
}

/// While it lives the kernel lets go of other people's files without waiting for long. The last user of a
/// file waits for its end in its place, be it one who refused to receive it: for as long as SO_LINGER says at
/// a TCP socket. A signal ends such a wait, and one that came before the wait would not, so they go on
/// coming.
class Unhindered {
  public:
    Unhindered() { set(kMostWait); }
    Unhindered(const Unhindered&) = delete;
    Unhindered& operator=(const Unhindered&) = delete;
    ~Unhindered() { set(0); }

  private:
    static constexpr suseconds_t kMostWait = 2000;
    static void set(suseconds_t microseconds) {
        const itimerval every{{0, microseconds}, {0, microseconds}};
        (void)::setitimer(ITIMER_REAL, &every, nullptr);
    }
};

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
    struct sigaction nothing {};
    nothing.sa_handler = [](int) {};
    ::sigemptyset(&nothing.sa_mask);
    ::sigaction(SIGALRM, &nothing, nullptr);
    if (::listen(server.listener_.get(), kBacklog) != 0) {
        const int error = errno;
        return fail_errno(error, "the listening socket: listen");
    }
    // accept(2) is repeated until nobody is there.
    const int flags = ::fcntl(server.listener_.get(), F_GETFL);
    if (flags < 0 || ::fcntl(server.listener_.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
        const int error = errno;
        return fail_errno(error, "the listening socket: fcntl");
    }
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
        if (is_idle()) return End::Idle;
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
        int due = broker_->attention_due();
        if (limits_.until_idle) due = due < 0 ? kIdleLook : std::min(due, kIdleLook);
        if (::poll(polled.data(), polled.size(), due) < 0) {
            const int error = errno;
            if (error == EINTR) continue;
            return fail_errno(error, "poll");
        }
        if (polled[0].revents != 0) {
            signalfd_siginfo info{};
            if (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
                return info.ssi_signo == SIGHUP ? End::Restart : End::Asked;
        }
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
        sweep();
        if (polled[1].revents != 0) accept_some();
    }
}

bool BrokerServer::is_idle() {
    if (!limits_.until_idle) return false;
    if (!connections_.empty() || !broker_->is_settled()) {
        idle_seen_ = idle_for_ = 0;
        return false;
    }
    const int64_t now = clock_time(CLOCK_MONOTONIC);
    // Where this process stood still, so may have its callers.
    idle_for_ += idle_seen_ == 0 ? 0 : std::min(now - idle_seen_, 2 * kIdleLook * kMillisecond);
    idle_seen_ = now;
    return idle_for_ > (called_ ? kIdleEnough : kUncalledEnough);
}

bool BrokerServer::let_in() {
    accept_some();
    return !connections_.empty();
}

// ---- connections
// ----------------------------------------------------------------------------------------------------

size_t BrokerServer::count_of(uid_t uid) const {
    return static_cast<size_t>(
        std::count_if(connections_.begin(), connections_.end(),
                      [&](const Connection& each) { return !each.closed && each.peer.caller.uid == uid; }));
}

/// Many a turn: those who only knock must not keep the others out.
void BrokerServer::accept_some() {
    for (unsigned i = 0; i < kMostAccepted; ++i) {
        if (!accept_one()) return;
    }
}

/// False if nobody is there.
bool BrokerServer::accept_one() {
    const Unhindered unhindered;  // for those that are turned away: what they sent goes with them
    UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
        // Somebody gave up; or files are short, and then the oldest idle connection is the price.
        const int error = errno;
        if (error != EMFILE && error != ENFILE && error != ENOBUFS && error != ENOMEM) return false;
        make_room();
        sweep();
        return false;
    }
    const int on = 1;
    auto peer = read_peer(socket.get());
    if (!peer || ::setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) return true;
    const uid_t uid = peer->caller.uid;
    // The broker's own may end it anyway, and each of root's containers holds a connection while it starts
    // and asks by another (need_broker): as many as may be held would wait for each other.
    if (uid != ::geteuid() && count_of(uid) >= limits_.per_user) {
        (void)send_now(
            socket.get(),
            broker_refusal(BrokerRefusal::Busy,
                           fmt::format("uid {} has {} connections to the broker already, which is the most; "
                                       "close one",
                                       uid, limits_.per_user)),
            {});
        return true;
    }
    if (connections_.size() >= limits_.connections) {
        make_room();
        sweep();
    }
    called_ = true;
    Connection& made = connections_.emplace_back();
    made.socket = std::move(socket);
    made.peer = std::move(*peer);
    // Whose number it is by now is known once it has sent back the nonce (check_sender).
    if (made.peer.pid > 0) made.pidfd = pidfd_of(made.peer.pid).value_or(UniqueFd());
    made.nonce = random_id();
    made.last_used = ++turn_;
    send(made, broker_greeting(made.nonce));
    return true;
}

/// The user with the most connections loses one: of those that wait for nothing the one that was quiet for
/// longest, and else the one that began to wait last.
void BrokerServer::make_room() {
    std::map<uid_t, size_t> counts;
    for (const Connection& each : connections_) {
        if (!each.closed) ++counts[each.peer.caller.uid];
    }
    const auto weight = [&](const Connection& each) {
        const bool waits = each.waiting || each.stopping;
        return std::make_tuple(counts[each.peer.caller.uid], !waits,
                               waits ? each.last_used : UINT64_MAX - each.last_used);
    };
    Connection* victim = nullptr;
    decltype(weight(connections_.front())) heaviest{};
    for (Connection& each : connections_) {
        if (each.closed) continue;
        const auto its = weight(each);
        if (victim != nullptr && its <= heaviest) continue;
        victim = &each;
        heaviest = its;
    }
    if (victim == nullptr) return;
    (void)send_now(
        victim->socket.get(),
        broker_refusal(BrokerRefusal::Busy, "the broker has too many connections; try again later"), {});
    victim->closed = true;
}

void BrokerServer::sweep() {
    const bool any = std::any_of(connections_.begin(), connections_.end(),
                                 [](const Connection& each) { return each.closed; });
    if (!any) return;
    const Unhindered unhindered;
    connections_.remove_if([](const Connection& each) { return each.closed; });
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
    const auto packet = [&] {
        const Unhindered unhindered;
        // Nothing is asked for with files.
        return receive_packet(connection.socket.get(), kMaxBrokerRequest, 0, MSG_DONTWAIT);
    }();
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
    const auto request = read_broker_request(packet->text);
    if (!request) {
        refuse(connection, BrokerRefusal::BadRequest, request.error().message);
        connection.closed = true;
        return;
    }
    if (request->op == BrokerRequest::Op::Grant) {
        if (const Status sender = check_sender(connection, *request, packet->sender); !sender) {
            refuse(connection, BrokerRefusal::BadRequest, sender.error().message);
            connection.closed = true;
            return;
        }
    }
    answer(connection, *request);
}

/// Who sent this message must be who is granted, and have connected. The kernel says the sender's number. It
/// had it after the greeting, for it knows the nonce; so the pidfd, which was opened before the greeting was
/// sent and has that number now, is its own, and no later process's with the same number.
Status BrokerServer::check_sender(const Connection& connection, const BrokerRequest& request,
                                  const std::optional<ucred>& sender) {
    const Peer& peer = connection.peer;
    if (request.nonce != connection.nonce) return fail("nonce: must be the one of the greeting");
    if (!sender || sender->pid == 0 || sender->pid != peer.pid || !connection.pidfd)
        return fail("a grant is asked for by the process that connected, itself");
    if (sender->uid != peer.caller.uid)
        return fail("the connection is of uid {}, and its sender of uid {}", peer.caller.uid, sender->uid);
    POSTERN_ASSIGN(const pid_t pid, pid_of(connection.pidfd.get()));
    if (pid != peer.pid) return fail("the process that connected has ended");
    return {};
}

void BrokerServer::answer(Connection& connection, const BrokerRequest& request) {
    const Caller& caller = connection.peer.caller;
    switch (request.op) {
        case BrokerRequest::Op::Devices:
            return send(connection, broker_answer(broker_->devices(caller)));
        case BrokerRequest::Op::Grants:
            return send(connection, broker_answer(broker_->grants(caller)));
        case BrokerRequest::Op::Grant:
            if (stopping_) return refuse(connection, BrokerRefusal::Busy, "the broker is being stopped");
            return grant(connection, request);
        case BrokerRequest::Op::Enter: {
            const auto entered = broker_->enter(caller, connection.peer.pid, request);
            if (!entered) return refuse(connection, entered.error().kind, entered.error().message);
            return send(connection, broker_answer({{"entered", request.grant}}));
        }
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

void BrokerServer::grant(Connection& connection, const BrokerRequest& request) {
    auto granted = broker_->grant(connection.peer.caller, connection.pidfd.get(), request);
    if (!granted) {
        if (granted.error().kind == BrokerRefusal::Busy && request.wait) {
            connection.waiting = request;
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
        const BrokerRequest asked = *std::exchange(each->waiting, std::nullopt);
        grant(*each, asked);
    }
}

}  // namespace postern
