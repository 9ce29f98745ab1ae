// SPDX-License-Identifier: Apache-2.0
#include "launcher/notify_message.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace postern {
namespace {

using std::string_literals::operator""s;

TEST(NotifyMessage, PassesWhatAClientMaySayOfItself) {
    const std::string all =
        "READY=1\nSTATUS=42 % done, "
        "\xc3\xbc\nRELOADING=1\nSTOPPING=1\nWATCHDOG=1\nERRNO=5\nEXTEND_TIMEOUT_USEC=5000";
    EXPECT_EQ(filter_notify_message(all), all);
    EXPECT_EQ(filter_notify_message("WATCHDOG=trigger"), "WATCHDOG=trigger");
    EXPECT_EQ(filter_notify_message("STATUS="), "STATUS=");
    // As C programs and shells end it.
    EXPECT_EQ(filter_notify_message("READY=1\0"s), "READY=1");
    EXPECT_EQ(filter_notify_message("READY=1\n"), "READY=1");
}

TEST(NotifyMessage, PassesNothingElse) {
    for (const char* line :
         {"MAINPID=1", "MAINPIDFDID=1", "FDSTORE=1", "FDSTOREREMOVE=1", "FDNAME=x", "FDPOLL=0", "BARRIER=1",
          "NOTIFYACCESS=all", "WATCHDOG_USEC=1", "BUSERROR=x", "VARLINKERROR=x", "MONOTONIC_USEC=1",
          "EXIT_STATUS=0", "X_OWN=1", "READY", "=1", "ready=1", " READY=1", "READY =1"}) {
        EXPECT_EQ(filter_notify_message(line), "") << line;
        EXPECT_EQ(filter_notify_message(std::string(line) + "\nREADY=1"), "READY=1") << line;
        EXPECT_EQ(filter_notify_message(std::string("READY=1\n") + line), "READY=1") << line;
    }
}

TEST(NotifyMessage, PassesGoodValuesOnly) {
    for (const char* line : {"READY=0",
                             "READY=",
                             "READY=1 ",
                             "READY=1=1",
                             "WATCHDOG=0",
                             "WATCHDOG=Trigger",
                             "ERRNO=",
                             "ERRNO=-1",
                             "ERRNO=4096",
                             "ERRNO=1x",
                             "EXTEND_TIMEOUT_USEC=",
                             "EXTEND_TIMEOUT_USEC=1s",
                             "EXTEND_TIMEOUT_USEC=-1",
                             "EXTEND_TIMEOUT_USEC=99999999999999999999",
                             "STATUS=\x1b[2J",
                             "STATUS=a\rb",
                             "STATUS=\x7f",
                             "STATUS=\xff",
                             "STATUS=\xc0\xaf",
                             "STATUS=\xed\xa0\x80",
                             "STATUS=\xc2\x9b",
                             "STATUS=\xe2\x82",
                             "STATUS=\xf4\x90\x80\x80"}) {
        EXPECT_EQ(filter_notify_message(line), "") << line;
    }
    EXPECT_EQ(filter_notify_message("STATUS=\xe2\x82\xac \xf0\x9f\x98\x80"),
              "STATUS=\xe2\x82\xac \xf0\x9f\x98\x80");
    EXPECT_EQ(filter_notify_message("ERRNO=4095"), "ERRNO=4095");
}

TEST(NotifyMessage, IsBounded) {
    EXPECT_EQ(filter_notify_message(""), "");
    EXPECT_EQ(filter_notify_message("READY=1\nX="s + std::string(kMaxNotifyMessage, 'x')), "");
    EXPECT_EQ(filter_notify_message("READY=1\nX="s + std::string(kMaxNotifyMessage - 10, 'x')), "READY=1");
    EXPECT_EQ(filter_notify_message("STATUS=" + std::string(kMaxNotifyStatus, 'x')).size(),
              7 + kMaxNotifyStatus);
    EXPECT_EQ(filter_notify_message("STATUS=" + std::string(kMaxNotifyStatus + 1, 'x')), "");
    EXPECT_EQ(filter_notify_message("READY=1\0MAINPID=1"s), "");
    EXPECT_EQ(filter_notify_message("READY=1\0\0"s), "");
    // The first of a name, as the manager has it.
    EXPECT_EQ(filter_notify_message("STATUS=a\nSTATUS=b\nREADY=1\nREADY=1"), "STATUS=a\nREADY=1");
    EXPECT_EQ(filter_notify_message("STATUS=\xff\nSTATUS=b"), "STATUS=b");
}

/// Whatever comes in, only known lines come out, each once, and no more than came in.
TEST(NotifyMessage, HoldsForNoise) {
    const std::set<std::string> known = {"READY",  "RELOADING", "STOPPING",           "WATCHDOG",
                                         "STATUS", "ERRNO",     "EXTEND_TIMEOUT_USEC"};
    const std::string pieces[] = {
        "READY=1", "MAINPID=1", "STATUS=x",  "\n",      "\n", "=",    "\0"s,   "\xff",   "FDSTORE=1",
        "ERRNO=",  "12",        "WATCHDOG=", "trigger", "1",  "\x1b", "READY", "BARRIER"};
    std::mt19937 dice(1);  // NOLINT(cert-msc51-cpp): the same every time
    for (int round = 0; round < 100000; ++round) {
        std::string message;
        for (auto i = dice() % 12; i > 0; --i) message += pieces[dice() % std::size(pieces)];
        const std::string passed = filter_notify_message(message);
        ASSERT_LE(passed.size(), message.size());
        ASSERT_EQ(filter_notify_message(passed), passed);
        std::set<std::string> names;
        std::istringstream lines(passed);
        for (std::string line; std::getline(lines, line);) {
            const std::string name = line.substr(0, line.find('='));
            ASSERT_TRUE(known.contains(name)) << line;
            ASSERT_TRUE(names.insert(name).second) << line;
        }
    }
}

}  // namespace
}  // namespace postern
