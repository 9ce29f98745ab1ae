// SPDX-License-Identifier: Apache-2.0
#include "launcher/json_string.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

namespace postern {
namespace {

std::string as_nlohmann(const std::string& text) {
    return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

TEST(JsonString, IsWhatTheLibraryWrites) {
    for (const std::string& text :
         {std::string(), std::string("/sys/fs/cgroup/a b"), std::string("\"\\/\b\f\n\r\t\x01\x1f\x7f"),
          std::string("\0x", 2), std::string("gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80"),
          std::string("\xC3"), std::string("\xE2\x82"), std::string("\xED\xA0\x80"), std::string("\xC0\x80"),
          std::string("\xF0\x9Fx"), std::string("\xFF\xFE")}) {
        EXPECT_EQ(json_string(text), as_nlohmann(text)) << text;
    }
}

TEST(JsonString, OfRandomBytesIsWhatTheLibraryWrites) {
    std::mt19937 random(7);
    // What begins sequences, what goes on with them, their borders, and all other bytes.
    const std::string telling = "\x80\x8F\x90\x9F\xA0\xBF\xC1\xC2\xDF\xE0\xED\xEF\xF0\xF4\xF5\"\\a";
    for (int round = 0; round < 20000; ++round) {
        std::string text;
        for (auto i = random() % 9; i-- > 0;)
            text +=
                random() % 4 == 0 ? static_cast<char>(random() % 256) : telling[random() % telling.size()];
        ASSERT_EQ(json_string(text), as_nlohmann(text)) << ::testing::PrintToString(text);
    }
}

}  // namespace
}  // namespace postern
