// SPDX-License-Identifier: Apache-2.0
//
// A sandbox that waits for its command: what runs in it finds what it would in one that did not wait, and one
// that is of no use leaves nothing.
#include "launcher/prepared_sandbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "tests/root/sandbox_fixture.h"

namespace postern {
namespace {

using ::testing::HasSubstr;

class Prepared : public SandboxTest {
  protected:
    /// As run(), in a sandbox that is made of `made` and waits until its time has come.
    static Outcome run_prepared(const SandboxSpec& made, const SandboxSpec& spec) {
        Outcome outcome;
        auto supervisor = Supervisor::create();
        auto prepared = PreparedSandbox::make(made);
        if (!supervisor || !prepared) return outcome;
        ::usleep(20000);
        // Streams of the moment of the start, not of the making.
        Captured captured;
        auto client = prepared->start(spec);
        if (!client) {
            outcome.error = "of no use";
            return outcome;
        }
        if (!*client) {
            outcome.status = client->error().exit_status;
            outcome.error = client->error().error.message;
            return outcome;
        }
        supervisor->add(std::move(**client));
        const auto ended = supervisor->wait_any();
        if (!ended) return outcome;
        outcome.status = ended->exit.status();
        outcome.kind = ended->exit.kind;
        outcome.out = captured.text();
        return outcome;
    }
    /// The spec without its command.
    static SandboxSpec without_command(SandboxSpec spec) {
        spec.argv.clear();
        spec.env.clear();
        return spec;
    }
    static std::string children(pid_t pid) {
        return read_text("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children");
    }
};

TEST_F(Prepared, IsTheSameInside) {
    const UniqueFd event(::eventfd(0, EFD_CLOEXEC));
    SandboxSpec spec = shell(
        "id; env | sort; grep -E '^(Cap|Seccomp|NoNewPrivs|NSpid|Groups|SigBlk|SigIgn)' /proc/self/status; "
        "ls /proc/self/fd; readlink /proc/self/fd/3; "
        "cat /proc/self/limits /proc/self/mountinfo | sed 's/^[0-9]* [0-9]* [0-9:]*//'; pwd; umask; "
        "test \"$LISTEN_PID\" = $$ && echo mine; echo error >&2; exit 7");
    spec.fds = {{event.get(), "irq.vq"}};
    spec.rlimits = {{RLIMIT_NOFILE, 64, 64}};
    const Outcome usual = run(spec);
    const Outcome late = run_prepared(without_command(spec), spec);
    EXPECT_EQ(usual.status, 7);
    EXPECT_EQ(late.status, 7);
    EXPECT_THAT(late.out, HasSubstr("LISTEN_FDNAMES=irq.vq"));
    EXPECT_THAT(late.out, HasSubstr("mine\n"));
    EXPECT_EQ(usual.out, late.out);
}

TEST_F(Prepared, FindsCommandsAsEver) {
    SandboxSpec spec = full();
    for (const auto& [command, status] : {std::pair<const char*, int>{"true", 0},
                                          {"/bin/true", 0},
                                          {"no-such-command", 127},
                                          {"/etc/passwd", 126},
                                          {"/etc", 126}}) {
        spec.argv = {command};
        EXPECT_EQ(run_prepared(without_command(spec), spec).status, status) << command;
    }
    spec.root = {Root::Kind::Empty, ""};
    spec.mounts = {{.type = Mount::Type::Bind, .source = "/usr", .target = "/usr", .options = {"ro"}},
                   {.type = Mount::Type::Bind, .source = "/lib64", .target = "/lib64", .options = {"ro"}},
                   {.type = Mount::Type::Bind, .source = "/lib", .target = "/lib", .options = {"ro"}}};
    for (const auto& [command, status] : {std::pair<const char*, int>{"true", 0}, {"no-such-command", 127}}) {
        spec.argv = {command};
        EXPECT_EQ(run_prepared(without_command(spec), spec).status, status) << command;
    }
}

TEST_F(Prepared, HasTheTimeLimitOfItsCommand) {
    SandboxSpec spec = shell("sleep 60");
    spec.time_limit = std::chrono::milliseconds(100);
    EXPECT_EQ(run_prepared(without_command(shell("")), spec).kind, ClientExit::Kind::TimeLimit);
}

TEST_F(Prepared, WhatFailedInItIsOfNoUse) {
    SandboxSpec spec = shell("exit 0");
    spec.mounts = {{.type = Mount::Type::Tmpfs, .source = "", .target = "/no/such/place"}};
    // It is known once it has failed, which takes it a moment; until then its start fails.
    EXPECT_TRUE(eventually([&] { return run_prepared(without_command(spec), spec).error == "of no use"; }));
    EXPECT_EQ(run(spec).status, 125) << "and started anew it is told why";
    spec.mounts.clear();
    EXPECT_EQ(run_prepared(without_command(spec), spec).status, 0);
}

TEST_F(Prepared, ACommandWithoutRoomIsNotBegun) {
    SandboxSpec spec = shell("exit 0");
    spec.env.push_back("LONG=" + std::string(2 << 20, 'x'));
    EXPECT_EQ(run_prepared(without_command(spec), spec).error, "of no use");
}

TEST_F(Prepared, EndsWithItsObject) {
    const std::string before = children(::getpid());
    {
        auto prepared = PreparedSandbox::make(without_command(shell("")));
        ASSERT_TRUE(prepared.has_value());
        EXPECT_NE(children(::getpid()), before);
    }
    EXPECT_EQ(children(::getpid()), before);
}

TEST_F(Prepared, EndsWithItsLauncher) {
    const pid_t launcher = ::fork();
    if (launcher == 0) {
        auto prepared = PreparedSandbox::make(without_command(shell("")));
        while (prepared) ::pause();
        ::_exit(1);
    }
    pid_t init = 0;
    ASSERT_TRUE(eventually([&] {
        init = static_cast<pid_t>(std::atoi(children(launcher).c_str()));
        // Init, and the client that waits.
        return init > 0 && !children(init).empty();
    }));
    ::kill(launcher, SIGKILL);
    ::waitpid(launcher, nullptr, 0);
    EXPECT_TRUE(eventually([&] { return !is_alive(init); }));
}

}  // namespace
}  // namespace postern
