// SPDX-License-Identifier: Apache-2.0
#include "broker-core/cgroup_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postern {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kPure =
    "25 30 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw\n";
constexpr std::string_view kHybrid =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

TEST(CgroupPath, FindsItselfInAPureHierarchy) {
    const auto path = own_cgroup(kPure, "0::/user.slice/user-0.slice/session-3.scope\n");
    ASSERT_TRUE(path) << path.error().message;
    EXPECT_EQ(path->folder, "/sys/fs/cgroup/user.slice/user-0.slice/session-3.scope");
    EXPECT_EQ(path->depth, 3U);
}

TEST(CgroupPath, FindsTheV2PartOfAHybrid) {
    const auto path = own_cgroup(kHybrid, "4:memory:/somewhere/else\n1:cpu:/\n0::/\n");
    ASSERT_TRUE(path) << path.error().message;
    EXPECT_EQ(path->folder, "/sys/fs/cgroup/unified");
    EXPECT_EQ(path->depth, 0U);
}

TEST(CgroupPath, CountsFromTheRootOfAPartialMount) {
    const std::string_view part = "25 30 0:26 /a\\040b /mnt/c rw - cgroup2 cgroup2 rw\n";
    const auto path = own_cgroup(part, "0::/a b/job\n");
    ASSERT_TRUE(path) << path.error().message;
    EXPECT_EQ(path->folder, "/mnt/c/job");
    EXPECT_EQ(path->depth, 2U);
    EXPECT_THAT(own_cgroup(part, "0::/a bc\n").error().message, HasSubstr("not in"));
}

TEST(CgroupPath, RefusesWhatIsNotThere) {
    EXPECT_THAT(own_cgroup("32 31 0:29 / /c rw - cgroup cgroup rw,cpu\n", "1:cpu:/\n").error().message,
                HasSubstr("no cgroup v2"));
    EXPECT_THAT(own_cgroup(kPure, "1:cpu:/\n").error().message, HasSubstr("no cgroup v2"));
    EXPECT_THAT(own_cgroup("", "").error().message, HasSubstr("no cgroup v2"));
    EXPECT_THAT(own_cgroup(kPure, "0::/../other\n").error().message,
                HasSubstr("outside of its cgroup namespace"));
}

}  // namespace
}  // namespace postern
