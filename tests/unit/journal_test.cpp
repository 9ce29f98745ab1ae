// SPDX-License-Identifier: Apache-2.0
#include "broker-core/journal.h"

#include <gtest/gtest.h>

namespace postern {
namespace {

using std::string_literals::operator""s;

TEST(Journal, EntriesHaveTheNativeForm) {
    EXPECT_EQ(encode_journal_entry({{"MESSAGE", "hello = you"}, {"POSTERN_SLICE", "1"}}),
              "MESSAGE=hello = you\nPOSTERN_SLICE=1\n");
    // A line end in a value must not begin a field.
    EXPECT_EQ(encode_journal_entry({{"MESSAGE", "a\nPRIORITY=0"}}),
              "MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n"s);
}

TEST(Journal, AStreamIsKnownByItsNumbers) {
    EXPECT_TRUE(is_journal_stream("8:42", 8, 42));
    for (const char* other : {"8:43", "9:42", "8:42 ", "8", "", ":", "8:042"})
        EXPECT_FALSE(is_journal_stream(other, 8, 42)) << other;
}

}  // namespace
}  // namespace postern
