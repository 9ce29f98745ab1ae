// SPDX-License-Identifier: Apache-2.0
#include "launcher/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

namespace postern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

/// A command with one of each kind of option, one below another, and a hidden one.
class CompletionTest : public ::testing::Test {
  protected:
    void SetUp() override {
        CLI::App* run = app_.add_subcommand("run", "run one client");
        run->add_option("--device", word_, "the device's address")->type_name("BDF");
        run->add_option("--bind", words_, "bind a file")
            ->type_name("SRC DEST")
            ->type_size(2)
            ->group("Sandbox");
        run->add_option("--depth", depth_, "reads in flight")->check(CLI::Range(1, 128));
        run->add_flag("-q,--quiet", flag_, "say less");
        run->prefix_command();
        CLI::App* profile = app_.add_subcommand("profile", "check a profile");
        profile->add_subcommand("lint", "say whether it is good")
            ->add_option("PROFILE", word_, "by name or file")
            ->required();
        app_.add_subcommand("secret", "not to be told of")->group("");
        add_version_flags(app_, "postern 1.2.3");
    }

    CLI::App app_{"a program", "postern"};
    std::string word_;
    std::vector<std::string> words_;
    int depth_ = 0;
    bool flag_ = false;
};

TEST_F(CompletionTest, TreeIsWhatTheParserWasTold) {
    const CommandInfo root = read_command_tree(app_);
    ASSERT_EQ(root.commands.size(), 2U);
    const CommandInfo& run = root.commands[0];
    EXPECT_THAT(run.path, ElementsAre("postern", "run"));
    EXPECT_TRUE(run.launches);
    EXPECT_FALSE(root.commands[1].launches);
    const auto option = [&](const char* name) -> OptionInfo {
        for (const OptionInfo& each : run.options) {
            if (std::find(each.names.begin(), each.names.end(), name) != each.names.end()) return each;
        }
        ADD_FAILURE() << name << " is missing";
        return {};
    };
    EXPECT_THAT(option("--device").values, ElementsAre("BDF"));
    EXPECT_THAT(option("--bind").values, ElementsAre("SRC", "DEST"));
    EXPECT_EQ(option("--bind").group, "Sandbox");
    EXPECT_THAT(option("--depth").values, ElementsAre("INT"));
    EXPECT_THAT(option("--quiet").names, ElementsAre("--quiet", "-q"));
    EXPECT_TRUE(option("--quiet").values.empty());
    const CommandInfo& lint = root.commands[1].commands.at(0);
    EXPECT_THAT(lint.path, ElementsAre("postern", "profile", "lint"));
    ASSERT_EQ(lint.positionals.size(), 1U);
    EXPECT_THAT(lint.positionals[0].values, ElementsAre("PROFILE"));
    EXPECT_TRUE(lint.positionals[0].required);
}

TEST_F(CompletionTest, EveryCommandSaysTheVersion) {
    for (const std::vector<std::string>& reversed :
         {std::vector<std::string>{"--version"}, {"--version", "run"}, {"--version", "lint", "profile"}}) {
        try {
            app_.clear();
            app_.parse(std::vector<std::string>(reversed));
            ADD_FAILURE() << "parsed as something else";
        } catch (const CLI::CallForVersion& version) {
            EXPECT_STREQ(version.what(), "postern 1.2.3");
        }
    }
    EXPECT_THROW(app_.parse("profile lint x --versio"), CLI::ParseError);
}

TEST_F(CompletionTest, BashKnowsEveryCommandAndOption) {
    const std::string script = bash_completion(read_command_tree(app_));
    EXPECT_THAT(script, HasSubstr("commands['postern']='run profile'\n"));
    EXPECT_THAT(script, HasSubstr("values['postern run --bind']='SRC DEST'\n"));
    EXPECT_THAT(script, HasSubstr("values['postern profile lint']='PROFILE'\n"));
    EXPECT_THAT(script, HasSubstr("launches['postern run']='yes'\n"));
    EXPECT_THAT(script, HasSubstr("--quiet -q"));
    EXPECT_THAT(script, Not(HasSubstr("# TABLES")));
    EXPECT_THAT(script, Not(HasSubstr("secret")));
}

TEST_F(CompletionTest, FishKnowsEveryCommandAndOption) {
    const std::string script = fish_completion(read_command_tree(app_));
    EXPECT_THAT(script, HasSubstr("-n '__fish_seen_subcommand_from run' -l quiet -s q -d 'say less'\n"));
    EXPECT_THAT(script, HasSubstr("-l device -x -a '(command ls /sys/bus/pci/devices)' "
                                  "-d 'the device'\\''s address'\n"));
    EXPECT_THAT(script, HasSubstr("-f -a lint -d 'say whether it is good'\n"));
    EXPECT_THAT(script, Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace postern
