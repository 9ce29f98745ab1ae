// SPDX-License-Identifier: Apache-2.0
#include "launcher/job_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> words(std::string_view line) {
    auto split = split_command(line);
    EXPECT_TRUE(split) << line << ": " << (split ? "" : split.error().message);
    return split ? *split : std::vector<std::string>{};
}

std::string refusal(std::string_view line) {
    const auto split = split_command(line);
    EXPECT_FALSE(split) << line;
    return split ? "" : split.error().message;
}

TEST(JobList, SplitsWordsAsAShellDoes) {
    EXPECT_THAT(words("./test one\ttwo  three "), ElementsAre("./test", "one", "two", "three"));
    EXPECT_THAT(words(R"(a 'b  c' "d  e" f\ g)"), ElementsAre("a", "b  c", "d  e", "f g"));
    EXPECT_THAT(words(R"(a '' "" b)"), ElementsAre("a", "", "", "b"));
    EXPECT_THAT(words(R"(a"b"'c'\d)"), ElementsAre("abcd"));
    EXPECT_THAT(words(R"("\"\\\$\`" "\n" '\n')"), ElementsAre("\"\\$`", "\\n", "\\n"));
    EXPECT_THAT(words("--a=b x=y {} a~ %d +1 !"), ElementsAre("--a=b", "x=y", "{}", "a~", "%d", "+1", "!"));
}

TEST(JobList, KnowsComments) {
    EXPECT_THAT(words(""), IsEmpty());
    EXPECT_THAT(words("  # nothing"), IsEmpty());
    EXPECT_THAT(words("a # b"), ElementsAre("a"));
    EXPECT_THAT(words("a#b '#' \\#c"), ElementsAre("a#b", "#", "#c"));
}

TEST(JobList, RefusesWhatAShellWouldActOn) {
    for (const std::string_view line : {"a | b", "a && b", "a; b", "a > b", "a < b", "a $HOME", "a `b`",
                                        "a *", "a b?", "a [ab]", "~/a", "(a)", "a \"$HOME\"", "a \"`b`\""}) {
        EXPECT_THAT(refusal(line), HasSubstr("no shell")) << line;
    }
    // The same, quoted.
    EXPECT_THAT(words(R"(a '|' \> '$HOME' "*" \~/a)"), ElementsAre("a", "|", ">", "$HOME", "*", "~/a"));
    EXPECT_THAT(refusal("A=b c"), HasSubstr("write env A"));
    EXPECT_THAT(refusal("A=b"), HasSubstr("write env A"));
    EXPECT_THAT(words("'A'=b c"), ElementsAre("A=b", "c"));
    EXPECT_THAT(words("1=b c"), ElementsAre("1=b", "c"));
    EXPECT_THAT(words("env A=b c"), ElementsAre("env", "A=b", "c"));
}

TEST(JobList, RefusesHalves) {
    EXPECT_THAT(refusal("a 'b"), HasSubstr("other half"));
    EXPECT_THAT(refusal("a \"b"), HasSubstr("other half"));
    EXPECT_THAT(refusal("a \"b\\\""), HasSubstr("other half"));
    EXPECT_THAT(refusal("a \\"), HasSubstr("backslash"));
    EXPECT_THAT(refusal(std::string_view("a\0b", 3)), HasSubstr("NUL"));
}

TEST(JobList, QuotesSoThatItReadsItself) {
    for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
             {"a"}, {""}, {"a b", "'", "\"", "\\", "$x", "`", "*", "~", "#", "A=b"}, {"A=b"}, {"\xff\n\t"}}) {
        EXPECT_EQ(words(quote_command(command)), command) << quote_command(command);
    }
    EXPECT_EQ(quote_command({"./a-b", "c d"}), "./a-b 'c d'");
}

TEST(JobList, HasOneJobALine) {
    const auto jobs = parse_job_list("# list\n\na 1\r\n  b '2 3' # two\n\nc", "list.txt");
    ASSERT_TRUE(jobs) << jobs.error().message;
    ASSERT_EQ(jobs->size(), 3U);
    EXPECT_EQ((*jobs)[0].number, 1U);
    EXPECT_THAT((*jobs)[0].command, ElementsAre("a", "1"));
    EXPECT_THAT((*jobs)[1].command, ElementsAre("b", "2 3"));
    EXPECT_EQ((*jobs)[1].text, "b '2 3' # two");
    EXPECT_EQ((*jobs)[2].number, 3U);
    EXPECT_EQ((*jobs)[2].text, "c");
}

TEST(JobList, SaysWhichLineIsWrong) {
    const auto jobs = parse_job_list("a\n# x\nb | c\n", "list.txt");
    ASSERT_FALSE(jobs);
    EXPECT_THAT(jobs.error().message, HasSubstr("list.txt: line 3: "));
    const auto none = parse_job_list("\n# nothing\n", "list.txt");
    ASSERT_FALSE(none);
    EXPECT_THAT(none.error().message, HasSubstr("no command"));
}

std::vector<std::string> texts(const std::vector<std::string>& arguments) {
    std::vector<std::string> found;
    const auto jobs = jobs_of_arguments(arguments);
    EXPECT_TRUE(jobs) << (jobs ? "" : jobs.error().message);
    if (jobs) {
        for (const Job& job : *jobs) found.push_back(job.text);
    }
    return found;
}

TEST(JobList, OfArgumentsIsAsParallelHasIt) {
    EXPECT_THAT(texts({"./t", "-v", ":::", "a", "b c"}), ElementsAre("./t -v a", "./t -v 'b c'"));
    EXPECT_THAT(texts({"./t", "--x={}", "{}{}", "z", ":::", "a"}), ElementsAre("./t '--x=a' aa z"));
    EXPECT_THAT(texts({"./t", "{}", ":::", "{}"}), ElementsAre("./t '{}'"))
        << "what was put in is not filled again";
    EXPECT_THAT(texts({":::", "a 'b c'", "d"}), ElementsAre("a 'b c'", "d"));
    const auto lines = jobs_of_arguments({":::", "a 'b c'"});
    ASSERT_TRUE(lines);
    EXPECT_THAT(lines->front().command, ElementsAre("a", "b c"));
    EXPECT_TRUE(is_job_list({"a", ":::", "b"}));
    EXPECT_FALSE(is_job_list({"a", "::::", "b:::"}));
}

TEST(JobList, OfArgumentsRefusesWhatItCannotMean) {
    for (const auto& [arguments, says] : std::vector<std::pair<std::vector<std::string>, std::string>>{
             {{"a", ":::"}, "nothing stands behind"},
             {{"a", ":::", "b", ":::", "c"}, "twice"},
             {{":::", "a | b"}, "command 1 behind"},
             {{":::", "a", ""}, "command 2 behind \":::\" is empty"},
             {{"a", "b"}, "no \":::\""}}) {
        const auto jobs = jobs_of_arguments(arguments);
        ASSERT_FALSE(jobs);
        EXPECT_THAT(jobs.error().message, HasSubstr(says));
    }
}

}  // namespace
}  // namespace postern
