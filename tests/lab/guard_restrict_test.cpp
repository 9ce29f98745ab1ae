// SPDX-License-Identifier: Apache-2.0
// Clients that give up rights: they are gone for everybody who has the file, the others stay, and nothing
// comes back. Whoever holds the file may do it: here it is nobody (uid 65534), in the sandbox's cgroup.

#include <bpf/bpf.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "client/postern.h"
#include "tests/lab/guard_fixture.h"
#include "tests/support/passing.h"

namespace postern::test {
namespace {

constexpr uid_t kNobody = 65534;

/// Numbers of policy()'s windows.
enum Window { kPages2And3 = 0, kPage5 = 1, kRegisters = 2, kPageA = 4, kReadOnly = 5 };

class GuardRestrictTest : public GuardTest {
  protected:
    void SetUp() override {
        GuardTest::SetUp();
        if (HasFatalFailure()) return;
        FilePolicy three = policy();
        three.ioctls = {
            {.number = FIONREAD}, {.number = static_cast<uint32_t>(FIONBIO)}, {.number = FIOQSIZE}};
        make_files(three);
        grant_.device_fd = fd();
        ASSERT_EQ(kAll, rights(fd()));
    }

    /// What may be done with the file, as words; " FAILED" where something else than EPERM came.
    [[nodiscard]] static std::string rights(int file) {
        std::string words;
        const auto note = [&](const char* word, int result) {
            if (result == 0) words += std::string(words.empty() ? "" : " ") + word;
            if (result != 0 && result != EPERM) words += std::string(" FAILED ") + word;
        };
        int off = 0;
        loff_t size = 0;
        int left = 0;
        char data[16] = {};
        note("FIONREAD", outcome([&] { return ::ioctl(file, FIONREAD, &left); }));
        note("FIONBIO", outcome([&] { return ::ioctl(file, FIONBIO, &off); }));
        note("FIOQSIZE", outcome([&] { return ::ioctl(file, FIOQSIZE, &size); }));
        const auto map = [&](uint64_t offset, int protection) {
            void* at = ::mmap(nullptr, kPage, protection, MAP_SHARED, file, static_cast<off_t>(offset));
            if (at == MAP_FAILED) return errno;
            ::munmap(at, kPage);
            return 0;
        };
        note("map2", map(0x2000, PROT_READ));
        note("map2w", map(0x2000, kRw));
        note("map5", map(0x5000, PROT_READ));
        note("mapA", map(0xa000, PROT_READ));
        note("mapAw", map(0xa000, kRw));
        const auto get = [&](off_t at) {
            return outcome([&] { return ::pread(file, data, sizeof data, at); });
        };
        const auto put = [&](off_t at) {
            return outcome([&] { return ::pwrite(file, data, sizeof data, at); });
        };
        note("get7", get(0x7010));
        note("put7", put(0x7010));
        note("getA", get(0xa000));
        note("putA", put(0xa000));
        note("getC", get(0xc010));
        return words;
    }
    /// `all` without these words.
    [[nodiscard]] static std::string without(const std::vector<std::string>& words) {
        std::string all = std::string(" ") + kAll + " ";
        for (const std::string& word : words) {
            const size_t at = all.find(" " + word + " ");
            EXPECT_NE(std::string::npos, at) << word;
            if (at != std::string::npos) all.erase(at, word.size() + 1);
        }
        return all.size() < 2 ? "" : all.substr(1, all.size() - 2);
    }

    /// In a child that is nobody, in the sandbox: 0, or what went wrong.
    int as_nobody(const std::function<int()>& body) {
        return in_child(
            [&] {
                if (::setgroups(0, nullptr) != 0 || ::setresgid(kNobody, kNobody, kNobody) != 0) return 251;
                if (::setresuid(kNobody, kNobody, kNobody) != 0 || ::setuid(0) == 0) return 252;
                return body();
            },
            [&](pid_t pid) { sandbox_->move_here(pid); });
    }

    /// Nobody gives up, and then these words are missing: for the child itself, for this process, for a
    /// duplicate that is older, and for a child that was there before.
    void expect_lost(const std::function<int(int file)>& give_up, const std::vector<std::string>& words) {
        const std::string left = without(words);
        const UniqueFd duplicate(::dup(fd()));
        const int helper = in_child([&] { return rights(duplicate.get()) == left ? 0 : 1; },
                                    [&](pid_t) {
                                        EXPECT_EQ(0, as_nobody([&] {
                                                      if (rights(fd()) != kAll) return 250;
                                                      if (give_up(fd()) != 0) return errno;
                                                      return rights(fd()) == left ? 0 : 249;
                                                  }));
                                    });
        EXPECT_EQ(0, helper);
        EXPECT_EQ(left, rights(fd()));
        EXPECT_EQ(left, rights(duplicate.get()));
        // Again is fine, and the owner's own file never had to do with it.
        EXPECT_EQ(0, give_up(fd()));
        EXPECT_EQ(left, rights(fd()));
        EXPECT_EQ(0, outcome([&] {
                      int value = 0;
                      return ::ioctl(owner(), FIONREAD, &value);
                  }));
    }

    /// The same, of giving up `lose` of the window of this number.
    void expect_lost_of(int number, int lose, const std::vector<std::string>& words) {
        expect_lost(
            [&](int) {
                const postern_window one = window(number);
                return postern_restrict_window(&grant_, &one, lose);
            },
            words);
    }

    /// The one registered file's policy, as the kernel has it now.
    static postern_policy in_kernel() {
        const UniqueFd map(::bpf_obj_get((pins() + "/map_files").c_str()));
        uint64_t key = 0;
        postern_policy found{};
        EXPECT_EQ(0, ::bpf_map_get_next_key(map.get(), nullptr, &key));
        EXPECT_EQ(0, ::bpf_map_lookup_elem(map.get(), &key, &found));
        return found;
    }

    postern_window window(int number) {
        postern_window made{};
        made.guard = number;
        return made;
    }

    static constexpr const char* kAll =
        "FIONREAD FIONBIO FIOQSIZE map2 map2w map5 mapA mapAw get7 put7 getA putA getC";
    postern_grant grant_{};
};

TEST_F(GuardRestrictTest, OneIoctl) {
    expect_lost([](int file) { return postern_restrict_ioctl(file, FIONBIO); }, {"FIONBIO"});
}

TEST_F(GuardRestrictTest, AllIoctls) {
    expect_lost([](int file) { return postern_restrict_ioctls(file); }, {"FIONREAD", "FIONBIO", "FIOQSIZE"});
}

TEST_F(GuardRestrictTest, WritingOfOneWindow) {
    expect_lost_of(kPageA, POSTERN_WRITE, {"mapAw", "putA"});
}

TEST_F(GuardRestrictTest, AWayToOneWindow) {
    expect_lost_of(kPageA, POSTERN_MMAP, {"mapA", "mapAw"});
}

TEST_F(GuardRestrictTest, AllOfOneWindow) {
    expect_lost_of(kRegisters, POSTERN_READ | POSTERN_WRITE | POSTERN_MMAP | POSTERN_PREAD, {"get7", "put7"});
}

TEST_F(GuardRestrictTest, AllWriting) {
    expect_lost([](int file) { return postern_restrict_write(file); }, {"map2w", "mapAw", "put7", "putA"});
}

TEST_F(GuardRestrictTest, AWayToAllWindows) {
    expect_lost([](int file) { return postern_restrict_windows(file, POSTERN_PREAD); },
                {"get7", "put7", "getA", "putA", "getC"});
}

TEST_F(GuardRestrictTest, OneAfterTheOther) {
    expect_lost(
        [&](int file) {
            const postern_window one = window(kReadOnly);
            return postern_restrict_ioctl(file, FIONREAD) |
                   postern_restrict_window(&grant_, &one, POSTERN_READ) | postern_restrict_write(file);
        },
        {"FIONREAD", "map2w", "mapAw", "put7", "putA", "getC"});
}

TEST_F(GuardRestrictTest, Forwarding) {
    const auto receive_in_sandbox = [&] {
        int ends[2];
        EXPECT_EQ(0, ::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends));
        EXPECT_EQ(0, send_fd(ends[0], fd()));
        const int got = in_child([&] { return receive_fd(ends[1]) ? 0 : 1; },
                                 [&](pid_t pid) { sandbox_->move_here(pid); });
        ::close(ends[0]);
        ::close(ends[1]);
        return got;
    };
    EXPECT_EQ(0, receive_in_sandbox());
    expect_lost([](int file) { return postern_restrict_forward(file); }, {});
    EXPECT_EQ(1, receive_in_sandbox());
    // Children inherit it all the same.
    EXPECT_EQ(0, as_nobody([&] { return rights(fd()) == kAll ? 0 : 1; }));
}

TEST_F(GuardRestrictTest, WhatIsMappedStaysAsItIs) {
    char* mapped = static_cast<char*>(::mmap(nullptr, kPage, kRw, MAP_SHARED, fd(), 0x2000));
    char* later = static_cast<char*>(::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd(), 0x3000));
    ASSERT_NE(MAP_FAILED, static_cast<void*>(mapped));
    ASSERT_NE(MAP_FAILED, static_cast<void*>(later));
    ASSERT_EQ(0, outcome([&] { return ::mprotect(later, kPage, kRw); }));
    ASSERT_EQ(0, outcome([&] { return ::mprotect(later, kPage, PROT_READ); }));
    ASSERT_EQ(0, postern_restrict_write(fd()));
    *mapped = '!';
    EXPECT_EQ('!', *mapped);
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(later, kPage, kRw); }));
    // Once it is given away, it does not come back.
    ASSERT_EQ(0, ::mprotect(mapped, kPage, PROT_READ));
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(mapped, kPage, kRw); }));
    ::munmap(mapped, kPage);
    ::munmap(later, kPage);
}

TEST_F(GuardRestrictTest, FileThatIsNotGuarded) {
    EXPECT_EQ(ENOTTY, outcome([&] { return postern_restrict_write(owner()); }));
    EXPECT_EQ(0, postern_restrict_write(fd()));
    EXPECT_EQ(EBADF, outcome([&] { return postern_restrict_write(-1); }));
}

/// Does `now` allow nothing that `before` did not?
::testing::AssertionResult no_wider(const postern_policy& before, const postern_policy& now) {
    if (before.n_ioctls != now.n_ioctls || before.n_windows != now.n_windows || before.flags != now.flags ||
        std::memcmp(before.rules, now.rules, sizeof now.rules) != 0) {
        return ::testing::AssertionFailure() << "something changed that no request is about";
    }
    if (now.forward != before.forward && now.forward != POSTERN_FORWARD_NEVER)
        return ::testing::AssertionFailure() << "forward " << now.forward;
    for (size_t i = 0; i < POSTERN_MAX_IOCTLS; ++i) {
        postern_ioctl_entry same = now.ioctls[i];
        same.flags = before.ioctls[i].flags;
        if (std::memcmp(&same, &before.ioctls[i], sizeof same) != 0)
            return ::testing::AssertionFailure() << "ioctl " << i << " is another";
        if (now.ioctls[i].flags != before.ioctls[i].flags && now.ioctls[i].flags != 0)
            return ::testing::AssertionFailure() << "ioctl " << i << " is back";
    }
    for (size_t i = 0; i < POSTERN_MAX_WINDOWS; ++i) {
        postern_range same = now.windows[i];
        same.flags = before.windows[i].flags;
        if (std::memcmp(&same, &before.windows[i], sizeof same) != 0)
            return ::testing::AssertionFailure() << "window " << i << " is another";
        if ((now.windows[i].flags & ~before.windows[i].flags) != 0)
            return ::testing::AssertionFailure() << "window " << i << " has more";
    }
    return ::testing::AssertionSuccess();
}

TEST_F(GuardRestrictTest, RequestsThatDoNotExistChangeNothing) {
    const postern_policy before = in_kernel();
    const auto ask = [&](uint64_t request) {
        return outcome([&] { return ::ioctl(fd(), POSTERN_IOC_RESTRICT, request); });
    };
    for (uint64_t op = 0; op < 256; ++op) {
        if (op >= POSTERN_RESTRICT_IOCTL && op <= POSTERN_RESTRICT_FORWARD) continue;
        for (const uint64_t rest : {0ULL, 1ULL, 0xfULL, 0x0000'0000'ffff'ffffULL, 0x00ff'ffff'ffff'ffffULL}) {
            EXPECT_EQ(EINVAL, ask(op << 56 | rest)) << op;
        }
    }
    // Those that do, with a bit too many.
    const auto too_many = [&](uint64_t op, uint64_t allowed) {
        for (int bit = 0; bit < 56; ++bit) {
            if ((allowed >> bit & 1) != 0) continue;
            EXPECT_EQ(EINVAL, ask(op << 56 | 1ULL << bit)) << op << ", bit " << bit;
        }
    };
    too_many(POSTERN_RESTRICT_IOCTL, 0xffff'ffff);
    too_many(POSTERN_RESTRICT_IOCTLS, 0);
    too_many(POSTERN_RESTRICT_WINDOW, 0xff0f);
    too_many(POSTERN_RESTRICT_WINDOWS, 0xf);
    too_many(POSTERN_RESTRICT_FORWARD, 0);
    for (uint64_t number = before.n_windows; number < 256; ++number) {
        EXPECT_EQ(EINVAL, ask(static_cast<uint64_t>(POSTERN_RESTRICT_WINDOW) << 56 | number << 8 | 0xf));
    }
    const postern_policy now = in_kernel();
    EXPECT_EQ(0, std::memcmp(&before, &now, sizeof now));
    EXPECT_EQ(kAll, rights(fd()));
    // The control: one that exists.
    EXPECT_EQ(EALREADY, ask(static_cast<uint64_t>(POSTERN_RESTRICT_FORWARD) << 56));
    EXPECT_EQ(static_cast<uint32_t>(POSTERN_FORWARD_NEVER), in_kernel().forward);
}

TEST_F(GuardRestrictTest, NoRequestWidens) {
    std::mt19937_64 random(1);
    postern_policy before = in_kernel();
    unsigned granted = 0;
    for (int i = 0; i < 3000; ++i) {
        uint64_t request = random();
        if (i % 2 == 0) request = (1 + random() % 5) << 56 | (random() & random() & 0xff0f);
        const int answer = outcome([&] { return ::ioctl(fd(), POSTERN_IOC_RESTRICT, request); });
        ASSERT_TRUE(answer == EALREADY || answer == EINVAL) << answer;
        granted += answer == EALREADY;
        const postern_policy now = in_kernel();
        ASSERT_TRUE(no_wider(before, now)) << std::hex << request;
        before = now;
    }
    EXPECT_GT(granted, 100U);
    EXPECT_EQ("", rights(fd()));
}

}  // namespace
}  // namespace postern::test
