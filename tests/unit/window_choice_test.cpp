// SPDX-License-Identifier: Apache-2.0
// Whether a client gets dma-bufs in place of the device fd, from what was found out about them.
#include "broker-core/window_choice.h"

#include <gtest/gtest.h>

#include <string>

#include "broker-core/profile_reader.h"

namespace postern {
namespace {

PlannedWindow by_dmabuf(Access access = {true, true}) {
    PlannedWindow window;
    window.name = "w";
    window.offset = 0x3000;
    window.length = 0x2000;
    window.access = access;
    window.by_dmabuf = true;
    return window;
}

/// Of a dma-buf that is this window and no more.
DmabufFacts exact(const PlannedWindow& window) {
    return {.size = 0x2000,
            .maps = true,
            .maps_window = true,
            .maps_longer = false,
            .grows = false,
            .can_be_written = window.access.write};
}

TEST(DmabufChoice, WhatIsTheWindowAndNoMoreIsMapped) {
    for (const Access access : {Access{true, true}, Access{true, false}, Access{false, true}}) {
        const PlannedWindow window = by_dmabuf(access);
        EXPECT_EQ(DmabufUse::Map, choose_dmabuf(window, exact(window))) << access.text();
    }
    PlannedWindow narrow = by_dmabuf();
    narrow.length = 0x1004;  // two pages, as it cannot be less
    EXPECT_EQ(DmabufUse::Map, choose_dmabuf(narrow, exact(narrow)));
}

TEST(DmabufChoice, WhatCannotBeMappedIsForImporters) {
    DmabufFacts facts = exact(by_dmabuf());
    facts.maps = facts.maps_window = false;
    EXPECT_EQ(DmabufUse::Import, choose_dmabuf(by_dmabuf(), facts));
    EXPECT_EQ(DmabufUse::None, choose_dmabuf(by_dmabuf(), std::nullopt));
    // An importer reaches what is beyond the window as a mapping would.
    facts.size = 0x3000;
    const auto larger = choose_dmabuf(by_dmabuf(), facts);
    ASSERT_FALSE(larger);
    EXPECT_THAT(larger.error().message, testing::HasSubstr("has another size"));
}

TEST(DmabufChoice, WhatIsMoreThanTheWindowIsNotHandedOut) {
    const auto changed = [](Access access, auto&& change) {
        const PlannedWindow window = by_dmabuf(access);
        DmabufFacts facts = exact(window);
        change(facts);
        return std::pair(window, facts);
    };
    const Access both{true, true};
    const std::pair<std::pair<PlannedWindow, DmabufFacts>, const char*> cases[] = {
        {changed(both, [](DmabufFacts& facts) { facts.size = 0x3000; }), "has another size"},
        {changed(both, [](DmabufFacts& facts) { facts.size = 0x1000; }), "has another size"},
        {changed(both, [](DmabufFacts& facts) { facts.maps_window = false; }), "not as the window"},
        {changed(both, [](DmabufFacts& facts) { facts.maps_longer = true; }), "beyond its end"},
        {changed(both, [](DmabufFacts& facts) { facts.grows = true; }), "mremap(2)"},
        {changed({true, false}, [](DmabufFacts& facts) { facts.can_be_written = true; }), "only read"},
    };
    for (const auto& [made, why] : cases) {
        auto [window, facts] = made;
        const auto only_way = choose_dmabuf(window, facts);
        ASSERT_FALSE(only_way) << why;
        EXPECT_NE(only_way.error().message.find(why), std::string::npos) << only_way.error().message;
        window.by_mmap = true;
        EXPECT_EQ(DmabufUse::None, choose_dmabuf(window, facts)) << why;
    }
}

TEST(DeviceFd, IsNotNeededWhereDmabufsAreAllThereIs) {
    const std::vector<PlannedWindow> two{by_dmabuf(), by_dmabuf({true, false})};
    EXPECT_FALSE(needs_device_fd({}, two, {DmabufUse::Map, DmabufUse::Map}));
    std::vector<PlannedWindow> both_ways = two;
    both_ways[1].by_mmap = true;
    EXPECT_FALSE(needs_device_fd({}, both_ways, {DmabufUse::Map, DmabufUse::Map}));
}

TEST(DeviceFd, IsNeededForOneThingThatIsNoMappedDmabuf) {
    const std::vector<PlannedWindow> two{by_dmabuf(), by_dmabuf()};
    const std::vector<DmabufUse> mapped{DmabufUse::Map, DmabufUse::Map};
    ASSERT_FALSE(needs_device_fd({}, two, mapped));
    EXPECT_TRUE(needs_device_fd({}, two, {DmabufUse::Map, DmabufUse::Import}));
    EXPECT_TRUE(needs_device_fd({}, two, {DmabufUse::None, DmabufUse::Map}));
    IoctlRule rule;
    rule.name = "VFIO_DEVICE_GET_INFO";
    EXPECT_TRUE(needs_device_fd({rule}, two, mapped));
    std::vector<PlannedWindow> with_pread = two;
    with_pread[1].by_pread = true;
    EXPECT_TRUE(needs_device_fd({}, with_pread, mapped));
    EXPECT_TRUE(needs_device_fd({}, {}, {}));
}

TEST(DeviceFd, MayBeSparedByAProfile) {
    const auto may = [](const char* methods, const char* ioctls) {
        const auto profile = read_profile(
            Json::parse(std::string(R"({"postern":1,"device":{"windows":[{"name":"w","region":"bar0",)") +
                        R"("offset":0,"length":4096,"methods":)" + methods + R"(}],"ioctls":)" + ioctls +
                        "}}"),
            false);
        EXPECT_TRUE(profile) << methods;
        return profile && dmabufs_may_do(*profile->device);
    };
    EXPECT_TRUE(may(R"(["dmabuf"])", "[]"));
    EXPECT_TRUE(may(R"(["mmap","dmabuf"])", "[]"));
    EXPECT_FALSE(may(R"(["mmap"])", "[]"));
    EXPECT_FALSE(may(R"(["dmabuf","pread"])", "[]"));
    EXPECT_FALSE(may(R"(["dmabuf"])", R"(["VFIO_DEVICE_GET_INFO"])"));
    EXPECT_FALSE(dmabufs_may_do(DeviceProfile()));
}

}  // namespace
}  // namespace postern
