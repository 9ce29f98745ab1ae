// SPDX-License-Identifier: Apache-2.0
#include "broker-core/device_access.h"

#include <gmock/gmock.h>

#include <array>

namespace postern {
namespace {

using ::testing::HasSubstr;

constexpr std::array kAll{Backend::Auto, Backend::Type1, Backend::Iommufd, Backend::Cdev};

TEST(BackendTest, HasANameThatIsRead) {
    for (const Backend backend : kAll) EXPECT_EQ(backend, parse_backend(backend_name(backend)).value());
    const auto unknown = parse_backend("vfio");
    ASSERT_FALSE(unknown);
    EXPECT_THAT(unknown.error().message, HasSubstr("\"vfio\""));
    EXPECT_THAT(unknown.error().message, HasSubstr("cdev"));
}

TEST(BackendTest, AutoIsWhatTheMachineHas) {
    const auto chosen = [](bool group, bool container, bool iommufd, bool cdev) {
        return choose_backend(Backend::Auto, {group, container, iommufd, cdev}, false).value();
    };
    EXPECT_EQ(Backend::Iommufd, chosen(true, true, true, true));
    EXPECT_EQ(Backend::Iommufd, chosen(true, false, true, false));
    EXPECT_EQ(Backend::Type1, chosen(true, true, false, false));
    EXPECT_EQ(Backend::Type1, chosen(true, true, false, true));
    EXPECT_EQ(Backend::Cdev, chosen(false, false, true, true));
    // What is missing is said when it is opened.
    EXPECT_EQ(Backend::Type1, chosen(false, false, false, false));
}

TEST(BackendTest, WhatOnlyAnIommufdCanDo) {
    constexpr BackendNodes all{true, true, true, true};
    constexpr BackendNodes old{true, true, false, false};
    EXPECT_EQ(Backend::Iommufd, choose_backend(Backend::Auto, all, true).value());
    EXPECT_EQ(Backend::Cdev, choose_backend(Backend::Cdev, all, true).value());
    EXPECT_FALSE(choose_backend(Backend::Auto, old, true));
    EXPECT_FALSE(choose_backend(Backend::Type1, all, true));
    EXPECT_EQ(Backend::Type1, choose_backend(Backend::Type1, all, false).value());
}

TEST(BackendTest, OneThatIsNotThereIsRefused) {
    constexpr BackendNodes old{true, true, false, false};
    for (const Backend backend : {Backend::Iommufd, Backend::Cdev}) {
        const auto refused = choose_backend(backend, old, false);
        ASSERT_FALSE(refused);
        EXPECT_THAT(refused.error().message, HasSubstr("CONFIG_IOMMUFD"));
    }
    const auto refused = choose_backend(Backend::Cdev, {true, true, true, false}, false);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("CONFIG_VFIO_DEVICE_CDEV"));
}

}  // namespace
}  // namespace postern
