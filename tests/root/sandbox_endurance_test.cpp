// SPDX-License-Identifier: Apache-2.0
//
// What only a caller of the library can do many times: launches in cgroups of their own, and files with high
// numbers passed on. What the whole command leaves behind is looked for in endurance_test.py.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker-core/scope_guard.h"
#include "launcher/cgroup.h"
#include "tests/root/sandbox_fixture.h"

namespace postern {
namespace {

using ::testing::HasSubstr;

class SandboxEndurance : public SandboxTest {
  protected:
    static std::size_t count(const std::filesystem::path& folder) {
        const auto range = std::filesystem::directory_iterator(folder);
        return static_cast<std::size_t>(std::distance(begin(range), end(range)));
    }
};

TEST_F(SandboxEndurance, CgroupsGoWithTheirClients) {
    std::filesystem::path parent;
    const std::size_t fds = count("/proc/self/fd");
    for (int i = 0; i < 100; ++i) {
        const std::string name = std::to_string(::getpid()) + "-" + std::to_string(i);
        auto cgroup = Cgroup::create(name, {});
        ASSERT_TRUE(cgroup) << cgroup.error().message;
        const std::filesystem::path path = cgroup->path();
        parent = path.parent_path();
        // Every other one leaves a daemon that has to be killed.
        SandboxSpec spec = shell(i % 2 == 0 ? "exit 3" : "setsid sleep 1000 & exit 3");
        spec.namespaces.pid = i % 4 != 3;
        spec.cgroup_fd = cgroup->fd();
        auto client = start_sandbox(spec);
        ASSERT_TRUE(client) << client.error().error.message;
        ASSERT_TRUE(std::filesystem::exists(path));
        EXPECT_EQ(client->wait().status(), 3);
    }
    for (const auto& entry : std::filesystem::directory_iterator(parent))
        EXPECT_THAT(entry.path().filename(),
                    ::testing::Not(HasSubstr("postern-" + std::to_string(::getpid()))));
    EXPECT_EQ(count("/proc/self/fd"), fds);
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
}

TEST_F(SandboxEndurance, FdsAbove1024ArePassedAndNoOthers) {
    rlimit limit{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    ASSERT_GT(limit.rlim_max, 4200U) << "raise ulimit -Hn: this test opens fds above 4000";
    const rlimit more = {4200, limit.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &more), 0);
    const ScopeGuard restored([&] { ::setrlimit(RLIMIT_NOFILE, &limit); });
    const UniqueFd file(::memfd_create("passed", MFD_CLOEXEC));
    ASSERT_EQ(::write(file.get(), "passed\n", 7), 7);
    // Without FD_CLOEXEC: exec alone would keep them.
    std::vector<UniqueFd> high;
    for (const int number : {1023, 1024, 1500, 4100}) {
        high.emplace_back(::fcntl(file.get(), F_DUPFD, number));
        ASSERT_GE(high.back().get(), number);
    }
    SandboxSpec spec = shell("cat <&3; ls /proc/self/fd | tr '\\n' ' '");
    spec.fds = {{high[3].get(), "high"}};
    ASSERT_EQ(::lseek(file.get(), 0, SEEK_SET), 0);
    // 4 is what ls itself has open.
    EXPECT_EQ(run(spec).out, "passed\n0 1 2 3 4 ");
    // The control: under the numbers that they have, where that is asked for.
    spec = shell("ls /proc/self/fd | tr '\\n' ' '");
    spec.inherited_fds = {high[1].get(), high[2].get()};
    EXPECT_THAT(run(spec).out, HasSubstr("1024 1500 "));
}

}  // namespace
}  // namespace postern
