// SPDX-License-Identifier: Apache-2.0
#include "broker-core/broker_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "broker-core/file.h"

namespace postern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

NameLookup some_names() {
    return {[](const std::string& name) -> std::optional<uid_t> {
                if (name == "alice") return 1000;
                return std::nullopt;
            },
            [](const std::string& name) -> std::optional<gid_t> {
                if (name == "lab") return 50;
                return std::nullopt;
            }};
}

Result<BrokerDevice> read(const std::string& text) {
    const auto document = parse_json(text);
    if (!document) return Failure(document.error());
    return read_broker_device(*document, "disk", some_names());
}

std::string refused(const std::string& text) {
    const auto device = read(text);
    return device ? "accepted" : device.error().message;
}

std::string with(const std::string& more) {
    return R"({"postern":1,"device":"0000:00:02.0","profile":"p")" + more + "}";
}

TEST(BrokerConfig, ReadsADevice) {
    const auto device = read(with(
        R"(,"bind":true,"allow":[{"users":["alice",1001],"slices":[0,2],"most":1},{"groups":["lab",51]},)"
        R"({"everyone":true}])"));
    ASSERT_TRUE(device) << device.error().message;
    EXPECT_EQ(device->name, "disk");
    EXPECT_EQ(device->bdf, "0000:00:02.0");
    EXPECT_EQ(device->profile, "p");
    EXPECT_TRUE(device->bind);
    ASSERT_EQ(device->allow.size(), 3U);
    EXPECT_THAT(device->allow[0].users, ElementsAre(1000, 1001));
    EXPECT_THAT(device->allow[0].slices.value(), ElementsAre(0, 2));
    EXPECT_EQ(device->allow[0].most, 1U);
    EXPECT_FALSE(device->allow[0].everyone);
    EXPECT_THAT(device->allow[1].groups, ElementsAre(50, 51));
    EXPECT_FALSE(device->allow[1].slices);
    EXPECT_TRUE(device->allow[2].everyone);
}

TEST(BrokerConfig, WithoutRulesItIsRoots) {
    const auto device = read(with(""));
    ASSERT_TRUE(device) << device.error().message;
    EXPECT_TRUE(device->allow.empty());
    EXPECT_FALSE(device->bind);
}

TEST(BrokerConfig, RefusesInWords) {
    EXPECT_THAT(refused(R"([])"), HasSubstr("must be an object"));
    EXPECT_THAT(refused(R"({"device":"0000:00:02.0","profile":"p"})"), HasSubstr("\"postern\" is missing"));
    EXPECT_THAT(refused(R"({"postern":2,"device":"0000:00:02.0","profile":"p"})"), HasSubstr("version 2"));
    EXPECT_THAT(refused(R"({"postern":1,"profile":"p"})"), HasSubstr("\"device\" is missing"));
    EXPECT_THAT(refused(R"({"postern":1,"device":"0000:00:02.0"})"), HasSubstr("\"profile\" is missing"));
    EXPECT_THAT(refused(R"({"postern":1,"device":"disk","profile":"p"})"), HasSubstr("device: "));
    EXPECT_THAT(refused(with(R"(,"alow":[])")), HasSubstr("did you mean \"allow\"?"));
    EXPECT_THAT(refused(with(R"(,"bind":"yes")")), HasSubstr("must be true or false"));
    EXPECT_THAT(refused(with(R"(,"allow":{})")), HasSubstr("must be an array"));
    EXPECT_THAT(refused(with(R"(,"allow":[1])")), HasSubstr("allow[0]: must be an object"));
    EXPECT_THAT(refused(with(R"(,"allow":[{}])")), HasSubstr("allow[0]: is about nobody"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"slices":[0]}])")), HasSubstr("is about nobody"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"everyone":false}])")), HasSubstr("is about nobody"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"users":[]}])")), HasSubstr("is about nobody"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"users":["bob"]}])")),
                HasSubstr("no user \"bob\" in /etc/passwd"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"groups":["alice"]}])")),
                HasSubstr("no group \"alice\" in /etc/group"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"users":[-1]}])")), HasSubstr("a user's name or number"));
    // (uid_t)-1 is nobody's: setuid(2) takes it for "as it is".
    EXPECT_THAT(refused(with(R"(,"allow":[{"users":[4294967295]}])")), HasSubstr("a user's name or number"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"users":[1.5]}])")), HasSubstr("a user's name or number"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"users":"alice"}])")), HasSubstr("must be an array"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"users":[1],"slices":[4096]}])")), HasSubstr("number of a slice"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"users":[1],"slices":["0"]}])")), HasSubstr("number of a slice"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"users":[1],"most":0}])")), HasSubstr("out of range"));
    EXPECT_THAT(refused(with(R"(,"allow":[{"users":[1],"user":[2]}])")), HasSubstr("unknown key"));
    EXPECT_EQ(refused(with(R"(,"allow":[{"users":[4294967294],"slices":[4095],"most":4096}])")), "accepted");
    std::string many;
    for (int i = 0; i < 257; ++i) many += R"({"everyone":true},)";
    many.pop_back();
    EXPECT_THAT(refused(with(",\"allow\":[" + many + "]")), HasSubstr("257 rules; at most 256"));
}

class BrokerConfigFolder : public testing::Test {
  protected:
    void SetUp() override {
        std::string name = "/tmp/postern-config-XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    void write(const std::string& name, const std::string& text) {
        const std::string path = folder_ + "/" + name;
        std::filesystem::remove(path);
        ASSERT_TRUE(write_new_file(path, text));
    }
    static testing::AssertionResult write_new_file(const std::string& path, const std::string& text) {
        std::FILE* file = std::fopen(path.c_str(), "we");
        if (file == nullptr) return testing::AssertionFailure() << path;
        const bool whole = std::fwrite(text.data(), 1, text.size(), file) == text.size();
        return std::fclose(file) == 0 && whole ? testing::AssertionSuccess() : testing::AssertionFailure();
    }
    std::string refused() {
        const auto devices = load_broker_config(folder_);
        return devices ? "accepted" : devices.error().message;
    }

    std::string folder_;
};

TEST_F(BrokerConfigFolder, HasAFileForEachDevice) {
    write("b.json", R"({"postern":1,"device":"0000:00:02.0","profile":"p","allow":[{"users":["root"]}]})");
    write("a.json", R"({"postern":1,"device":"0000:00:03.0","profile":"q"})");
    write(".hidden.json", "nonsense");
    write("README", "nonsense");
    const auto devices = load_broker_config(folder_);
    ASSERT_TRUE(devices) << devices.error().message;
    ASSERT_EQ(devices->size(), 2U);
    EXPECT_EQ(devices->at(0).name, "a");
    EXPECT_EQ(devices->at(1).name, "b");
    EXPECT_THAT(devices->at(1).allow.at(0).users, ElementsAre(0));
}

TEST_F(BrokerConfigFolder, OneThatIsNotThereIsEmpty) {
    const auto devices = load_broker_config(folder_ + "/none");
    ASSERT_TRUE(devices);
    EXPECT_TRUE(devices->empty());
}

TEST_F(BrokerConfigFolder, RefusesWhatItCannotRead) {
    write("a.json", "nonsense");
    EXPECT_THAT(refused(), HasSubstr("a.json: JSON syntax error"));
    write("a.json", R"({"postern":1})");
    EXPECT_THAT(refused(), HasSubstr(folder_ + ": a: "));
    std::filesystem::remove(folder_ + "/a.json");
    std::filesystem::create_directory(folder_ + "/a.json");
    EXPECT_NE(refused(), "accepted");
    std::filesystem::remove(folder_ + "/a.json");
    std::filesystem::create_symlink("/nowhere", folder_ + "/a.json");
    EXPECT_THAT(refused(), HasSubstr("cannot be looked at"));
    std::filesystem::remove(folder_ + "/a.json");
    EXPECT_EQ(refused(), "accepted");
}

TEST_F(BrokerConfigFolder, RefusesADeviceThatIsThereTwice) {
    write("a.json", with(""));
    EXPECT_EQ(refused(), "accepted");
    // The same, written otherwise.
    write("b.json", R"({"postern":1,"device":"00:02.0","profile":"q"})");
    EXPECT_THAT(refused(), HasSubstr("a and b have the same device, 0000:00:02.0"));
}

TEST_F(BrokerConfigFolder, RefusesWhatOthersMayWrite) {
    write("a.json", with(""));
    const std::string file = folder_ + "/a.json";
    for (const mode_t mode : {mode_t{0666}, mode_t{0664}, mode_t{0646}}) {
        ASSERT_EQ(::chmod(file.c_str(), mode), 0);
        EXPECT_THAT(refused(), HasSubstr("a.json: others than its owner"));
    }
    ASSERT_EQ(::chmod(file.c_str(), 0644), 0);
    EXPECT_EQ(refused(), "accepted");
    ASSERT_EQ(::chmod(folder_.c_str(), 0777), 0);
    EXPECT_THAT(refused(), HasSubstr("others than its owner"));
    ASSERT_EQ(::chmod(folder_.c_str(), 0755), 0);
    EXPECT_EQ(refused(), "accepted");
}

}  // namespace
}  // namespace postern
