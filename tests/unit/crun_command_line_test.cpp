// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/crun_command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace postern {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

using Words = std::vector<std::string>;

CrunCommandLine understood(const Words& words) {
    const CrunReading reading = read_crun_command_line(words);
    EXPECT_FALSE(reading.error) << reading.error->message;
    EXPECT_FALSE(reading.asks_for_help);
    return reading.line;
}

std::string arguments_refused(const Words& words) {
    const CrunReading reading = read_crun_command_line(words);
    return reading.error ? reading.error->message : "understood";
}

TEST(CrunCommandLine, ReadsWhatConmonSays) {
    const CrunCommandLine line = understood(
        {"--cgroup-manager", "cgroupfs", "--log-format=json", "--log", "/run/c/oci-log", "--root=/run/r",
         "create", "--bundle", "/run/b", "--pid-file", "/run/b/pidfile", "--preserve-fds", "2", "ID"});
    EXPECT_TRUE(line.makes_container());
    EXPECT_EQ(line.bundle, "/run/b");
    EXPECT_EQ(line.config_path(), "/run/b/config.json");
    EXPECT_EQ(line.preserve_fds, 2U);
    EXPECT_EQ(line.log, "/run/c/oci-log");
    EXPECT_EQ(line.log_format, "json");
    EXPECT_EQ(line.id, "ID");
    EXPECT_EQ(line.more_options, 13U);
}

TEST(CrunCommandLine, TakesBothWaysToGiveAValue) {
    for (const Words& words :
         {Words{"run", "--bundle=/b", "--config=c", "--preserve-fds=7", "ID"},
          Words{"run", "--bundle", "/b", "--config", "c", "--preserve-fds", "7", "ID"},
          Words{"run", "-b/b", "-fc", "--preserve-f=7", "ID"},
          Words{"run", "-db", "/b", "-f", "c", "--pres", "7", "ID"},
          Words{"--debug", "--", "run", "--bun=/b", "--conf=c", "--preserve-fds=7", "--", "ID"}}) {
        const CrunCommandLine line = understood(words);
        EXPECT_EQ(line.command, "run");
        EXPECT_EQ(line.bundle, "/b");
        EXPECT_EQ(line.config_path(), "c") << "another file is the caller's, not the bundle's";
        EXPECT_EQ(line.preserve_fds, 7U);
        EXPECT_EQ(line.id, "ID");
    }
}

TEST(CrunCommandLine, HasCrunsDefaults) {
    const CrunCommandLine line = understood({"create", "ID"});
    EXPECT_EQ(line.config_path(), "./config.json");
    EXPECT_EQ(line.preserve_fds, 0U);
    EXPECT_EQ(line.log, "");
}

TEST(CrunCommandLine, OfTwoTheLastCounts) {
    EXPECT_EQ(understood({"run", "-b", "/a", "--bundle=/b", "ID"}).bundle, "/b");
    EXPECT_EQ(understood({"run", "--preserve-fds=1", "--preserve-fds=3", "ID"}).preserve_fds, 3U);
}

TEST(CrunCommandLine, LeavesOtherCommandsAlone) {
    for (const char* command : {"start", "delete", "exec", "kill", "list", "ru", "future"}) {
        const CrunCommandLine line = understood({"--root=/r", command, "--unknown", "-x", "word"});
        EXPECT_EQ(line.command, command);
        EXPECT_FALSE(line.makes_container());
    }
    EXPECT_EQ(understood({}).command, "");
    for (const Words& words : {Words{"--version"}, Words{"-v"}, Words{"--help"}, Words{"run", "--help"},
                               Words{"run", "-?"}, Words{"create", "--us"}})
        EXPECT_TRUE(read_crun_command_line(words).asks_for_help) << words.back();
}

TEST(CrunCommandLine, WhatItDoesNotKnowIsAnError) {
    EXPECT_THAT(arguments_refused({"run", "--unknown", "x", "ID"}), HasSubstr("--unknown is not known"));
    EXPECT_THAT(arguments_refused({"--unknown", "run", "ID"}), HasSubstr("--unknown is not known"));
    EXPECT_THAT(arguments_refused({"run", "-z", "ID"}), HasSubstr("-z is not known"));
    EXPECT_THAT(arguments_refused({"run", "-dz", "ID"}), HasSubstr("-z is not known"));
    // Two options begin so.
    EXPECT_THAT(arguments_refused({"run", "--no-", "ID"}), HasSubstr("--no- is not known"));
    EXPECT_THAT(arguments_refused({"run", "--con", "x", "ID"}), HasSubstr("--con is not known"));
    EXPECT_THAT(arguments_refused({"run", "--detach=1", "ID"}), HasSubstr("takes no value"));
    EXPECT_THAT(arguments_refused({"run", "ID", "--bundle"}), HasSubstr("one container ID at the end"));
    EXPECT_THAT(arguments_refused({"run", "--bundle"}), HasSubstr("--bundle needs a value"));
    EXPECT_THAT(arguments_refused({"run"}), HasSubstr("one container ID"));
    for (const char* count : {"-1", "x", "", "1x", "99999", " 1"})
        EXPECT_THAT(arguments_refused({"run", "--preserve-fds", count, "ID"}),
                    HasSubstr("not a number of fds"))
            << count;
    EXPECT_EQ(arguments_refused({"run", "--preserve-fds", "0", "ID"}), "understood");
}

TEST(CrunCommandLine, WordsThatAreNotUnderstoodMayNameABundle) {
    const auto files = possible_configs({"run", "--new=/a", "-b/b", "-db/c", "--x", "/d", "ID"});
    for (const char* file : {"config.json", "/a/config.json", "/b/config.json", "/c/config.json",
                             "/d/config.json", "/a", "ID/config.json"})
        EXPECT_THAT(files, Contains(file));
}

TEST(CrunCommandLine, OptionsAreAddedBeforeTheId) {
    Words words{"--debug", "run", "-b", "/b", "ID"};
    EXPECT_THAT(with_grant(words, understood(words), 5, "/c"),
                ElementsAre("--debug", "run", "-b", "/b", "--preserve-fds=5", "--config=/c", "ID"));
    words = {"run", "--", "ID"};
    EXPECT_THAT(with_grant(words, understood(words), 5, "/c"),
                ElementsAre("run", "--preserve-fds=5", "--config=/c", "--", "ID"));
    // And crun reads them as they are meant.
    words = {"create", "--preserve-fds", "2", "--config=x", "ID"};
    const CrunCommandLine line = understood(with_grant(words, understood(words), 9, "/c"));
    EXPECT_EQ(line.preserve_fds, 9U);
    EXPECT_EQ(line.config_path(), "/c");
}

}  // namespace
}  // namespace postern
