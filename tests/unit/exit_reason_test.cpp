// SPDX-License-Identifier: Apache-2.0
#include "launcher/exit_reason.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace postern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Kind = ExitReason::Kind;

ExitReason reason_of(ClientExit::Kind kind, int value, const ExitEvidence& evidence = {}) {
    return find_exit_reason({kind, value}, evidence);
}

const CgroupEvents kOutOfMemory{1, 3, 0};

TEST(ExitReason, OfOneThatEndedByItselfIsItsStatus) {
    EXPECT_EQ(reason_of(ClientExit::Kind::Exited, 0).kind, Kind::Exited);
    EXPECT_EQ(reason_of(ClientExit::Kind::Exited, 137).kind, Kind::Exited) << "as a shell says SIGKILL";
    EXPECT_EQ(reason_of(ClientExit::Kind::Exited, 0, {kOutOfMemory, {}, true}).kind, Kind::Exited)
        << "another process of it was killed";
    EXPECT_THAT(exit_messages({Kind::Exited, 0, {}}, {}), IsEmpty());
    EXPECT_THAT(exit_messages({Kind::Exited, 0, {}}, kOutOfMemory),
                ElementsAre(HasSubstr("ended 1 of the client's processes")));
}

TEST(ExitReason, OfSigkillIsMemoryOnlyIfAnOomKillerWasThere) {
    for (const ClientExit::Kind kind : {ClientExit::Kind::Signaled, ClientExit::Kind::Lost}) {
        EXPECT_EQ(reason_of(kind, SIGKILL, {kOutOfMemory, {}, true}).kind, Kind::Memory);
        EXPECT_EQ(reason_of(kind, SIGKILL, {{}, {}, true}).kind, Kind::Signal);
    }
    EXPECT_EQ(reason_of(ClientExit::Kind::Signaled, SIGSEGV, {kOutOfMemory, {}, true}).kind, Kind::Signal);
    EXPECT_THAT(exit_messages({Kind::Memory, SIGKILL, {}}, kOutOfMemory),
                ElementsAre(HasSubstr("raise memory.max")));
    EXPECT_THAT(exit_messages({Kind::Memory, SIGKILL, {}}, {1, 0, 0}),
                ElementsAre(HasSubstr("the machine, or a cgroup above")));
}

TEST(ExitReason, OfSigsysIsSeccompOnlyWhereThereIsAFilter) {
    const ForbiddenCall call{83, "mkdir", "x86_64"};
    EXPECT_EQ(reason_of(ClientExit::Kind::Signaled, SIGSYS, {{}, call, true}).call, call);
    EXPECT_EQ(reason_of(ClientExit::Kind::Signaled, SIGSYS, {{}, {}, true}).kind, Kind::Seccomp);
    EXPECT_EQ(reason_of(ClientExit::Kind::Signaled, SIGSYS).kind, Kind::Signal) << "somebody's kill(1)";
    EXPECT_THAT(exit_messages({Kind::Seccomp, SIGSYS, call}, {}), ElementsAre(HasSubstr("mkdir (83)")));
    EXPECT_THAT(exit_messages({Kind::Seccomp, SIGSYS, {}}, {}), ElementsAre(HasSubstr("dmesg")));
    EXPECT_THAT(exit_messages({Kind::Seccomp, SIGSYS, ForbiddenCall{20, "getpid", "i386"}}, {}),
                ElementsAre(HasSubstr("getpid (20 of the i386 ABI)")));
}

TEST(ExitReason, NamesTheLimitThatWasHit) {
    EXPECT_EQ(reason_of(ClientExit::Kind::TimeLimit, 0).kind, Kind::Time);
    EXPECT_EQ(reason_of(ClientExit::Kind::Signaled, SIGXCPU).kind, Kind::Time);
    EXPECT_EQ(reason_of(ClientExit::Kind::CpuLimit, SIGXCPU).kind, Kind::CpuTime);
    EXPECT_EQ(reason_of(ClientExit::Kind::CpuLimit, SIGKILL, {kOutOfMemory, {}, true}).kind, Kind::CpuTime)
        << "the OOM killer's was another process";
    EXPECT_EQ(exit_reason_name(Kind::CpuTime), "time");
    EXPECT_EQ(hit_time_limit({Kind::Time, 0, {}}), "time_limit");
    EXPECT_EQ(hit_time_limit({Kind::Time, SIGXCPU, {}}), "rlimits.cpu");
    EXPECT_EQ(hit_time_limit({Kind::CpuTime, SIGXCPU, {}}), "cpu_limit");
    EXPECT_EQ(hit_time_limit({Kind::Signal, SIGKILL, {}}), "");
    EXPECT_THAT(exit_messages({Kind::CpuTime, SIGKILL, {}}, {}),
                ElementsAre(::testing::AllOf(HasSubstr("(cpu_limit) was hit"), HasSubstr("SIGKILL"))));
    EXPECT_THAT(exit_messages({Kind::Time, 0, {}}, {}), ElementsAre(HasSubstr("the time limit was hit")));
    EXPECT_THAT(exit_messages({Kind::Time, SIGXCPU, {}}, {}), ElementsAre(HasSubstr("CPU time")));
    EXPECT_THAT(exit_messages({Kind::Signal, SIGXFSZ, {}}, {}), ElementsAre(HasSubstr("fsize")));
    EXPECT_THAT(exit_messages({Kind::Signal, SIGTERM, {}}, {}), IsEmpty());
    EXPECT_THAT(exit_messages({Kind::Exited, 0, {}}, {0, 0, 2}),
                ElementsAre(HasSubstr("2 forks of the client were refused; raise pids.max")));
    EXPECT_EQ(signal_name(SIGSYS), "SIGSYS");
    EXPECT_EQ(signal_name(40), "signal 40");
}

TEST(CgroupEvents, AreReadFromTheFolder) {
    std::string path = ::testing::TempDir() + "/cgroup-events-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    {
        const UniqueFd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        EXPECT_EQ(read_cgroup_events(folder.get()).oom_kills, 0U) << "no memory controller";
        std::ofstream(path + "/memory.events")
            << "low 0\nhigh 4\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        std::ofstream(path + "/pids.events") << "max 7\n";
        const CgroupEvents events = read_cgroup_events(folder.get());
        EXPECT_EQ(events.oom_kills, 2U);
        EXPECT_EQ(events.over_memory, 3U);
        EXPECT_EQ(events.refused_forks, 7U);
    }
    EXPECT_EQ(read_cgroup_events(-1).oom_kills, 0U);
    std::filesystem::remove_all(path);
}

}  // namespace
}  // namespace postern
