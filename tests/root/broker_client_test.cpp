// SPDX-License-Identifier: Apache-2.0
#include "broker-core/broker_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "broker-core/broker_message.h"
#include "broker-core/packet.h"

namespace postern {
namespace {

using testing::HasSubstr;

/// A socket as systemd or a holder keeps it while no broker runs: it listens, and nobody is behind it.
class BrokerClientTest : public testing::Test {
  protected:
    void SetUp() override {
        std::string name = "/tmp/postern-client-XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
        auto listener = listen_at(path(), 0600);
        ASSERT_TRUE(listener) << listener.error().message;
        listener_ = std::move(*listener);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }
    [[nodiscard]] std::string path() const { return folder_ + "/socket"; }

    std::string folder_;
    UniqueFd listener_;
};

TEST_F(BrokerClientTest, WhereNobodyAnswersThatIsSaid) {
    const auto begin = std::chrono::steady_clock::now();
    const auto client = BrokerClient::connect(path(), {}, std::chrono::milliseconds(300));
    ASSERT_FALSE(client);
    EXPECT_EQ(client.error().errnum, ETIMEDOUT);
    EXPECT_THAT(client.error().message, HasSubstr("journalctl -u postern-broker"));
    EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(300));
}

TEST_F(BrokerClientTest, WhereNobodyLetsCallersInThatIsSaid) {
    ASSERT_EQ(::listen(listener_.get(), 0), 0);
    std::vector<UniqueFd> queue;
    Result<UniqueFd> next = connect_to(path(), std::chrono::seconds(1));
    for (; next && queue.size() < 10; next = connect_to(path(), std::chrono::seconds(1)))
        queue.push_back(std::move(*next));
    EXPECT_FALSE(queue.empty()) << "the control";
    ASSERT_FALSE(next);
    EXPECT_EQ(next.error().errnum, ETIMEDOUT);
}

TEST_F(BrokerClientTest, ALateGreetingIsInTime) {
    std::thread late([this] {
        const UniqueFd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        std::this_thread::sleep_for(std::chrono::milliseconds(400));
        EXPECT_TRUE(send_packet(connection.get(), R"({"postern":1,"broker":"x","nonce":"n"})", {}));
    });
    const auto client = BrokerClient::connect(path(), {}, std::chrono::seconds(60));
    late.join();
    EXPECT_TRUE(client) << client.error().message;
}

TEST_F(BrokerClientTest, WhoIsTurnedAwayInACrowdCallsAgain) {
    constexpr int kTurnedAway = 3;
    std::thread broker([this] {
        for (int i = 0; i <= kTurnedAway; ++i) {
            const UniqueFd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            const std::string said = i < kTurnedAway
                                         ? broker_refusal(BrokerRefusal::Busy, "uid 0 has 32 connections")
                                         : broker_greeting("n");
            EXPECT_TRUE(send_packet(connection.get(), said, {}));
        }
    });
    const auto client = BrokerClient::connect(path());
    broker.join();
    EXPECT_TRUE(client) << client.error().message;
}

TEST_F(BrokerClientTest, WhoIsTurnedAwayForGoodIsToldWhy) {
    constexpr std::chrono::milliseconds kPatience{3000};
    for (const BrokerRefusal kind : {BrokerRefusal::Busy, BrokerRefusal::Denied}) {
        std::atomic<bool> ends{false};
        std::atomic<int> calls{0};
        std::thread broker([&] {
            while (true) {
                const UniqueFd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
                if (ends) return;
                ++calls;
                EXPECT_TRUE(send_packet(connection.get(), broker_refusal(kind, "not you"), {}));
            }
        });
        auto begin = std::chrono::steady_clock::now();
        auto client = BrokerClient::connect(path(), {}, kPatience);
        // Once only because the first call took its whole time: this process may not have run.
        for (int i = 0; i < 3 && kind == BrokerRefusal::Busy && calls == 1 &&
                        std::chrono::steady_clock::now() - begin >= kPatience;
             ++i) {
            calls = 0;
            begin = std::chrono::steady_clock::now();
            client = BrokerClient::connect(path(), {}, kPatience);
        }
        ends = true;
        const auto last = connect_to(path());
        broker.join();
        ASSERT_FALSE(client);
        EXPECT_EQ(client.error().message, "not you");
        if (kind == BrokerRefusal::Busy)
            EXPECT_GT(calls.load(), 1);
        else
            EXPECT_EQ(calls.load(), 1);
    }
}

TEST_F(BrokerClientTest, AnAnswerMayTakeItsTime) {
    std::thread late([this] {
        const UniqueFd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        EXPECT_TRUE(send_packet(connection.get(), R"({"postern":1,"broker":"x","nonce":"n"})", {}));
        EXPECT_TRUE(receive_packet(connection.get(), 4096, 1));
        std::this_thread::sleep_for(std::chrono::milliseconds(400));
        EXPECT_TRUE(send_packet(connection.get(), R"({"postern":1})", {}));
    });
    const auto goes_on = [] { return false; };
    auto client = BrokerClient::connect(path(), goes_on);
    ASSERT_TRUE(client) << client.error().message;
    BrokerRequest request;
    request.op = BrokerRequest::Op::Grants;
    const auto answer = client->ask(request, goes_on);
    late.join();
    EXPECT_TRUE(answer) << answer.error().message;
}

}  // namespace
}  // namespace postern
