// SPDX-License-Identifier: Apache-2.0
#include "broker-core/holder_keeper.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/holder_protocol.h"
#include "broker-core/packet.h"

namespace postern {
namespace {

using std::chrono::milliseconds;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#else
constexpr bool kSanitized = false;
#endif

UniqueFd file_saying(const std::string& text) {
    auto file = sealed_memfd("kept", text);
    EXPECT_TRUE(file);
    return std::move(*file);
}

/// What a sealed memfd says, whatever offset those who share it left.
std::string said_by(const UniqueFd& file) {
    std::array<char, 200> text{};
    const ssize_t got = ::pread(file.get(), text.data(), text.size(), 0);
    return {text.data(), got > 0 ? static_cast<size_t>(got) : 0};
}

/// Runs `body` in a child; its status, or minus its signal.
int status_of(const std::function<int()>& body) {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(body());
    int status = 0;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/// A folder with a holder, if a test starts one, that ends with the test.
class HolderTest : public testing::Test {
  protected:
    void SetUp() override {
        std::string name = "/tmp/postern-holder-XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override {
        for (const pid_t pid : holders()) ::kill(pid, SIGKILL);
        std::filesystem::remove_all(folder_);
    }

    [[nodiscard]] std::string path() const { return folder_ + "/holder.sock"; }

    /// The processes that were started with our socket's path.
    [[nodiscard]] std::vector<pid_t> holders() const {
        std::vector<pid_t> found;
        const std::string line = std::string("postern-holder") + '\0' + path() + '\0';
        for (const std::string& name : names_in("/proc")) {
            if (name.find_first_not_of("0123456789") != std::string::npos) continue;
            if (read_file("/proc/" + name + "/cmdline", 1 << 20).value_or("") == line)
                found.push_back(std::stoi(name));
        }
        return found;
    }

    [[nodiscard]] std::unique_ptr<HolderKeeper> connect() const {
        auto keeper = HolderKeeper::connect_or_start(folder_);
        EXPECT_TRUE(keeper) << keeper.error().message;
        return keeper ? std::move(*keeper) : nullptr;
    }

    /// Waits for the end of all holders.
    [[nodiscard]] bool all_end() const {
        for (int i = 0; i < 500 && !holders().empty(); ++i) std::this_thread::sleep_for(milliseconds(10));
        return holders().empty();
    }

    std::string folder_;
};

TEST_F(HolderTest, EntriesOutliveTheirBroker) {
    EXPECT_EQ(
        status_of([&] {
            const auto keeper = HolderKeeper::connect_or_start(folder_);
            if (!keeper) return 1;
            for (int i = 0; i < 100; ++i) {
                const std::string name = fmt::format("slice/0000:00:02.0/{:02}", i);
                const UniqueFd file = file_saying(name);
                const std::array<int, 2> fds{file.get(), (*keeper)->kind() != nullptr ? file.get() : -1};
                if (!(*keeper)->put(name, "text of " + name, {fds.data(), static_cast<size_t>(i % 3)}))
                    return 2;
            }
            ::raise(SIGKILL);
            return 3;
        }),
        -SIGKILL);
    for (int round = 0; round < 2; ++round) {
        const auto keeper = connect();
        ASSERT_TRUE(keeper);
        const auto entries = keeper->take_all();
        ASSERT_TRUE(entries) << entries.error().message;
        ASSERT_EQ(entries->size(), 100U);
        for (size_t i = 0; i < 100; ++i) {
            const KeptEntry& entry = (*entries)[i];
            EXPECT_EQ(entry.name, fmt::format("slice/0000:00:02.0/{:02}", i));
            EXPECT_EQ(entry.text, "text of " + entry.name);
            ASSERT_EQ(entry.fds.size(), i % 3);
            for (const UniqueFd& fd : entry.fds) EXPECT_EQ(said_by(fd), entry.name);
        }
    }
    EXPECT_EQ(holders().size(), 1U);
}

TEST_F(HolderTest, AnEntryMayHaveAllThatIsAllowed) {
    const auto keeper = connect();
    ASSERT_TRUE(keeper);
    const UniqueFd file = file_saying("one");
    const std::vector<int> fds(kMaxKeptFds, file.get());
    const std::string name(kMaxKeptName, 'n');
    std::string text(kMaxKeptText, 't');
    text[10] = '\0';
    ASSERT_TRUE(keeper->put(name, text, fds));
    ASSERT_TRUE(keeper->put("empty", "", {}));
    const auto entries = keeper->take_all();
    ASSERT_TRUE(entries) << entries.error().message;
    ASSERT_EQ(entries->size(), 2U);
    EXPECT_EQ((*entries)[0].name, "empty");
    EXPECT_EQ((*entries)[0].text, "");
    EXPECT_EQ((*entries)[1].name, name);
    EXPECT_EQ((*entries)[1].text, text);
    EXPECT_EQ((*entries)[1].fds.size(), kMaxKeptFds);
    // One more of each is refused, and changes nothing.
    EXPECT_FALSE(keeper->put(name + "n", "", {}));
    EXPECT_FALSE(keeper->put("", "", {}));
    EXPECT_FALSE(keeper->put("a b", "", {}));
    EXPECT_FALSE(keeper->put("empty", text + "t", {}));
    const std::vector<int> more(kMaxKeptFds + 1, file.get());
    EXPECT_FALSE(keeper->put("empty", "", more));
    EXPECT_FALSE(keeper->remove(std::string("a\0b", 3)));
    ASSERT_TRUE(keeper->remove("empty"));
    ASSERT_TRUE(keeper->remove("empty"));
    EXPECT_EQ(keeper->take_all().value().size(), 1U);
}

TEST_F(HolderTest, AKilledBrokerLeavesTheOldOrTheNew) {
    // The n-th step of a broker is known: it puts, replaces or removes entry n % 5, with n in the text and in
    // all its files. The child tells each step that has returned; it is killed at a random moment.
    constexpr uint32_t kNames = 5;
    const auto removes = [](uint32_t step) { return step % 7 == 6; };
    const uint32_t seed = std::random_device{}();
    std::mt19937 dice(seed);
    SCOPED_TRACE(fmt::format("seed {}", seed));
    uint32_t first = 0;
    size_t in_the_middle = 0;
    for (int round = 0; round < 200; ++round) {
        std::array<int, 2> ends{};
        ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
        const UniqueFd reader(ends[0]);
        UniqueFd writer(ends[1]);
        const pid_t pid = ::fork();
        if (pid == 0) {
            const auto keeper = HolderKeeper::connect_or_start(folder_);
            if (!keeper) ::_exit(1);
            for (uint32_t step = first;; ++step) {
                const std::string name = fmt::format("entry/{}", step % kNames);
                const UniqueFd file = file_saying(std::to_string(step));
                const std::vector<int> fds(1 + step % 20, file.get());
                const Status done =
                    removes(step) ? (*keeper)->remove(name) : (*keeper)->put(name, std::to_string(step), fds);
                if (!done || ::write(writer.get(), &step, sizeof step) != sizeof step) ::_exit(2);
            }
        }
        writer.reset();
        // The first step has returned, then a random while.
        uint32_t last = first;
        ASSERT_EQ(::read(reader.get(), &last, sizeof last), ssize_t{sizeof last});
        std::this_thread::sleep_for(std::chrono::microseconds(dice() % 2000));
        ASSERT_EQ(::kill(pid, SIGKILL), 0);
        uint32_t step = 0;
        while (::read(reader.get(), &step, sizeof step) == sizeof step) last = step;
        int status = 0;
        ASSERT_EQ(::waitpid(pid, &status, 0), pid);
        ASSERT_TRUE(WIFSIGNALED(status)) << "status " << status;

        const auto keeper = connect();
        ASSERT_TRUE(keeper);
        const auto entries = keeper->take_all();
        ASSERT_TRUE(entries) << entries.error().message;
        // What is there after `steps` steps, with the number of the step that put it.
        const auto expected = [&](uint32_t steps) {
            std::vector<std::pair<std::string, std::string>> there;
            for (uint32_t name = 0; name < kNames; ++name) {
                uint32_t latest = steps;
                while (latest > 0 && (latest - 1) % kNames != name) --latest;
                if (latest > 0 && !removes(latest - 1))
                    there.emplace_back(fmt::format("entry/{}", name), std::to_string(latest - 1));
            }
            return there;
        };
        std::vector<std::pair<std::string, std::string>> found;
        for (const KeptEntry& entry : *entries) {
            found.emplace_back(entry.name, entry.text);
            EXPECT_EQ(entry.fds.size(), 1 + std::stoul(entry.text) % 20);
            for (const UniqueFd& fd : entry.fds) EXPECT_EQ(said_by(fd), entry.text);
        }
        const bool one_more = found != expected(last + 1);
        if (one_more) {
            EXPECT_EQ(found, expected(last + 2)) << "round " << round;
            ++in_the_middle;
        }
        if (HasFailure()) return;
        first = last + (one_more ? 2 : 1);
    }
    EXPECT_EQ(holders().size(), 1U);
    ::testing::Test::RecordProperty("steps", static_cast<int>(first));
    ::testing::Test::RecordProperty("killed_in_the_middle", static_cast<int>(in_the_middle));
}

TEST_F(HolderTest, ASecondBrokerIsRefusedUntilTheFirstIsGone) {
    auto first = connect();
    ASSERT_TRUE(first);
    const auto second = HolderKeeper::connect_or_start(folder_);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().errnum, EBUSY);
    EXPECT_THAT(second.error().message, testing::HasSubstr("another broker is served"));
    EXPECT_TRUE(first->put("still", "served", {}));
    // A dying one is waited for: a second. Where this process did not run for longer than that, it is tried
    // again.
    for (int round = 0; round < 5; ++round) {
        const auto begin = std::chrono::steady_clock::now();
        auto end = begin;
        std::thread later([&] {
            std::this_thread::sleep_for(milliseconds(200));
            first.reset();
            end = std::chrono::steady_clock::now();
        });
        auto third = HolderKeeper::connect_or_start(folder_);
        later.join();
        if (!third && third.error().errnum == EBUSY && end - begin > milliseconds(700)) {
            first = connect();
            ASSERT_TRUE(first);
            continue;
        }
        ASSERT_TRUE(third) << third.error().message;
        EXPECT_EQ((*third)->take_all().value().size(), 1U);
        return;
    }
    FAIL() << "this machine is too slow";
}

TEST_F(HolderTest, ServesItsOwnUidOnly) {
    ASSERT_EQ(::geteuid(), 0U) << "this test is to be run by root";
    connect().reset();
    // The greeting that a caller of another uid, or of ours, gets where the files let everybody connect.
    const auto greeting_for = [&](uid_t uid) {
        std::array<int, 2> ends{};
        EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
        const UniqueFd reader(ends[0]);
        UniqueFd writer(ends[1]);
        EXPECT_EQ(status_of([&] {
                      if (::setresuid(uid, uid, uid) != 0) return 1;
                      const auto connection = connect_to(path());
                      std::string text = connection ? "" : errno_text(connection.error().errnum);
                      if (connection) text = receive_packet(connection->get(), 1000, 0).value().text;
                      return ::write(writer.get(), text.data(), text.size()) > 0 ? 0 : 2;
                  }),
                  0);
        writer.reset();
        return read_to_end(reader.get(), 1000).value();
    };
    constexpr uid_t kNobody = 65534;
    EXPECT_EQ(greeting_for(kNobody), errno_text(EACCES));
    ASSERT_EQ(::chmod(folder_.c_str(), 0755), 0);
    EXPECT_EQ(greeting_for(kNobody), errno_text(EACCES));
    ASSERT_EQ(::chmod(path().c_str(), 0666), 0);
    EXPECT_THAT(greeting_for(kNobody), testing::HasSubstr("only uid 0 is served, not uid 65534"));
    EXPECT_THAT(greeting_for(0), testing::EndsWith(std::string(kHolderGreeting)));
}

TEST_F(HolderTest, AFolderThatOthersMayWriteIsRefused) {
    ASSERT_EQ(::chmod(folder_.c_str(), 0777), 0);
    EXPECT_THAT(HolderKeeper::connect_or_start(folder_).error().message,
                testing::HasSubstr("not a folder that only its owner"));
    ASSERT_EQ(::chmod(folder_.c_str(), 0700), 0);
    EXPECT_TRUE(HolderKeeper::connect_or_start(folder_));
}

TEST_F(HolderTest, QuitEndsItAndWhatItKept) {
    const auto keeper = connect();
    ASSERT_TRUE(keeper);
    ASSERT_TRUE(keeper->put("a", "b", {}));
    ASSERT_TRUE(keeper->quit());
    EXPECT_TRUE(all_end());
    EXPECT_FALSE(std::filesystem::exists(path()));
    EXPECT_FALSE(keeper->put("a", "b", {}));
    const auto next = connect();
    ASSERT_TRUE(next);
    EXPECT_TRUE(next->take_all().value().empty());
}

/// A device that a broker gives up is somebody else's as soon as the broker says so.
TEST_F(HolderTest, WhatItKeptIsClosedWhenQuitReturns) {
    constexpr int kFiles = 64;
    const auto keeper = connect();
    ASSERT_TRUE(keeper);
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    const UniqueFd reader(ends[0]);
    for (int i = 0; i < kFiles; ++i)
        ASSERT_TRUE(keeper->put(fmt::format("{:02}", i), "", std::array{ends[1]}));
    ::close(ends[1]);
    pollfd state{reader.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&state, 1, 0), 0) << "the control";
    ASSERT_TRUE(keeper->quit());
    EXPECT_EQ(::poll(&state, 1, 0), 1);
    EXPECT_EQ(state.revents, POLLHUP);
}

TEST_F(HolderTest, ItsDeathIsAnErrorAndItsSocketIsReplaced) {
    const auto keeper = connect();
    ASSERT_TRUE(keeper);
    ASSERT_TRUE(keeper->put("a", "b", {}));
    const auto running = holders();
    ASSERT_EQ(running.size(), 1U);
    ASSERT_EQ(::kill(running[0], SIGKILL), 0);
    ASSERT_TRUE(all_end());
    for (int i = 0; i < 2; ++i) {
        const Status put = keeper->put("a", "b", {});
        ASSERT_FALSE(put);
        EXPECT_THAT(put.error().message, testing::HasSubstr("what it kept is lost"));
    }
    EXPECT_TRUE(std::filesystem::exists(path()));
    const auto next = connect();
    ASSERT_TRUE(next);
    EXPECT_TRUE(next->put("a", "b", {}));
}

TEST_F(HolderTest, SignalsToTheBrokersGroupDoNotReachIt) {
    for (const int signal : {SIGTERM, SIGHUP, SIGINT, SIGKILL}) {
        EXPECT_EQ(status_of([&] {
                      ::setpgid(0, 0);
                      const auto keeper = HolderKeeper::connect_or_start(folder_);
                      if (!keeper || !(*keeper)->put(std::to_string(signal), "", {})) return 1;
                      ::kill(0, signal);
                      std::this_thread::sleep_for(std::chrono::seconds(1));
                      return 2;
                  }),
                  -signal);
    }
    EXPECT_EQ(connect()->take_all().value().size(), 4U);
}

TEST_F(HolderTest, StartsWithNothingOfItsBrokers) {
    ::setenv("POSTERN_TEST", "inherited", 1);
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe(ends.data()), 0);  // inheritable
    const auto keeper = connect();
    ::close(ends[0]);
    ::close(ends[1]);
    ::unsetenv("POSTERN_TEST");
    const auto running = holders();
    ASSERT_EQ(running.size(), 1U);
    const std::string process = "/proc/" + std::to_string(running[0]);
    EXPECT_EQ(read_file(process + "/environ", 1000).value(), "");
    EXPECT_EQ(std::filesystem::read_symlink(process + "/cwd"), "/");
    // 0, 1, 2, the listener, and us.
    EXPECT_EQ(names_in(process + "/fd").size(), 5U);
    for (const char* fd : {"0", "1", "2"})
        EXPECT_EQ(std::filesystem::read_symlink(process + "/fd/" + fd), "/dev/null");
    EXPECT_NE(::getsid(running[0]), ::getsid(0));
    EXPECT_NE(::getpgid(running[0]), ::getpgid(0));
}

TEST_F(HolderTest, ManyStartersGetOneHolder) {
    std::vector<pid_t> children;
    for (int i = 0; i < 8; ++i) {
        const pid_t pid = ::fork();
        if (pid == 0) {
            auto keeper = HolderKeeper::connect_or_start(folder_);
            // It gives up after a second, which is short for eight that want the CPUs at once.
            for (int tries = 0; tries < 60 && !keeper && keeper.error().errnum == EBUSY; ++tries)
                keeper = HolderKeeper::connect_or_start(folder_);
            ::_exit(keeper && (*keeper)->put(fmt::format("starter/{}", i), "", {}) ? 0 : 1);
        }
        children.push_back(pid);
    }
    for (const pid_t pid : children) {
        int status = 0;
        EXPECT_EQ(::waitpid(pid, &status, 0), pid);
        EXPECT_EQ(status, 0);
    }
    EXPECT_EQ(holders().size(), 1U);
    EXPECT_EQ(connect()->take_all().value().size(), 8U);
}

TEST_F(HolderTest, ABadRequestIsRefusedAndTheNextIsServed) {
    connect().reset();
    const auto connection = connect_to(path());
    ASSERT_TRUE(connection);
    const auto answer = [&] {
        return receive_packet(connection->get(), kHolderPacket, kMaxKeptFds).value().text;
    };
    EXPECT_EQ(answer(), kHolderDone + std::string(kHolderGreeting));
    const UniqueFd file = file_saying("x");
    const std::vector<int> fds(kMaxPacketFds, file.get());
    for (const std::string& bad : {std::string("X"), std::string("P"), std::string("Pa b"),
                                   "Pname" + std::string(kHolderPacket, 'x')}) {
        ASSERT_TRUE(send_packet(connection->get(), bad, {fds.data(), 3}));
        EXPECT_EQ(answer()[0], kHolderRefused) << bad.substr(0, 10);
    }
    ASSERT_TRUE(send_packet(connection->get(), "Pname", fds));
    EXPECT_EQ(answer()[0], kHolderRefused);
    // Nothing of all that is still open there.
    const std::string open = "/proc/" + std::to_string(holders().at(0)) + "/fd";
    EXPECT_EQ(names_in(open).size(), 5U);
    ASSERT_TRUE(send_packet(connection->get(), "Pname", {fds.data(), 3}));
    EXPECT_EQ(answer(), "+");
    EXPECT_EQ(names_in(open).size(), 8U);
}

TEST_F(HolderTest, HasBounds) {
    const auto keeper = connect();
    ASSERT_TRUE(keeper);
    const auto resident_kib = [&] {
        const std::string status =
            read_file(fmt::format("/proc/{}/status", holders().at(0)), 1 << 16).value_or("");
        return std::stoul(status.substr(status.find("VmRSS:") + 6));
    };
    const std::string open = fmt::format("/proc/{}/fd", holders().at(0));
    const size_t fds_before = names_in(open).size();
    const size_t resident_before = resident_kib();
    const UniqueFd file = file_saying("x");
    const std::vector<int> fds(3, file.get());
    const std::string text(1000, 't');
    // Replaced ten thousand times, it is one entry.
    for (int i = 0; i < 10000; ++i) ASSERT_TRUE(keeper->put("same", text, fds));
    EXPECT_EQ(names_in(open).size(), fds_before + 3);
    const size_t resident_after = resident_kib();
    RecordProperty("resident_kib", static_cast<int>(resident_after));
    if (!kSanitized) {
        EXPECT_LT(resident_before, 4096U);
        EXPECT_LT(resident_after, resident_before + 1024);
    }
    // So many entries, so many bytes, and no more; what is refused leaves all as it was.
    for (int i = 1; i < 4096; ++i) ASSERT_TRUE(keeper->put(fmt::format("entry/{}", i), text, {}));
    EXPECT_THAT(keeper->put("one-more", "", {}).error().message, testing::HasSubstr("4096 entries"));
    EXPECT_TRUE(keeper->put("same", "", fds));
    const std::string large(kMaxKeptText, 'l');
    Status put;
    for (int i = 1; put && i < 4096; ++i) put = keeper->put(fmt::format("entry/{}", i), large, {});
    EXPECT_THAT(put.error().message, testing::HasSubstr("16777216 bytes"));
    EXPECT_EQ(keeper->take_all().value().size(), 4096U);
    for (int i = 1; i < 4096; ++i) ASSERT_TRUE(keeper->remove(fmt::format("entry/{}", i)));
    ASSERT_TRUE(keeper->remove("same"));
    EXPECT_EQ(names_in(open).size(), fds_before);
    EXPECT_TRUE(keeper->take_all().value().empty());
}

}  // namespace
}  // namespace postern
