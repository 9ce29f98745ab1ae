// SPDX-License-Identifier: Apache-2.0
#include "launcher/child_command.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace postern {
namespace {

template <typename Pointer>
std::vector<std::string> texts(Pointer const* list) {
    std::vector<std::string> found;
    for (; *list != nullptr; ++list) found.emplace_back(*list);
    return found;
}

TEST(CommandText, IsLaidOutAsExecTakesIt) {
    CommandText text;
    text.argv = {"tool", "", "an argument"};
    text.env = {"A=1", "B="};
    text.pid_variables = {"LISTEN_PID", "MAIN_PID"};
    text.candidates = {"/usr/bin/tool", "/bin/tool"};
    text.has_target = true;
    text.target_inode = 7;
    text.target_tree = 5;
    // What lies behind must not be touched.
    std::vector<char> room(text.size() + 8, '\x5a');
    const ChildCommand& command = text.lay_out(room.data());
    EXPECT_EQ(static_cast<const void*>(&command), static_cast<const void*>(room.data()));
    EXPECT_EQ(std::string(room.end() - 8, room.end()), std::string(8, '\x5a'));

    EXPECT_EQ(texts(command.argv), text.argv);
    EXPECT_EQ(texts(command.candidates), text.candidates);
    EXPECT_EQ(texts(command.env), (std::vector<std::string>{"A=1", "B=", "LISTEN_PID=", "MAIN_PID="}));
    ASSERT_NE(command.pid_digits[0], nullptr);
    ASSERT_NE(command.pid_digits[1], nullptr);
    EXPECT_EQ(command.pid_digits[2], nullptr);
    // As long as a pid can be.
    std::strcpy(command.pid_digits[0], "4194304");
    std::strcpy(command.pid_digits[1], "2147483647");
    EXPECT_EQ(texts(command.env),
              (std::vector<std::string>{"A=1", "B=", "LISTEN_PID=4194304", "MAIN_PID=2147483647"}));
    EXPECT_TRUE(command.has_target);
    EXPECT_EQ(command.target_inode, 7U);
    EXPECT_EQ(command.target_tree, 5);
}

TEST(CommandText, OfNothingIsEmptyLists) {
    const CommandText text;
    std::vector<char> room(text.size());
    const ChildCommand& command = text.lay_out(room.data());
    EXPECT_EQ(*command.argv, nullptr);
    EXPECT_EQ(*command.env, nullptr);
    EXPECT_EQ(*command.pid_digits, nullptr);
    EXPECT_EQ(*command.candidates, nullptr);
}

}  // namespace
}  // namespace postern
