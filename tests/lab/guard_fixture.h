// SPDX-License-Identifier: Apache-2.0
// What the tests of the guard in a real kernel share. They run as root in the lab's guest: BPF LSM and cgroup
// v2.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/types.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "broker-core/guard.h"
#include "broker-core/unique_fd.h"

namespace postern::test {

inline constexpr uint64_t kPage = 4096;
inline constexpr int kRw = PROT_READ | PROT_WRITE;
/// Room for what a child found out, besides errno values.
inline constexpr int kWrong = 1000;

/// 0 if the call went well (returned something other than -1), else its errno.
template <typename Call>
int outcome(Call&& call) {
    errno = 0;
    return call() == -1 ? errno : 0;
}

/// Reports the message of a failed Status or Result.
template <typename T>
testing::AssertionResult ok(const Result<T>& result) {
    if (result) return testing::AssertionSuccess();
    return testing::AssertionFailure() << result.error().message;
}

/// Runs `body` in a forked child and returns what it returned (0–255 or so), kWrong + signal if it was
/// killed. `setup` runs in the parent between fork and the child's start, with the child's pid.
int in_child(const std::function<int()>& body, const std::function<void(pid_t)>& setup = nullptr);

/// A second struct file of the same inode, opened through /proc.
UniqueFd reopened(int fd, int flags);

/// A cgroup v2 below the root, removed at the end.
class TestCgroup {
  public:
    explicit TestCgroup(const std::string& name);
    TestCgroup(const TestCgroup&) = delete;
    TestCgroup& operator=(const TestCgroup&) = delete;
    ~TestCgroup();

    [[nodiscard]] uint64_t id() const { return id_; }
    [[nodiscard]] uint32_t level() const { return 1; }
    void move_here(pid_t pid) const;
    /// A member of the subtree: a cgroup below this one.
    void move_below(pid_t pid) const;

  private:
    std::string path_;
    uint64_t id_ = 0;
};

/// The folder of the pinned set.
std::string pins();
bool attached();
/// Entries in a pinned map whose keys have 64 bits.
size_t entries(const std::string& map_name);
size_t registered_files();
/// Programs that the kernel skipped because they were running already (bpf_prog_info.recursion_misses).
uint64_t skipped_runs();
/// Waits up to two seconds for `condition`: file descriptors in flight are closed by kernel threads.
bool eventually(const std::function<bool()>& condition);

/// A guarded memfd of 16 pages with every byte a mark of its page, and its unguarded owner's file:
///
///     pages 2, 3   rw  mmap          page 9       w   mmap
///     page 5       r   mmap          0xa000–0xafff rw pread, rw mmap
///     0x7010–0x702f rw pread         0xc010–0xc01f r  pread
///
/// and the ioctl FIONREAD.
class GuardTest : public testing::Test {
  protected:
    /// A use of the guard as long as the suite runs: attaching and detaching takes a second under emulation.
    static void SetUpTestSuite();
    static void TearDownTestSuite();
    /// The suite's use of the guard ends as by SIGKILL; SetUpTestSuite() begins another one.
    static void LeaveSuite();
    void SetUp() override;
    void TearDown() override;

    [[nodiscard]] FilePolicy policy() const;
    /// A new pair of files; `guarded` is registered with `policy`.
    void make_files(const FilePolicy& policy);

    /// errno or 0 of mapping a part of the guarded file; unmapped again.
    [[nodiscard]] int map(uint64_t offset, uint64_t length, int prot, int flags = 1 /* MAP_SHARED */) const;
    [[nodiscard]] int fd() const { return guarded_.get(); }
    [[nodiscard]] int owner() const { return owner_.get(); }

    std::optional<Guard> guard_;
    std::optional<TestCgroup> sandbox_;
    UniqueFd owner_;
    UniqueFd guarded_;
};

}  // namespace postern::test
