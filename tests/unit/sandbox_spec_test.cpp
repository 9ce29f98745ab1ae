// SPDX-License-Identifier: Apache-2.0
#include "launcher/sandbox_spec.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/capability.h>
#include <sys/resource.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "broker-core/unique_fd.h"
#include "launcher/child.h"
#include "launcher/launch_error.h"
#include "launcher/sandbox.h"
#include "launcher/user_map.h"

namespace postern {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Capabilities, AreCalledAsLibcapCallsThem) {
    for (unsigned i = 0; i <= CAP_LAST_CAP; ++i) {
        char* theirs = ::cap_to_name(static_cast<cap_value_t>(i));
        ASSERT_NE(theirs, nullptr);
        EXPECT_EQ(capability_from_name(theirs).value_or(99), i) << theirs;
        std::string upper(theirs);
        for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
        EXPECT_EQ(capability_name(i), upper);
        ::cap_free(theirs);
    }
    EXPECT_EQ(capability_name(CAP_LAST_CAP + 1), std::to_string(CAP_LAST_CAP + 1));
    EXPECT_FALSE(capability_from_name("41"));
    EXPECT_FALSE(capability_from_name("cap_"));
}

TEST(SandboxSpec, NamesGoBothWays) {
    const auto namespaces = namespaces_from_names({"pid", "user"});
    ASSERT_TRUE(namespaces);
    EXPECT_THAT(namespace_names(*namespaces), ElementsAre("user", "pid"));
    EXPECT_THAT(namespaces_from_names({"pidd"}).error().message, HasSubstr("\"pidd\""));
    EXPECT_EQ(*rlimit_from_name("nofile"), RLIMIT_NOFILE);
    EXPECT_EQ(rlimit_name(RLIMIT_MEMLOCK), "memlock");
    EXPECT_FALSE(rlimit_from_name("NOFILE"));
    EXPECT_EQ(*capability_from_name("CAP_NET_ADMIN"), 12U);
    EXPECT_EQ(*capability_from_name("net_admin"), 12U);
    EXPECT_EQ(capability_name(12), "CAP_NET_ADMIN");
    EXPECT_FALSE(capability_from_name("CAP_NOTHING"));
    EXPECT_EQ(*mount_type_from_name("overlay"), Mount::Type::Overlay);
    EXPECT_EQ(mount_type_name(Mount::Type::Dev), "dev");
    EXPECT_FALSE(mount_type_from_name("nfs"));
}

TEST(SandboxSpec, DescribesWhatItWillDo) {
    SandboxSpec spec;
    spec.argv = {"/bin/true", "x"};
    spec.fds = {{5, "manifest"}};
    const auto lines = describe_sandbox(spec);
    EXPECT_THAT(lines, Contains("new namespaces: user pid mount net ipc uts cgroup"));
    EXPECT_THAT(lines, Contains("mount: tmpfs on /tmp nosuid nodev mode=1777"));
    EXPECT_THAT(lines, Contains("fd 3: manifest"));
    EXPECT_THAT(lines, Contains("command: /bin/true x"));
}

TEST(UserMap, PrivilegedIsIdentityOthersTheirOwn) {
    const UserMap root = make_user_map(65534, 65533, 0, 0, true);
    EXPECT_EQ(root.outside_uid, 65534U);
    EXPECT_EQ(root.outside_gid, 65533U);
    EXPECT_TRUE(root.may_set_groups);
    const UserMap other = make_user_map(65534, 65533, 1000, 1001, false);
    EXPECT_EQ(other.inside_uid, 65534U);
    EXPECT_EQ(other.outside_uid, 1000U);
    EXPECT_EQ(other.outside_gid, 1001U);
    EXPECT_FALSE(other.may_set_groups);
}

TEST(ClientExit, BecomesTheContractsStatus) {
    EXPECT_EQ((ClientExit{ClientExit::Kind::Exited, 7}.status()), 7);
    EXPECT_EQ((ClientExit{ClientExit::Kind::Signaled, 11}.status()), 139);
    EXPECT_EQ((ClientExit{ClientExit::Kind::TimeLimit, 0}.status()), 124);
    EXPECT_EQ((ClientExit{ClientExit::Kind::CpuLimit, 24}.status()), 124);
    EXPECT_EQ((ClientExit{ClientExit::Kind::Lost, 9}.status()), 137);
}

TEST(LaunchErrors, SayWhatWhereWhyAndWhatToDo) {
    ChildPlan plan;
    plan.mounts.steps = {
        MountStep{.kind = MountStep::Kind::Bind, .source = "/gone", .target = "/x", .where = "mounts[0]"}};
    ChildReport report{.step = ChildStep::Sources, .errnum = ENOENT, .item = 0, .call = "open_tree"};
    LaunchError error = explain_report(report, plan, "tool");
    EXPECT_EQ(error.exit_status, 125);
    EXPECT_THAT(error.error.message, HasSubstr("mounts[0]: bind /gone on /x: open_tree: No such file"));
    EXPECT_THAT(error.error.message, HasSubstr("\"optional\""));

    report = {.step = ChildStep::Exec, .errnum = ENOENT, .call = "execve"};
    EXPECT_EQ(explain_report(report, plan, "tool").exit_status, 127);
    report.found = true;
    EXPECT_EQ(explain_report(report, plan, "tool").exit_status, 126);
    EXPECT_THAT(explain_report(report, plan, "tool").error.message, HasSubstr("interpreter"));
    report = {
        .step = ChildStep::Command, .errnum = ENOEXEC, .found = true, .is_script = true, .call = "execveat"};
    EXPECT_EQ(explain_report(report, plan, "tool").exit_status, 126);
    EXPECT_THAT(explain_report(report, plan, "tool").error.message, HasSubstr("bind its folder"));
    EXPECT_THAT(explain_clone_error(EPERM, Namespaces{.user = false}, -1).error.message,
                HasSubstr("CAP_SYS_ADMIN"));
}

/// A folder with a file `cgroup.type`, as the fd of a cgroup.
class FolderOfType {
  public:
    explicit FolderOfType(const std::string& type) {
        EXPECT_NE(::mkdtemp(path_.data()), nullptr);
        std::ofstream(path_ + "/cgroup.type") << type << '\n';
        folder_.reset(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    }
    FolderOfType(const FolderOfType&) = delete;
    FolderOfType& operator=(const FolderOfType&) = delete;
    ~FolderOfType() { std::filesystem::remove_all(path_); }
    [[nodiscard]] int fd() const { return folder_.get(); }

  private:
    std::string path_ = ::testing::TempDir() + "/cgroup-type-XXXXXX";
    UniqueFd folder_;
};

TEST(LaunchErrors, AThreadedCgroupIsNotBlamedOnDelegation) {
    const auto hint = [](int errnum, int cgroup) {
        return explain_clone_error(errnum, Namespaces{}, cgroup).error.message;
    };
    for (const char* type : {"threaded", "domain invalid"}) {
        const FolderOfType threaded(type);
        EXPECT_THAT(hint(EOPNOTSUPP, threaded.fd()), HasSubstr(fmt::format("cgroup is \"{}\"", type)));
        EXPECT_THAT(hint(EOPNOTSUPP, threaded.fd()), Not(HasSubstr("needs to be delegated")));
        EXPECT_THAT(hint(EACCES, threaded.fd()), HasSubstr("needs to be delegated"));
    }
    const FolderOfType domain("domain");
    EXPECT_THAT(hint(EOPNOTSUPP, domain.fd()), HasSubstr("needs to be delegated"));
    EXPECT_THAT(hint(EBUSY, domain.fd()), HasSubstr("needs to be delegated"));
    EXPECT_THAT(hint(EBUSY, -1), Not(HasSubstr("cgroup")));
}

TEST(StartSandbox, RefusesANonsensicalSpecBeforeAnything) {
    const auto error_of = [](SandboxSpec spec) {
        const auto client = start_sandbox(spec);
        return client ? std::string() : client.error().error.message;
    };
    SandboxSpec spec;
    EXPECT_THAT(error_of(spec), HasSubstr("no command"));
    spec.argv = {"/bin/true"};
    SandboxSpec bad = spec;
    bad.fds = {{1000000, "x"}};
    EXPECT_THAT(error_of(bad), HasSubstr("not open"));
    bad.fds = {{0, "a:b"}};
    EXPECT_THAT(error_of(bad), HasSubstr("LISTEN_FDNAMES"));
    bad = spec;
    bad.env = {"NOVALUE"};
    EXPECT_THAT(error_of(bad), HasSubstr("NAME=value"));
    bad = spec;
    bad.hostname = std::string(65, 'x');
    EXPECT_THAT(error_of(bad), HasSubstr("64"));
    bad = spec;
    bad.rlimits = {{RLIMIT_NOFILE, 10, 5}};
    EXPECT_THAT(error_of(bad), HasSubstr("nofile"));
}

}  // namespace
}  // namespace postern
