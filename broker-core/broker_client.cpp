// SPDX-License-Identifier: Apache-2.0
#include "broker-core/broker_client.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <optional>
#include <thread>

#include "broker-core/packet.h"

namespace postern {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxFds = 250;
constexpr int kAskEvery = 100;  ///< milliseconds
/// Of one user's callers only so many are let in at once (BrokerServer::Limits); many containers may be
/// started at the same moment, and most callers are gone in another.
constexpr std::chrono::seconds kPatienceInCrowds{10};
constexpr std::chrono::milliseconds kBetweenCalls{50};
/// Without any broker: its restart takes a second or so, more where a machine is loaded.
constexpr std::chrono::seconds kPatienceToConnect{60};
/// With brokers that go away whenever they are asked.
constexpr std::chrono::seconds kMostPatience{600};

Failure lost() {
    return Failure(Error{"the broker has gone away", ECONNRESET});
}

bool means_gone(int errnum) {
    return errnum == ECONNRESET || errnum == EPIPE || errnum == ENOENT || errnum == ECONNREFUSED ||
           errnum == ENOTCONN;
}

Result<BrokerClient::Answer> receive(int socket, const std::function<bool()>& give_up,
                                     std::optional<Clock::time_point> deadline = {}) {
    while (true) {
        pollfd polled{socket, POLLIN, 0};
        const int ready = ::poll(&polled, 1, give_up || deadline ? kAskEvery : -1);
        if (ready < 0 && errno != EINTR) {
            const int error = errno;
            return fail_errno(error, "poll");
        }
        if (give_up && give_up())
            return Failure(Error{"a signal asked to end before the broker answered", EINTR});
        if (ready <= 0 && deadline && Clock::now() >= *deadline)
            return Failure(Error{
                "nobody answers; is the broker failing to start? (journalctl -u postern-broker)", ETIMEDOUT});
        if (ready <= 0) continue;
        auto packet = receive_packet(socket, kMaxBrokerReply, kMaxFds);
        if (!packet) {
            if (means_gone(packet.error().errnum)) return lost();
            return propagate(std::move(packet));
        }
        if (packet->end) return lost();
        POSTERN_ASSIGN(BrokerReply reply, read_broker_reply(packet->text));
        return BrokerClient::Answer{std::move(reply), std::move(packet->fds)};
    }
}

}  // namespace

Result<BrokerClient> BrokerClient::connect(const std::string& path, const std::function<bool()>& give_up,
                                           std::chrono::milliseconds patience) {
    const auto deadline = Clock::now() + std::min<std::chrono::milliseconds>(patience, kPatienceInCrowds);
    while (true) {
        POSTERN_ASSIGN(UniqueFd socket, connect_to(path));
        POSTERN_ASSIGN(const Answer greeting, receive(socket.get(), give_up, Clock::now() + patience));
        if (!greeting.reply.refusal) {
            const auto nonce = greeting.reply.answer.find("nonce");
            if (nonce == greeting.reply.answer.end() || !nonce->is_string())
                return fail("its greeting has no nonce; is it a broker's?");
            return BrokerClient(std::move(socket), nonce->get<std::string>());
        }
        if (greeting.reply.refusal != BrokerRefusal::Busy || Clock::now() >= deadline)
            return fail("{}", greeting.reply.message);
        std::this_thread::sleep_for(kBetweenCalls);
    }
}

Result<BrokerClient::Answer> BrokerClient::ask(const BrokerRequest& request,
                                               const std::function<bool()>& give_up) {
    BrokerRequest asked = request;
    asked.nonce = nonce_;
    auto sent = send_packet(socket_.get(), write_broker_request(asked), {});
    if (!sent) {
        // It may have said why before it closed.
        if (!means_gone(sent.error().errnum)) return propagate(std::move(sent));
    }
    return receive(socket_.get(), give_up);
}

Result<BrokerClient::Answer> ask_broker(const std::string& path, const BrokerRequest& request, bool expected,
                                        const std::function<bool()>& give_up) {
    const auto last = Clock::now() + kMostPatience;
    auto deadline = Clock::now() + kPatienceToConnect;
    while (true) {
        auto client = BrokerClient::connect(path, give_up);
        Result<BrokerClient::Answer> answer =
            client ? client->ask(request, give_up) : Failure(client.error());
        if (answer) return answer;
        const int errnum = answer.error().errnum;
        const bool was_there = client || errnum == ECONNRESET;
        if (!means_gone(errnum) || (!expected && !was_there)) return answer;
        // Whoever was there a moment ago is expected to come back.
        expected = true;
        if (was_there) deadline = std::min(Clock::now() + kPatienceToConnect, last);
        if (Clock::now() >= deadline) return answer;
        if (give_up && give_up()) return Failure(Error{"a signal asked to end", EINTR});
        const timespec pause{0, 20'000'000};
        ::nanosleep(&pause, nullptr);
    }
}

tl::expected<BrokeredGrant, BrokerDenial> ask_for_grant(const std::string& path, const BrokerRequest& request,
                                                        const std::function<bool()>& give_up) {
    const auto refuse = [&](Error error, std::optional<BrokerRefusal> kind = std::nullopt) {
        return tl::unexpected(BrokerDenial{std::move(error).within("broker " + path), kind});
    };
    auto answer = ask_broker(path, request, true, give_up);
    if (!answer) return refuse(std::move(answer.error()));
    if (answer->reply.refusal) return refuse(Error{answer->reply.message, 0}, answer->reply.refusal);
    BrokeredGrant grant;
    try {
        const Json& said = answer->reply.answer;
        grant.id = said.at("grant").get<std::string>();
        grant.device = said.at("device").get<std::string>();
        grant.slice = said.at("slice").get<unsigned>();
        grant.cgroup = said.at("cgroup").get<std::string>();
        const auto names = said.at("fds").get<std::vector<std::string>>();
        if (names.size() != answer->fds.size()) {
            return refuse(Error{
                fmt::format("{} files came, and {} were said; is this process in another sandbox, whose "
                            "files it may not receive?",
                            answer->fds.size(), names.size()),
                0});
        }
        for (size_t i = 0; i < names.size(); ++i) grant.fds.push_back({names[i], std::move(answer->fds[i])});
    } catch (const Json::exception& error) {
        return refuse(Error{fmt::format("its answer cannot be read: {}", error.what()), 0});
    }
    return grant;
}

Status enter_container(const std::string& path, const std::string& grant, pid_t pid) {
    BrokerRequest request;
    request.op = BrokerRequest::Op::Enter;
    request.grant = grant;
    request.pid = pid;
    auto answer = ask_broker(path, request, true);
    if (!answer) return propagate(std::move(answer), "broker " + path);
    if (answer->reply.refusal) return fail("broker {}: {}", path, answer->reply.message);
    return {};
}

}  // namespace postern
