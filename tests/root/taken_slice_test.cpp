// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/taken_slice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "broker-core/broker_message.h"
#include "broker-core/packet.h"

namespace postern {
namespace {

using testing::HasSubstr;

const NamedSlice kSlice{"disk.1", "0000:00:02.0", 1};

std::string grants(const Json& list) {
    return broker_answer({{"grants", list}});
}
std::string busy() {
    return broker_refusal(BrokerRefusal::Busy, "all slices are in use");
}
std::string given() {
    return broker_answer(
        {{"grant", "g"}, {"device", kSlice.bdf}, {"slice", 1}, {"cgroup", "/c"}, {"fds", Json::array()}});
}
Json held(const char* state) {
    return {{"device", kSlice.bdf}, {"slice", 1}, {"state", state}, {"pid", 7}, {"grant", "old"}};
}

/// What a broker says to one caller after the other, and at last again and again.
class Says {
  public:
    explicit Says(std::vector<std::string> answers) : answers_(std::move(answers)) {
        std::string name = "/tmp/postern-slice-XXXXXX";
        EXPECT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
        auto listener = listen_at(path(), 0600);
        EXPECT_TRUE(listener);
        listener_ = std::move(*listener);
        thread_ = std::thread([this] { serve(); });
    }
    Says(const Says&) = delete;
    Says& operator=(const Says&) = delete;
    ~Says() {
        ends_ = true;
        (void)connect_to(path());
        thread_.join();
        std::filesystem::remove_all(folder_);
    }
    [[nodiscard]] std::string path() const { return folder_ + "/socket"; }

  private:
    void serve() {
        for (size_t i = 0;; ++i) {
            const UniqueFd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            if (ends_) return;
            EXPECT_TRUE(send_packet(connection.get(), broker_greeting("n"), {}));
            EXPECT_TRUE(receive_packet(connection.get(), 4096, 1));
            // The last two by turns: a question for the slice, and one for who has it.
            const size_t last = answers_.size();
            const size_t which = i < last ? i : last - 2 + (i - last) % 2;
            EXPECT_TRUE(send_packet(connection.get(), answers_[which], {}));
        }
    }

    std::vector<std::string> answers_;
    std::string folder_;
    UniqueFd listener_;
    std::atomic<bool> ends_{false};
    std::thread thread_;
};

TEST(TakenSlice, OneThatIsFreedBetweenTheQuestionsIsTaken) {
    const Says broker({busy(), grants(Json::array()), given(), grants(Json::array())});
    const auto grant = take_slice(broker.path(), kSlice);
    ASSERT_TRUE(grant) << grant.error().error.message;
    EXPECT_EQ(grant->id, "g");
}

TEST(TakenSlice, OneThatIsEndingIsWaitedFor) {
    const Says broker({busy(), grants(Json::array({held("ending")})), busy(),
                       grants(Json::array({held("ending")})), given(), grants(Json::array())});
    EXPECT_TRUE(take_slice(broker.path(), kSlice));
}

TEST(TakenSlice, OneThatFilesHoldUpIsWaitedForAMoment) {
    Json one = held("ending");
    one["trouble"] = "open files are left";
    // For 5 s, in which this process may not have run.
    bool taken = false;
    for (int round = 0; round < 3 && !taken; ++round) {
        const auto begin = std::chrono::steady_clock::now();
        const Says soon({busy(), grants(Json::array({one})), busy(), grants(Json::array({one})), given(),
                         grants(Json::array())});
        taken = take_slice(soon.path(), kSlice).has_value();
        if (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(4500)) break;
    }
    EXPECT_TRUE(taken);
    const Says never({busy(), grants(Json::array({one}))});
    const auto refused = take_slice(never.path(), kSlice);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().error.message, HasSubstr("which ends: open files are left"));
}

TEST(TakenSlice, OneInUseIsRefusedWithWhoHasIt) {
    const Says broker({busy(), grants(Json::array({held("live")}))});
    const auto refused = take_slice(broker.path(), kSlice);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().refusal, BrokerRefusal::Busy);
    EXPECT_THAT(refused.error().error.message, HasSubstr("in use: slice 1: pid 7"));
}

}  // namespace
}  // namespace postern
