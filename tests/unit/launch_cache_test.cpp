// SPDX-License-Identifier: Apache-2.0
#include "launcher/launch_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "launcher/launch_key.h"

namespace postern {
namespace {

namespace fs = std::filesystem;

/// Every member other than what it is by default.
CompiledLaunch launch() {
    CompiledLaunch launch;
    launch.spec.namespaces = {true, false, true, false, true, false, true};
    launch.spec.root = {Root::Kind::Path, "/srv/root"};
    launch.spec.mounts = {{Mount::Type::Bind, "/a", "/b", {"ro", "optional"}},
                          {Mount::Type::Tmpfs, "", "/t", {}}};
    launch.spec.seccomp = {{{6, 1, 2, 0x7fff0000}, {6, 0, 0, 0}}};
    launch.spec.capabilities = {12, 21};
    launch.spec.no_new_privs = false;
    launch.spec.landlock = no_landlock();
    launch.spec.landlock.read = {"/r"};
    launch.spec.landlock.write = std::vector<std::string>{};
    launch.spec.landlock.ioctl = {"/dev/a", "/dev/b"};
    launch.spec.landlock.bind_tcp = {80, 443};
    launch.spec.landlock.require = true;
    launch.spec.rlimits = {{7, 64, 128}};
    launch.spec.uid = 1000;
    launch.spec.gid = 1001;
    launch.spec.subids = true;
    launch.spec.uid_map = {{0, 100000, 65536}, {65536, 1000, 1}};
    launch.spec.gid_map = {{0, 5, 6}};
    launch.spec.hostname = "box";
    launch.spec.cwd = "/work";
    launch.spec.time_limit = std::chrono::milliseconds(1500);
    launch.spec.cpu_limit = std::chrono::seconds(7);
    launch.spec.new_session = false;
    launch.spec.loopback_up = true;
    launch.env_keep = {"PATH", "LANG"};
    launch.env_set = {{"A", "1"}, {"B", ""}};
    launch.cgroup_limits = {{"pids.max", "8"}};
    launch.weakenings = {"weak\n"};
    launch.quiet = true;
    return launch;
}

TEST(CompiledLaunch, IsTheSameAfterItWasBytes) {
    const CompiledLaunch before = launch();
    const auto after = decode_launch(encode_launch(before));
    ASSERT_TRUE(after);
    EXPECT_EQ(after->spec.namespaces, before.spec.namespaces);
    EXPECT_EQ(after->spec.root.kind, before.spec.root.kind);
    EXPECT_EQ(after->spec.root.path, before.spec.root.path);
    ASSERT_EQ(after->spec.mounts.size(), 2U);
    EXPECT_EQ(after->spec.mounts[0].type, Mount::Type::Bind);
    EXPECT_EQ(after->spec.mounts[0].source, "/a");
    EXPECT_EQ(after->spec.mounts[0].target, "/b");
    EXPECT_EQ(after->spec.mounts[0].options, before.spec.mounts[0].options);
    EXPECT_EQ(after->spec.mounts[1].type, Mount::Type::Tmpfs);
    ASSERT_EQ(after->spec.seccomp.size(), 1U);
    ASSERT_EQ(after->spec.seccomp[0].size(), 2U);
    EXPECT_EQ(after->spec.seccomp[0][0].code, 6);
    EXPECT_EQ(after->spec.seccomp[0][0].jt, 1);
    EXPECT_EQ(after->spec.seccomp[0][0].jf, 2);
    EXPECT_EQ(after->spec.seccomp[0][0].k, 0x7fff0000U);
    EXPECT_EQ(after->spec.capabilities, before.spec.capabilities);
    EXPECT_FALSE(after->spec.no_new_privs);
    EXPECT_EQ(after->spec.landlock, before.spec.landlock);
    ASSERT_EQ(after->spec.rlimits.size(), 1U);
    EXPECT_EQ(after->spec.rlimits[0].resource, 7);
    EXPECT_EQ(after->spec.rlimits[0].soft, 64U);
    EXPECT_EQ(after->spec.rlimits[0].hard, 128U);
    EXPECT_EQ(after->spec.uid, 1000U);
    EXPECT_EQ(after->spec.gid, 1001U);
    EXPECT_TRUE(after->spec.subids);
    EXPECT_EQ(after->spec.uid_map, before.spec.uid_map);
    EXPECT_EQ(after->spec.gid_map, before.spec.gid_map);
    EXPECT_EQ(after->spec.hostname, "box");
    EXPECT_EQ(after->spec.cwd, "/work");
    EXPECT_EQ(after->spec.time_limit, std::chrono::milliseconds(1500));
    EXPECT_EQ(after->spec.cpu_limit, std::chrono::seconds(7));
    EXPECT_FALSE(after->spec.new_session);
    EXPECT_TRUE(after->spec.loopback_up);
    EXPECT_EQ(after->env_keep, before.env_keep);
    EXPECT_EQ(after->env_set, before.env_set);
    EXPECT_EQ(after->cgroup_limits, before.cgroup_limits);
    EXPECT_EQ(after->weakenings, before.weakenings);
    EXPECT_TRUE(after->quiet);
}

TEST(CompiledLaunch, IsRefusedWhereBytesAreMissingOrTooMany) {
    const std::string bytes = encode_launch(launch());
    ASSERT_TRUE(decode_launch(bytes));
    for (std::size_t size = 0; size < bytes.size(); ++size)
        EXPECT_FALSE(decode_launch(std::string_view(bytes).substr(0, size))) << size;
    EXPECT_FALSE(decode_launch(bytes + '\0'));
}

class LaunchCacheTest : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string name = fs::temp_directory_path().string() + "/postern-cache-XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
        fs::create_directory(folder_ / "cache");
        fs::permissions(folder_ / "cache", fs::perms::owner_all);
        write(source(), "profile");
        const auto cache = open();
        ASSERT_TRUE(cache);
        cache->keep("key", {{source(), "profile"}}, launch());
        ASSERT_TRUE(cache->find("key")) << "what was kept is found";
    }
    void TearDown() override { fs::remove_all(folder_); }

    static void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }
    [[nodiscard]] std::string source() const { return folder_ / "source.json"; }
    [[nodiscard]] std::optional<LaunchCache> open() const { return LaunchCache::open(folder_ / "cache"); }
    [[nodiscard]] bool finds(const std::string& key = "key") const {
        const auto cache = open();
        return cache && cache->find(key).has_value();
    }
    /// The one file in it.
    [[nodiscard]] fs::path file() const { return fs::directory_iterator(folder_ / "cache")->path(); }
    void expect_refused_until(const std::function<void()>& undo) {
        EXPECT_FALSE(finds());
        undo();
        EXPECT_TRUE(finds()) << "it was that, and nothing else";
    }

    fs::path folder_;
};

TEST_F(LaunchCacheTest, ARelativeFolderIsNone) {
    const auto here = fs::current_path();
    fs::current_path(folder_);
    ::setenv("POSTERN_CACHE", (folder_ / "cache").c_str(), 1);
    EXPECT_TRUE(LaunchCache::open()) << "the control";
    for (const char* name : {"cache", "made", "off", ""}) {
        ::setenv("POSTERN_CACHE", name, 1);
        EXPECT_FALSE(LaunchCache::open()) << name;
    }
    ::unsetenv("POSTERN_CACHE");
    EXPECT_FALSE(fs::exists("made"));
    fs::current_path(here);
}

TEST_F(LaunchCacheTest, AnotherKeyIsAnotherLaunch) {
    EXPECT_FALSE(finds("kez"));
    EXPECT_FALSE(finds(""));
}

TEST_F(LaunchCacheTest, AChangedSourceMakesItWorthless) {
    write(source(), "Profile");
    expect_refused_until([&] { write(source(), "profile"); });
    write(source(), "profile ");
    expect_refused_until([&] { write(source(), "profile"); });
    fs::remove(source());
    expect_refused_until([&] { write(source(), "profile"); });
}

TEST_F(LaunchCacheTest, AFileOthersMayWriteIsNotBelieved) {
    ASSERT_EQ(::chmod(file().c_str(), 0620), 0);
    expect_refused_until([&] { ::chmod(file().c_str(), 0600); });
    ASSERT_EQ(::chmod(file().c_str(), 0602), 0);
    expect_refused_until([&] { ::chmod(file().c_str(), 0600); });
}

TEST_F(LaunchCacheTest, AFolderOthersMayWriteIsNotBelieved) {
    ASSERT_EQ(::chmod((folder_ / "cache").c_str(), 0770), 0);
    expect_refused_until([&] { ::chmod((folder_ / "cache").c_str(), 0700); });
}

TEST_F(LaunchCacheTest, AFileWithAnotherLinkIsNotBelieved) {
    fs::create_hard_link(file(), folder_ / "link");
    expect_refused_until([&] { fs::remove(folder_ / "link"); });
}

TEST_F(LaunchCacheTest, ASymbolicLinkIsNotFollowed) {
    const fs::path name = file();
    fs::rename(name, folder_ / "elsewhere");
    fs::create_symlink(folder_ / "elsewhere", name);
    expect_refused_until([&] {
        fs::remove(name);
        fs::rename(folder_ / "elsewhere", name);
    });
}

TEST_F(LaunchCacheTest, SomebodyElsesFileIsNotBelieved) {
    // Giving a file away takes root; others cannot get into this situation in a folder of their own.
    if (::geteuid() != 0) return;
    ASSERT_EQ(::chown(file().c_str(), 1, 0), 0);
    expect_refused_until([&] { ASSERT_EQ(::chown(file().c_str(), 0, 0), 0); });
    ASSERT_EQ(::chown((folder_ / "cache").c_str(), 1, 0), 0);
    expect_refused_until([&] { ASSERT_EQ(::chown((folder_ / "cache").c_str(), 0, 0), 0); });
}

TEST_F(LaunchCacheTest, AnyDamagedByteIsFound) {
    std::ifstream stream(file(), std::ios::binary);
    const std::string whole((std::istreambuf_iterator<char>(stream)), {});
    for (std::size_t i = 0; i < whole.size(); ++i) {
        std::string damaged = whole;
        damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
        write(file(), damaged);
        EXPECT_FALSE(finds()) << "byte " << i;
    }
    write(file(), whole.substr(0, whole.size() - 1));
    expect_refused_until([&] { write(file(), whole); });
}

TEST_F(LaunchCacheTest, ManyLaunchesDoNotFillTheFolder) {
    const auto cache = open();
    for (int i = 0; i < 1000; ++i) cache->keep(std::to_string(i), {{source(), "profile"}}, launch());
    EXPECT_TRUE(finds("999"));
    EXPECT_LE(std::distance(fs::directory_iterator(folder_ / "cache"), {}), 256);
}

std::string key_of(const std::vector<std::string>& words, const std::string& build = "build") {
    const auto key = launch_key(words, build);
    return key ? key->text : std::string();
}

TEST(LaunchKey, IsTheOptionsAndNotTheCommand) {
    const auto key = launch_key({"run", "--uid", "5", "--", "/bin/true", "--root"}, "build");
    ASSERT_TRUE(key);
    EXPECT_THAT(key->command, testing::ElementsAre("/bin/true", "--root"));
    EXPECT_EQ(key->text, key_of({"run", "--uid", "5", "--", "id"}));
    EXPECT_NE(key->text, key_of({"run", "--uid", "6", "--", "id"}));
    EXPECT_NE(key->text, key_of({"run", "--gid", "5", "--", "id"}));
    EXPECT_NE(key->text, key_of({"run", "--", "id"}));
    EXPECT_NE(key->text, key_of({"run", "--uid", "5", "--", "id"}, "another build"));
    EXPECT_EQ(key_of({"run", "--", "id"}), key_of({"run", "id", "-u"}));
}

TEST(LaunchKey, IsThereOnlyWhereAllIsKnown) {
    ASSERT_TRUE(launch_key({"run", "--clearenv", "--", "id"}, "build"));
    EXPECT_FALSE(launch_key({"run", "--device", "0000:00:02.0", "--", "id"}, "build"));
    EXPECT_FALSE(launch_key({"run", "--slice", "1", "--", "id"}, "build"));
    EXPECT_FALSE(launch_key({"run", "--dry-run", "--", "id"}, "build"));
    EXPECT_FALSE(launch_key({"run", "--uid=5", "--", "id"}, "build"));
    EXPECT_FALSE(launch_key({"run", "--uid", "5", "6", "--", "id"}, "build"));
    EXPECT_FALSE(launch_key({"run", "--uid", "--", "id"}, "build"));
    EXPECT_FALSE(launch_key({"run", "--clearenv", "id"}, "build"));
    EXPECT_FALSE(launch_key({"run", "--"}, "build"));
    EXPECT_FALSE(launch_key({"run", "--", ""}, "build"));
    EXPECT_FALSE(launch_key({"run"}, "build"));
    EXPECT_FALSE(launch_key({"pool", "--", "id"}, "build"));
    EXPECT_FALSE(launch_key({}, "build"));
}

TEST(LaunchKey, KnowsWhatARelativePathIsRelativeTo) {
    const fs::path before = fs::current_path();
    const std::vector<std::string> relative{"run", "--root", "r", "--", "id"};
    const std::vector<std::string> absolute{"run", "--root", "/r", "--", "id"};
    const std::string relative_here = key_of(relative);
    const std::string absolute_here = key_of(absolute);
    fs::current_path("/");
    EXPECT_NE(key_of(relative), relative_here);
    EXPECT_EQ(key_of(absolute), absolute_here);
    fs::current_path(before);
}

}  // namespace
}  // namespace postern
