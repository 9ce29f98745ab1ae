// SPDX-License-Identifier: Apache-2.0
#include "launcher/mount_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/mount.h>

#include <algorithm>

namespace postern {
namespace {

using ::testing::HasSubstr;

MountPlan mounts_of(const SandboxSpec& spec) {
    auto plan = make_mount_plan(spec);
    EXPECT_TRUE(plan) << (plan ? "" : plan.error().message);
    return plan ? std::move(*plan) : MountPlan{};
}

std::string error_of(const Mount& mount) {
    SandboxSpec spec;
    spec.mounts = {Mount{Mount::Type::Tmpfs, "", "/fine", {}}, mount};
    const auto plan = make_mount_plan(spec);
    return plan ? "" : plan.error().message;
}

std::ptrdiff_t position(const MountPlan& plan, MountStep::Kind kind, std::string_view target) {
    const auto found = std::find_if(plan.steps.begin(), plan.steps.end(), [&](const MountStep& step) {
        return step.kind == kind && step.target == target;
    });
    return found == plan.steps.end() ? -1 : found - plan.steps.begin();
}

TEST(MountPlan, HostRootIsReadOnlyAndCovered) {
    const MountPlan plan = mounts_of({});
    EXPECT_EQ(plan.root_source, "/");
    EXPECT_EQ(plan.root_attributes, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    EXPECT_GE(position(plan, MountStep::Kind::Proc, "/proc"), 0);
    for (const char* target : {"/dev", "/tmp", "/run", "/var/run", "/var/tmp", "/sys"}) {
        EXPECT_GE(position(plan, MountStep::Kind::Tmpfs, target), 0) << target;
    }
}

TEST(MountPlan, DevIsSealedBeforeWhatStaysWritable) {
    const MountPlan plan = mounts_of({});
    const auto seal = position(plan, MountStep::Kind::Seal, "/dev");
    EXPECT_GT(seal, position(plan, MountStep::Kind::Bind, "/dev/tty"));
    EXPECT_GT(seal, position(plan, MountStep::Kind::Directory, "/dev/shm"));
    EXPECT_LT(seal, position(plan, MountStep::Kind::Devpts, "/dev/pts"));
    EXPECT_LT(seal, position(plan, MountStep::Kind::Tmpfs, "/dev/shm"));
}

TEST(MountPlan, SysIsFilledThenSealed) {
    const MountPlan plan = mounts_of({});
    EXPECT_LT(position(plan, MountStep::Kind::Tmpfs, "/sys"),
              position(plan, MountStep::Kind::Bind, "/sys/devices/system"));
    EXPECT_LT(position(plan, MountStep::Kind::Bind, "/sys/devices/system"),
              position(plan, MountStep::Kind::Seal, "/sys"));
}

TEST(MountPlan, ProfileMountsComeLastAndInOrder) {
    SandboxSpec spec;
    spec.mounts = {{Mount::Type::Tmpfs, "", "/a", {}}, {Mount::Type::Bind, "/usr", "/a/b", {"ro"}}};
    const MountPlan plan = mounts_of(spec);
    ASSERT_GE(plan.steps.size(), 2U);
    const MountStep& first = plan.steps[plan.steps.size() - 2];
    const MountStep& second = plan.steps.back();
    EXPECT_EQ(first.target, "/a");
    EXPECT_EQ(second.target, "/a/b");
    EXPECT_EQ(second.attributes, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    EXPECT_TRUE(second.recursive);
}

TEST(MountPlan, OptionsAreAttributesAndTheLastWins) {
    SandboxSpec spec;
    spec.mounts = {
        {Mount::Type::Bind, "/usr", "/a", {"ro", "rw", "dev", "suid", "noexec", "bind", "optional"}}};
    const MountPlan plan = mounts_of(spec);
    const MountStep& step = plan.steps.back();
    EXPECT_EQ(step.attributes, static_cast<std::uint64_t>(MOUNT_ATTR_NOEXEC));
    EXPECT_FALSE(step.recursive);
    EXPECT_TRUE(step.optional_source);
}

TEST(MountPlan, APathThatIsTheHostsRootIsCoveredToo) {
    for (const char* path : {"/", "//", "/usr/.."}) {
        SandboxSpec spec;
        spec.root = {Root::Kind::Path, path};
        EXPECT_GE(position(mounts_of(spec), MountStep::Kind::Tmpfs, "/sys"), 0) << path;
    }
    SandboxSpec spec;
    spec.root = {Root::Kind::Path, "/usr"};
    EXPECT_EQ(mounts_of(spec).root_source, "/usr");
    EXPECT_EQ(position(mounts_of(spec), MountStep::Kind::Tmpfs, "/sys"), -1);
}

TEST(MountPlan, WithoutPidNamespaceProcIsTheHosts) {
    SandboxSpec spec;
    spec.namespaces.pid = false;
    spec.root.kind = Root::Kind::Empty;
    EXPECT_EQ(mounts_of(spec).steps.front().kind, MountStep::Kind::Bind);
    EXPECT_EQ(mounts_of(spec).steps.front().source, "/proc");
}

TEST(MountPlan, RefusesWhatCannotBe) {
    EXPECT_THAT(error_of({Mount::Type::Bind, "/usr", "relative", {}}),
                HasSubstr("mounts[1]: target \"relative\" is not an absolute path"));
    EXPECT_THAT(error_of({Mount::Type::Bind, "/usr", "/a/../b", {}}), HasSubstr("\"..\""));
    EXPECT_THAT(error_of({Mount::Type::Bind, "/usr", "/", {}}), HasSubstr("\"root\""));
    EXPECT_THAT(error_of({Mount::Type::Bind, "/usr", "///", {}}), HasSubstr("\"root\""));
    EXPECT_THAT(error_of({Mount::Type::Bind, "usr", "/a", {}}), HasSubstr("source \"usr\""));
    EXPECT_THAT(error_of({Mount::Type::Bind, "/usr", "/a", {"size=3"}}),
                HasSubstr("option \"size=3\" is not known for a bind mount"));
    EXPECT_THAT(error_of({Mount::Type::Tmpfs, "/usr", "/a", {}}), HasSubstr("has no source"));
    EXPECT_THAT(error_of({Mount::Type::Tmpfs, "", "/a", {"mode=9"}}), HasSubstr("octal"));
    EXPECT_THAT(error_of({Mount::Type::Tmpfs, "", "/a", {"huge=always"}}),
                HasSubstr("option \"huge=always\""));
    EXPECT_THAT(error_of({Mount::Type::Overlay, "", "/a", {}}), HasSubstr("lowerdir"));
    EXPECT_THAT(error_of({Mount::Type::Overlay, "", "/a", {"lowerdir=/x", "upperdir=/y"}}),
                HasSubstr("workdir"));
    EXPECT_THAT(error_of({Mount::Type::Dev, "", "/a", {"mode=1"}}), HasSubstr("dev mount"));
    EXPECT_EQ(error_of({Mount::Type::Bind, "/usr", "/a", {"ro"}}), "");
}

TEST(MountPlan, MountsNeedTheNamespace) {
    SandboxSpec spec;
    spec.namespaces.mount = false;
    EXPECT_TRUE(make_mount_plan(spec)->steps.empty());
    spec.mounts = {{Mount::Type::Tmpfs, "", "/a", {}}};
    EXPECT_THAT(make_mount_plan(spec).error().message, HasSubstr("mount namespace"));
}

}  // namespace
}  // namespace postern
