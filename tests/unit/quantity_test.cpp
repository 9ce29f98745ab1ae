// SPDX-License-Identifier: Apache-2.0
#include "broker-core/quantity.h"

#include <gtest/gtest.h>

namespace postern {
namespace {

TEST(Quantity, ReadsWhatTheContractShows) {
    EXPECT_EQ(*parse_quantity("0x3000"), 0x3000U);
    EXPECT_EQ(*parse_quantity("4KiB"), 4096U);
    EXPECT_EQ(*parse_quantity("2MiB"), 2U << 20);
    EXPECT_EQ(*parse_quantity("12288"), 12288U);
    EXPECT_EQ(*parse_quantity("0x10KiB"), 16384U);
    EXPECT_EQ(*parse_quantity("0xffffffffffffffff"), UINT64_MAX);
}

TEST(Quantity, RefusesTheRest) {
    for (const char* text : {"", "x", "0x", "-1", "+1", "1.5", "4KB", "4 KiB", "4KiBx", "0x1ffffffffffffffff",
                             "17179869184GiB", " 1", "1 "}) {
        EXPECT_FALSE(parse_quantity(text)) << text;
    }
}

TEST(Duration, HasUnits) {
    EXPECT_EQ(parse_duration("250ms")->count(), 250);
    EXPECT_EQ(parse_duration("60s")->count(), 60000);
    EXPECT_EQ(parse_duration("2")->count(), 2000);
    EXPECT_EQ(parse_duration("5min")->count(), 300000);
    EXPECT_FALSE(parse_duration("5m"));
    EXPECT_FALSE(parse_duration("18446744073709551615h"));
}

TEST(Range, PagesAreRoundedOut) {
    const Range range{0x3010, 0x3020};
    EXPECT_EQ(range.pages().begin, 0x3000U);
    EXPECT_EQ(range.pages().end, 0x4000U);
    EXPECT_TRUE((Range{0, 10}.overlaps({9, 12})));
    EXPECT_FALSE((Range{0, 10}.overlaps({10, 12})));
}

TEST(FormatSize, UsesTheLargestWholeUnit) {
    EXPECT_EQ(format_size(4096), "4KiB");
    EXPECT_EQ(format_size(3U << 20), "3MiB");
    EXPECT_EQ(format_size(100), "100 bytes");
    EXPECT_EQ(format_size(0), "0 bytes");
}

}  // namespace
}  // namespace postern
