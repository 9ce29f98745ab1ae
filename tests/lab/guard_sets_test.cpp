// SPDX-License-Identifier: Apache-2.0
// Pinned sets that another postern made: shared, stood beside or refused, as broker-core/guard_pins.h says.

#include <bpf/bpf.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker-core/guard_loader.h"
#include "tests/lab/guard_fixture.h"

namespace postern::test {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kZero = 0;

postern_about read_about() {
    const UniqueFd map(::bpf_obj_get((pins() + "/map_about").c_str()));
    postern_about about{};
    EXPECT_EQ(0, ::bpf_map_lookup_elem(map.get(), &kZero, &about));
    return about;
}

void write_about(const postern_about& about) {
    const UniqueFd map(::bpf_obj_get((pins() + "/map_about").c_str()));
    EXPECT_EQ(0, ::bpf_map_update_elem(map.get(), &kZero, &about, BPF_ANY));
}

/// With a registered file, and every use of its own.
class GuardSetsTest : public GuardTest {
  protected:
    static void SetUpTestSuite() {}
    static void TearDownTestSuite() {}

    /// Nobody uses the guard and no file is registered.
    void leave() {
        guarded_.reset();
        ASSERT_TRUE(eventually([] { return registered_files() == 0; }));
        ASSERT_TRUE(ok(guard_->release()));
        guard_.reset();
    }
    /// A use as every test ends with.
    void come_back() {
        auto next = Guard::acquire();
        ASSERT_TRUE(ok(next));
        guard_.emplace(std::move(*next));
    }
    /// ioctl(FIOCLEX), which the policy does not allow.
    [[nodiscard]] int forbidden() const {
        return outcome([&] { return ::ioctl(fd(), FIOCLEX); });
    }
};

TEST_F(GuardSetsTest, AnotherAbiInUseIsRefused) {
    const postern_about own = read_about();
    postern_about other = own;
    for (const uint32_t abi : {POSTERN_GUARD_ABI - 1U, POSTERN_GUARD_ABI + 1U}) {
        other.abi = abi;
        write_about(other);
        const auto refused = Guard::acquire();
        ASSERT_FALSE(refused) << abi;
        EXPECT_THAT(refused.error().message, HasSubstr("another make and in use"));
        EXPECT_THAT(refused.error().message, HasSubstr(pins()));
        const auto found = GuardPins::find(kBpffs);
        ASSERT_FALSE(found) << abi;
        EXPECT_THAT(found.error().message, HasSubstr("another make"));
        // What it guards stays guarded, and nothing was written into it.
        EXPECT_EQ(EPERM, forbidden());
        EXPECT_EQ(abi, read_about().abi);
    }
    write_about(own);
    EXPECT_TRUE(ok(Guard::acquire()));  // the control
}

TEST_F(GuardSetsTest, AnotherPolicySizeInUseIsRefused) {
    const postern_about own = read_about();
    postern_about other = own;
    other.policy_size += 8;
    write_about(other);
    EXPECT_FALSE(Guard::acquire());
    EXPECT_EQ(EPERM, forbidden());
    write_about(own);
    EXPECT_TRUE(ok(Guard::acquire()));
}

TEST_F(GuardSetsTest, AnotherAbiThatNobodyUsesIsReplaced) {
    postern_about other = read_about();
    other.abi = POSTERN_GUARD_ABI + 1;
    leave();
    write_about(other);
    come_back();
    EXPECT_EQ(static_cast<uint32_t>(POSTERN_GUARD_ABI), read_about().abi);
    EXPECT_EQ(guard_stamp(), read_about().stamp);
    make_files(policy());
    EXPECT_EQ(EPERM, forbidden());
}

TEST_F(GuardSetsTest, AnotherBuildsSetCanBeReadWhileItIsUsed) {
    const postern_about own = read_about();
    postern_about other = own;
    other.stamp++;
    write_about(other);
    const auto found = GuardPins::find(kBpffs);
    ASSERT_TRUE(ok(found));
    ASSERT_TRUE(found->has_value());
    EXPECT_EQ(1U, (*found)->files().value().size());
    write_about(own);
}

TEST_F(GuardSetsTest, AFolderOfAnotherAbiStandsBesideOurs) {
    const std::string beside = pins() + "9";
    ASSERT_EQ(0, ::mkdir(beside.c_str(), 0700));
    const UniqueFd map(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "theirs", 4, 8, 1, nullptr));
    ASSERT_EQ(0, ::bpf_obj_pin(map.get(), (beside + "/map_about").c_str()));
    {
        auto another = Guard::acquire();
        ASSERT_TRUE(ok(another));
        EXPECT_EQ(EPERM, forbidden());
    }
    // Unloading ours leaves theirs.
    leave();
    auto found = GuardPins::find(kBpffs);
    ASSERT_TRUE(ok(found));
    ASSERT_TRUE(found->has_value());
    EXPECT_TRUE(ok((*found)->remove()));
    EXPECT_NE(0, ::access(pins().c_str(), F_OK));
    EXPECT_EQ(0, ::access((beside + "/map_about").c_str(), F_OK));
    come_back();
    EXPECT_EQ(0, ::access((beside + "/map_about").c_str(), F_OK));
    EXPECT_EQ(0, ::unlink((beside + "/map_about").c_str()));
    EXPECT_EQ(0, ::rmdir(beside.c_str()));
}

TEST_F(GuardSetsTest, ASetIsNotRemovedWhileAFileIsRegistered) {
    auto found = GuardPins::find(kBpffs);
    ASSERT_TRUE(ok(found));
    ASSERT_TRUE(found->has_value());
    EXPECT_FALSE((*found)->remove());
    EXPECT_TRUE(attached());
    EXPECT_EQ(EPERM, forbidden());
}

TEST_F(GuardSetsTest, WhoHoldsAnOldSetSeesThatItIsReplaced) {
    auto found = GuardPins::find(kBpffs);
    ASSERT_TRUE(ok(found));
    EXPECT_TRUE((*found)->is_current());
    postern_about other = read_about();
    other.stamp++;
    leave();
    write_about(other);
    come_back();
    EXPECT_FALSE((*found)->is_current());
    EXPECT_TRUE(GuardPins::find(kBpffs).value()->is_current());
}

}  // namespace
}  // namespace postern::test
