// SPDX-License-Identifier: Apache-2.0
#include "broker-core/cgroup_child.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <thread>

namespace postern {
namespace {

using std::chrono::milliseconds;

constexpr ChildPatience kPatience{milliseconds(20000), milliseconds(1200)};

void sleep_for(milliseconds time) {
    std::this_thread::sleep_for(time);
}

TEST(InChild, WhatItSays) {
    EXPECT_TRUE(in_child([] { return Status(); }));
    const Status failed = in_child([]() -> Status { return Failure(Error{"as it was there", EXDEV}); });
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().message, "as it was there");
    EXPECT_EQ(failed.error().errnum, EXDEV);
    const Status nothing = in_child([]() -> Status { ::_exit(0); });
    ASSERT_FALSE(nothing);
    EXPECT_NE(nothing.error().message.find("without an answer"), std::string::npos);
}

TEST(InChild, OneThatStandsStillIsEnded) {
    const Status stood = in_child(
        [] {
            sleep_for(milliseconds(60000));
            return Status();
        },
        kPatience);
    ASSERT_FALSE(stood);
    EXPECT_EQ(stood.error().errnum, ETIME);
}

TEST(InChild, OneThatWorksIsWaitedForLongerAndNotForEver) {
    const auto work_for = [](milliseconds time) {
        return [time] {
            const auto end = std::chrono::steady_clock::now() + time;
            while (std::chrono::steady_clock::now() < end) {
            }
            return Status();
        };
    };
    EXPECT_TRUE(in_child(work_for(milliseconds(1500)), kPatience));
    const Status endless = in_child(work_for(milliseconds(60000)), {milliseconds(1500), milliseconds(1000)});
    ASSERT_FALSE(endless);
    EXPECT_EQ(endless.error().errnum, ETIME);
}

/// A process in which in_child() waits for a child that sleeps for `time`; it exits with 0 if the child was
/// waited for.
struct Waiting {
    pid_t parent = -1;
    pid_t child = -1;

    explicit Waiting(milliseconds time) {
        std::array<int, 2> ends{};
        if (::pipe(ends.data()) != 0) return;
        parent = ::fork();
        if (parent == 0) {
            (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
            const Status done = in_child(
                [&] {
                    // From here on, also if it is stopped before it sleeps.
                    const auto end = std::chrono::steady_clock::now() + time;
                    const pid_t self = ::getpid();
                    (void)!::write(ends[1], &self, sizeof self);
                    std::this_thread::sleep_until(end);
                    return Status();
                },
                kPatience);
            ::_exit(done ? 0 : 1);
        }
        ::close(ends[1]);
        (void)!::read(ends[0], &child, sizeof child);
        ::close(ends[0]);
    }

    [[nodiscard]] int status() const {
        int status = 0;
        EXPECT_EQ(::waitpid(parent, &status, 0), parent);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
};

/// The machine was suspended, or had no time for either of them: that is nobody's fault.
TEST(InChild, TimeInWhichNobodyRanDoesNotCount) {
    using Clock = std::chrono::steady_clock;
    constexpr milliseconds kTime(3500);
    // Where this process did not run itself, the parent may have looked on for longer than it should have.
    milliseconds looked_on(0);
    int status = -1;
    for (int round = 0; round < 5; ++round) {
        const auto begin = Clock::now();
        const Waiting both(kTime);
        ASSERT_GT(both.child, 0);
        // The child stands still before and after the parent, so that it is seen to have got nothing done
        // between two looks.
        ASSERT_EQ(::kill(both.child, SIGSTOP), 0);
        sleep_for(milliseconds(200));
        ASSERT_EQ(::kill(both.parent, SIGSTOP), 0);
        const auto before = Clock::now() - begin;
        sleep_for(milliseconds(2600));
        const auto again = Clock::now();
        ASSERT_EQ(::kill(both.parent, SIGCONT), 0);
        sleep_for(milliseconds(200));
        ASSERT_EQ(::kill(both.child, SIGCONT), 0);
        looked_on = std::chrono::duration_cast<milliseconds>(before + (Clock::now() - again));
        status = both.status();
        if (looked_on < milliseconds(800)) break;
    }
    EXPECT_EQ(status, 0) << looked_on.count() << " ms";
    // The control: longer than its patience, and the parent did run.
    const Waiting running(milliseconds(60000));
    EXPECT_EQ(running.status(), 1);
}

}  // namespace
}  // namespace postern
