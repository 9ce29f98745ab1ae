// SPDX-License-Identifier: Apache-2.0
// What a client may map itself, by the rules as the guard's own decision reads them.
#include "broker-core/dma_map.h"

#include <gtest/gtest.h>

#include <cstring>

#include "bpf/decide.h"
#include "broker-core/iommufd_uapi.h"
#include "tests/support/native_fetch.h"

namespace postern {
namespace {

using namespace uapi;

constexpr uint32_t kIoas = 7;
constexpr uint64_t kIova = 0x1000000;
constexpr uint64_t kSize = 0x10000;
constexpr uint32_t kToRead = kIoasMapFixedIova | kIoasMapReadable;
constexpr uint32_t kHow = kIoasMapFixedIova | kIoasMapReadable | kIoasMapWriteable;

class DmaMapTest : public ::testing::Test {
  protected:
    void SetUp() override { give({true, true}); }

    void give(Access access) {
        FilePolicy policy;
        policy.grant = "test";
        policy.ioctls = dma_map_ioctls({kIova, kSize, access}, kIoas);
        policy_ = encode(policy).value();
    }

    template <typename Block>
    int verdict(uint32_t number, Block block, uint64_t sealed = sizeof(Block)) const {
        const postern_ioctl_entry* rules = nullptr;
        const int listed = postern_decide_ioctl(&policy_, 0, POSTERN_NR_IOCTL, number, &rules);
        if (rules == nullptr) return listed;
        return postern_decide_block(&policy_, rules, reinterpret_cast<uint64_t>(&block), sealed);
    }
    int map(uint64_t iova, uint64_t length, uint32_t how = kHow, uint32_t ioas = kIoas) const {
        const IommuIoasMap block{sizeof block, how, ioas, 0, 0x7000, length, iova};
        return verdict(kIommuIoasMap, block);
    }
    int map_file(uint64_t iova, uint64_t length, uint32_t how, uint32_t ioas = kIoas) const {
        const IommuIoasMapFile block{sizeof block, how, ioas, 3, 0, length, iova};
        return verdict(kIommuIoasMapFile, block);
    }
    int unmap(uint64_t iova, uint64_t length, uint32_t ioas = kIoas) const {
        return verdict(kIommuIoasUnmap, IommuIoasUnmap{sizeof(IommuIoasUnmap), ioas, iova, length});
    }

    postern_policy policy_{};
};

TEST_F(DmaMapTest, InsideItsPart) {
    for (const auto& [iova, length] : {std::pair{kIova, uint64_t{0x1000}},
                                       {kIova, kSize},
                                       {kIova + 0xf000, 0x1000},
                                       {kIova + kSize - 1, 1}}) {
        EXPECT_EQ(POSTERN_ALLOW, map(iova, length)) << std::hex << iova;
        EXPECT_EQ(POSTERN_ALLOW, unmap(iova, length)) << std::hex << iova;
        EXPECT_EQ(POSTERN_ALLOW, map_file(iova, length, kToRead)) << std::hex << iova;
    }
    for (const uint32_t how : {kIoasMapFixedIova, kIoasMapFixedIova | kIoasMapReadable, kHow})
        EXPECT_EQ(POSTERN_ALLOW, map(kIova, 0x1000, how));
}

TEST_F(DmaMapTest, NowhereElse) {
    const std::pair<uint64_t, uint64_t> outside[] = {{kIova - 0x1000, 0x1000},
                                                     {kIova - 0x1000, 0x2000},
                                                     {kIova + kSize, 0x1000},
                                                     {kIova + 0xf000, 0x1001},
                                                     {kIova, kSize + 1},
                                                     {0, UINT64_MAX},
                                                     {kIova, UINT64_MAX},
                                                     {kIova, 0},
                                                     {UINT64_MAX, 1},
                                                     {kIova, UINT64_MAX - kIova},
                                                     {kIova, 0 - kIova},
                                                     {0, kIova + kSize},
                                                     {kIova + 0xf000, UINT64_MAX - 0xfff},
                                                     {UINT64_MAX - 0xfff, 0x1000}};
    for (const auto& [iova, length] : outside) {
        EXPECT_EQ(POSTERN_DENY_ARGUMENT, map(iova, length)) << std::hex << iova << "+" << length;
        EXPECT_EQ(POSTERN_DENY_ARGUMENT, unmap(iova, length)) << std::hex << iova << "+" << length;
        EXPECT_EQ(POSTERN_DENY_ARGUMENT, map_file(iova, length, kToRead))
            << std::hex << iova << "+" << length;
    }
}

TEST_F(DmaMapTest, InItsAddressSpaceAndAtAnAddressOfItsOwnChoice) {
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, map(kIova, 0x1000, kHow, kIoas + 1));
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, unmap(kIova, 0x1000, kIoas + 1));
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, map_file(kIova, 0x1000, kToRead, kIoas + 1));
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, map_file(kIova, 0x1000, kIoasMapReadable));
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, map(kIova, 0x1000, kHow & ~kIoasMapFixedIova));
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, map(kIova, 0x1000, kHow | 8));
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, map(kIova, 0x1000, kHow | 0x80000000));
}

TEST_F(DmaMapTest, ForNoMoreThanItsAccess) {
    give({true, false});
    EXPECT_EQ(POSTERN_ALLOW, map(kIova, 0x1000, kIoasMapFixedIova | kIoasMapReadable));
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, map(kIova, 0x1000, kHow));
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, map(kIova, 0x1000, kIoasMapFixedIova | kIoasMapWriteable));
}

/// The kernel pins a memfd whatever its seals: the device could change the block that a rule has been about.
TEST_F(DmaMapTest, OfAFileTheDeviceOnlyReads) {
    EXPECT_EQ(POSTERN_ALLOW, map_file(kIova, 0x1000, kToRead));
    EXPECT_EQ(POSTERN_ALLOW, map(kIova, 0x1000, kHow));
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, map_file(kIova, 0x1000, kHow));
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, map_file(kIova, 0x1000, kIoasMapFixedIova | kIoasMapWriteable));
    give({false, true});
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, map_file(kIova, 0x1000, kToRead));
}

TEST_F(DmaMapTest, OnlyOfThisSizeAndSealed) {
    IommuIoasMap block{sizeof block, kHow, kIoas, 0, 0x7000, 0x1000, kIova};
    EXPECT_EQ(POSTERN_ALLOW, verdict(kIommuIoasMap, block));
    EXPECT_EQ(POSTERN_DENY_UNSEALED, verdict(kIommuIoasMap, block, sizeof block - 1));
    EXPECT_EQ(POSTERN_DENY_UNSEALED, verdict(kIommuIoasMap, block, 0));
    block.size = sizeof block - 8;  // the kernel would take what is missing for 0
    EXPECT_EQ(POSTERN_DENY_ARGUMENT, verdict(kIommuIoasMap, block));
    block.size = sizeof block + 8;
    EXPECT_EQ(POSTERN_DENY_UNSEALED, verdict(kIommuIoasMap, block));
}

TEST_F(DmaMapTest, NothingElseOfTheIommufd) {
    EXPECT_NE(POSTERN_ALLOW, verdict(kIommuIoasIovaRanges, IommuIoasIovaRanges{}))
        << "its answer is written under the lock of the address space";
    for (uint32_t n = 0; n < 32; ++n) {
        if (n == 4 || n == 5 || n == 6 || n == 15) continue;
        EXPECT_EQ(POSTERN_DENY_COMMAND, verdict(iommufd_io(n), IommuIoasCopy{})) << n;
    }
}

}  // namespace
}  // namespace postern
