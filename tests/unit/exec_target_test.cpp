// SPDX-License-Identifier: Apache-2.0
#include "launcher/exec_target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace postern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ExecTargetTest : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string name = ::testing::TempDir() + "exec-target-XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
        std::filesystem::create_directories(folder_ / "first/tool");
        std::filesystem::create_directories(folder_ / "second");
        make("second/tool", "#!/bin/sh\n", 0755);
        make("second/data", "text", 0644);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    void make(const std::string& name, const std::string& text, mode_t mode) {
        std::ofstream(folder_ / name) << text;
        ASSERT_EQ(::chmod((folder_ / name).c_str(), mode), 0);
    }
    [[nodiscard]] std::string search_path() const {
        return (folder_ / "first").string() + ":" + (folder_ / "second").string();
    }

    std::filesystem::path folder_;
};

TEST_F(ExecTargetTest, FindsInPathPastWhatCannotRun) {
    const auto target = find_exec_target("tool", search_path());
    ASSERT_TRUE(target) << target.error().error.message;
    EXPECT_EQ(target->path, folder_ / "second/tool");
    EXPECT_TRUE(target->is_script);
    struct stat status = {};
    ASSERT_EQ(::stat((folder_ / "second/tool").c_str(), &status), 0);
    EXPECT_EQ(target->inode, status.st_ino);
}

TEST_F(ExecTargetTest, AProgramIsNoScript) {
    const auto target = find_exec_target("/bin/sh", "");
    ASSERT_TRUE(target);
    EXPECT_FALSE(target->is_script);
}

TEST_F(ExecTargetTest, TellsMissingFromUnfit) {
    const auto status = [&](const std::string& command) {
        const auto target = find_exec_target(command, search_path());
        return target ? 0 : target.error().exit_status;
    };
    EXPECT_EQ(status("no-such-tool"), 127);
    EXPECT_EQ(status((folder_ / "nothing").string()), 127);
    EXPECT_EQ(status("data"), 126);
    EXPECT_EQ(status((folder_ / "second").string()), 126);
    EXPECT_EQ(status("/dev/null"), 126);
    EXPECT_EQ(status(""), 127);
    EXPECT_EQ(status("tool"), 0);
    EXPECT_THAT(find_exec_target("no-such-tool", "/a:/b").error().error.message, HasSubstr("PATH (/a:/b)"));
}

TEST(ExecCandidates, FollowExecvp) {
    EXPECT_THAT(exec_candidates("a/b", "/x"), ElementsAre("a/b"));
    EXPECT_THAT(exec_candidates("b", "/x:/y"), ElementsAre("/x/b", "/y/b"));
    EXPECT_THAT(exec_candidates("b", "/x::/y:"), ElementsAre("/x/b", "./b", "/y/b", "./b"));
}

}  // namespace
}  // namespace postern
