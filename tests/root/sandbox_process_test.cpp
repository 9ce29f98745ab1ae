// SPDX-License-Identifier: Apache-2.0
//
// The life of sandboxes: signals, ends, leftovers, several at once, and that nothing outlives its launcher.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <random>
#include <thread>

#include "broker-core/scope_guard.h"
#include "launcher/cgroup.h"
#include "tests/root/sandbox_fixture.h"

namespace postern {
namespace {

using ::testing::HasSubstr;

/// pids in the pid namespace of init `init`, seen from here.
std::vector<pid_t> members(pid_t init) {
    char own[64] = {};
    const std::string link = "/proc/" + std::to_string(init) + "/ns/pid";
    if (::readlink(link.c_str(), own, sizeof own - 1) <= 0) return {};
    std::vector<pid_t> result;
    for (const pid_t pid : all_pids()) {
        char other[64] = {};
        const std::string path = "/proc/" + std::to_string(pid) + "/ns/pid";
        if (::readlink(path.c_str(), other, sizeof other - 1) > 0 && std::string(own) == other)
            result.push_back(pid);
    }
    return result;
}

class SandboxProcess : public SandboxTest {};

TEST_F(SandboxProcess, EachSignalReachesTheClient) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT}) {
        auto supervisor = Supervisor::create();
        ASSERT_TRUE(supervisor);
        Captured captured;
        auto client = start_sandbox(shell("trap 'echo got; exit 42' " + std::to_string(signal) +
                                          "; echo ready; while :; do sleep 0.01; done"));
        ASSERT_TRUE(client);
        supervisor->add(std::move(*client));
        EXPECT_TRUE(eventually([&] { return captured.text().find("ready") != std::string::npos; }));
        ASSERT_EQ(::kill(::getpid(), signal), 0);
        const auto ended = supervisor->wait_any();
        captured.restore();
        ASSERT_TRUE(ended);
        EXPECT_EQ(ended->exit.status(), 42) << signal;
        EXPECT_THAT(captured.text(), HasSubstr("got\n"));
        EXPECT_EQ(supervisor->asked_to_end(),
                  signal == SIGINT || signal == SIGTERM || signal == SIGHUP || signal == SIGQUIT);
    }
}

TEST_F(SandboxProcess, DefaultDispositionsWork) {
    // As pid 1 of the namespace it would ignore SIGTERM.
    auto client = start_sandbox(shell("while :; do sleep 0.01; done"));
    ASSERT_TRUE(client);
    ASSERT_TRUE(client->send(SIGTERM));
    const ClientExit exit = client->wait();
    EXPECT_EQ(exit.kind, ClientExit::Kind::Signaled);
    EXPECT_EQ(exit.status(), 128 + SIGTERM);
}

TEST_F(SandboxProcess, SignalsBeforeAnyClientAreKept) {
    auto supervisor = Supervisor::create();
    ASSERT_TRUE(supervisor);
    EXPECT_EQ(supervisor->take_signal(), std::nullopt);
    ASSERT_EQ(::kill(::getpid(), SIGTERM), 0);
    EXPECT_EQ(supervisor->take_signal(), SIGTERM);
    EXPECT_TRUE(supervisor->asked_to_end());
}

TEST_F(SandboxProcess, WhatWasIgnoredStaysIgnored) {
    struct sigaction ignore = {};
    struct sigaction old = {};
    ignore.sa_handler = SIG_IGN;
    ASSERT_EQ(::sigaction(SIGHUP, &ignore, &old), 0);
    {
        auto supervisor = Supervisor::create();
        ASSERT_TRUE(supervisor);
        auto client = start_sandbox(shell("sleep 0.3; exit 9"));
        ASSERT_TRUE(client);
        supervisor->add(std::move(*client));
        ASSERT_EQ(::kill(::getpid(), SIGHUP), 0);
        const auto ended = supervisor->wait_any();
        ASSERT_TRUE(ended);
        EXPECT_EQ(ended->exit.status(), 9) << "as under nohup";
    }
    ASSERT_EQ(::sigaction(SIGHUP, &old, nullptr), 0);
}

TEST_F(SandboxProcess, ZombiesAreReaped) {
    EXPECT_EQ(run_shell("for i in 1 2 3 4 5 6 7 8; do (sleep 0 & ) ; done; n=1; i=0; "
                        "while [ $n != 0 ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); "
                        "n=$(grep -l 'State:.Z' /proc/[0-9]*/status | wc -l); done; echo $n")
                  .out,
              "0\n");
}

TEST_F(SandboxProcess, DaemonsDieWithTheClient) {
    Captured captured;
    auto client = start_sandbox(
        shell("setsid sleep 1000 & (setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 0.05; done' &) "
              "; sleep 0.2; trap 'exit 5' USR1; echo up; while :; do sleep 0.05; done"));
    ASSERT_TRUE(client);
    EXPECT_TRUE(eventually([&] { return captured.text().find("up") != std::string::npos; }));
    const std::vector<pid_t> pids = members(client->init_pid());
    captured.restore();
    EXPECT_GE(pids.size(), 4U);
    ASSERT_TRUE(client->send(SIGUSR1));
    client->wait();
    for (const pid_t pid : pids) EXPECT_FALSE(is_alive(pid)) << pid;
}

TEST_F(SandboxProcess, DestroyingKillsEverything) {
    std::vector<pid_t> pids;
    {
        auto client =
            start_sandbox(shell("trap '' TERM INT HUP; setsid sleep 1000 & while :; do sleep 0.05; done"));
        ASSERT_TRUE(client);
        EXPECT_TRUE(eventually([&] { return members(client->init_pid()).size() >= 3; }));
        pids = members(client->init_pid());
    }
    ASSERT_GE(pids.size(), 3U);
    for (const pid_t pid : pids) EXPECT_FALSE(is_alive(pid)) << pid;
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "and no zombie is left";
}

TEST_F(SandboxProcess, InitKilledFromOutsideIsTold) {
    auto client = start_sandbox(shell("sleep 1000"));
    ASSERT_TRUE(client);
    ASSERT_EQ(::kill(client->init_pid(), SIGKILL), 0);
    const ClientExit exit = client->wait();
    EXPECT_EQ(exit.kind, ClientExit::Kind::Lost);
    EXPECT_EQ(exit.status(), 137);
}

TEST_F(SandboxProcess, SeveralAtOnce) {
    auto supervisor = Supervisor::create();
    ASSERT_TRUE(supervisor);
    for (int i = 0; i < 8; ++i) {
        auto client = start_sandbox(
            shell("sleep 0." + std::to_string((i * 3) % 8) + "; exit " + std::to_string(i + 10)));
        ASSERT_TRUE(client);
        EXPECT_EQ(supervisor->add(std::move(*client)), static_cast<std::size_t>(i));
    }
    while (supervisor->running() > 0) {
        const auto ended = supervisor->wait_any();
        ASSERT_TRUE(ended);
        EXPECT_EQ(ended->exit.status(), static_cast<int>(ended->client) + 10);
    }
}

TEST_F(SandboxProcess, OneTimeLimitLeavesTheOthersAlone) {
    auto supervisor = Supervisor::create();
    ASSERT_TRUE(supervisor);
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    UniqueFd read_end(ends[0]);
    UniqueFd write_end(ends[1]);
    SandboxSpec unlimited = shell("read word <&3; exit 3");
    unlimited.fds = {{read_end.get(), "word"}};
    SandboxSpec limited = shell("sleep 100");
    limited.time_limit = std::chrono::milliseconds(100);
    for (const SandboxSpec& spec : {unlimited, limited}) {
        auto client = start_sandbox(spec);
        ASSERT_TRUE(client);
        supervisor->add(std::move(*client));
    }
    const auto first = supervisor->wait_any();
    EXPECT_EQ(first->client, 1U);
    EXPECT_EQ(first->exit.status(), 124);
    ASSERT_EQ(::write(write_end.get(), "word\n", 5), 5);
    const auto second = supervisor->wait_any();
    EXPECT_EQ(second->exit.status(), 3);
}

TEST_F(SandboxProcess, WatchedFdsAreServed) {
    auto supervisor = Supervisor::create();
    ASSERT_TRUE(supervisor);
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const UniqueFd read_end(ends[0]);
    UniqueFd write_end(ends[1]);
    std::string got;
    supervisor->watch(read_end.get(), [&] {
        char buffer[16];
        const ssize_t size = ::read(read_end.get(), buffer, sizeof buffer);
        if (size > 0) got.append(buffer, static_cast<std::size_t>(size));
    });
    SandboxSpec spec = shell("echo denial >&3; sleep 0.1");
    spec.fds = {{write_end.get(), "events"}};
    auto client = start_sandbox(spec);
    ASSERT_TRUE(client);
    supervisor->add(std::move(*client));
    // The last writer is the client: when it ends, the fd hangs up and is no longer asked.
    write_end.reset();
    ASSERT_TRUE(supervisor->wait_any());
    EXPECT_EQ(got, "denial\n");
}

/// Forks a launcher that starts a sandbox, tells init's pid, and waits.
pid_t fork_launcher(const SandboxSpec& spec, int pid_pipe) {
    const pid_t launcher = ::fork();
    if (launcher != 0) return launcher;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto client = start_sandbox(spec);
    if (!client) ::_exit(99);
    const pid_t init = client->init_pid();
    if (::write(pid_pipe, &init, sizeof init) != sizeof init) ::_exit(98);
    ::_exit(client->wait().status());
}

TEST_F(SandboxProcess, DiesWithItsLauncherAtAnyMoment) {
    // All sandboxes of this test are told by a marker in their environment; a process that carries it is a
    // leftover.
    const std::string marker = "POSTERN_KILL_TEST=" + std::to_string(::getpid());
    SandboxSpec spec = shell("setsid sleep 1000 & sleep 1000");
    spec.env.push_back(marker);
    const auto leftovers = [&] {
        std::vector<pid_t> found;
        for (const pid_t pid : all_pids()) {
            if (read_text("/proc/" + std::to_string(pid) + "/environ").find(marker) != std::string::npos &&
                is_alive(pid)) {
                found.push_back(pid);
            }
        }
        return found;
    };
    // How long a launch takes here, under a sanitizer too, so that the kills fall before, into and after it.
    auto launch = std::chrono::microseconds::max();
    for (int i = 0; i < 5; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        EXPECT_EQ(run_shell("true").status, 0);
        launch = std::min(launch, std::chrono::duration_cast<std::chrono::microseconds>(
                                      std::chrono::steady_clock::now() - begin));
    }
    // It follows what the machine is capable of meanwhile: the more have started, the sooner the next is
    // killed.
    double most = 3 * static_cast<double>(launch.count());
    std::minstd_rand random(static_cast<unsigned>(::getpid()));
    int started = 0;
    constexpr int kRounds = 120;
    for (int round = 0; round < kRounds; ++round) {
        int ends[2];
        ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
        const UniqueFd read_end(ends[0]);
        UniqueFd write_end(ends[1]);
        const pid_t launcher = fork_launcher(spec, write_end.get());
        ASSERT_GT(launcher, 0);
        write_end.reset();
        // From before the clone to well after the exec.
        std::this_thread::sleep_for(std::chrono::microseconds(random() % static_cast<unsigned>(most)));
        ASSERT_EQ(::kill(launcher, SIGKILL), 0);
        ASSERT_EQ(::waitpid(launcher, nullptr, 0), launcher);
        pid_t init = -1;
        const bool has_started = ::read(read_end.get(), &init, sizeof init) == sizeof init;
        started += has_started ? 1 : 0;
        most = std::clamp(most * (has_started ? 0.9 : 1.1), 1.0, 5e6);
        EXPECT_TRUE(eventually([&] { return leftovers().empty(); })) << "round " << round;
    }
    EXPECT_GT(started, 0) << "some rounds came as far as the client: otherwise nothing was tested";
    EXPECT_LT(started, kRounds) << "and some did not";
}

TEST_F(SandboxProcess, DiesWithItsLauncherWithoutAPidNamespaceToo) {
    SandboxSpec spec = shell("sleep 1000");
    spec.namespaces.pid = false;
    for (int round = 0; round < 20; ++round) {
        int ends[2];
        ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
        const UniqueFd read_end(ends[0]);
        UniqueFd write_end(ends[1]);
        SandboxSpec direct = spec;
        direct.argv = {"sleep", "1000"};
        const pid_t launcher = fork_launcher(direct, write_end.get());
        write_end.reset();
        pid_t init = -1;
        ASSERT_EQ(::read(read_end.get(), &init, sizeof init), static_cast<ssize_t>(sizeof init));
        pid_t client = -1;
        const std::string children =
            read_text("/proc/" + std::to_string(init) + "/task/" + std::to_string(init) + "/children");
        ASSERT_FALSE(children.empty());
        client = std::stoi(children);
        EXPECT_TRUE(is_alive(client));
        ASSERT_EQ(::kill(launcher, SIGKILL), 0);
        ASSERT_EQ(::waitpid(launcher, nullptr, 0), launcher);
        EXPECT_TRUE(eventually([&] { return !is_alive(client) && !is_alive(init); }));
    }
}

TEST_F(SandboxProcess, GoesOnWhileItsLauncherIsStopped) {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const UniqueFd read_end(ends[0]);
    UniqueFd write_end(ends[1]);
    const auto counter = folder() / "counter";
    const UniqueFd file(::open(counter.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644));
    SandboxSpec spec = shell("while :; do echo >&3; sleep 0.01; done");
    spec.fds = {{file.get(), "counter"}};
    const pid_t launcher = fork_launcher(spec, write_end.get());
    pid_t init = -1;
    ASSERT_EQ(::read(read_end.get(), &init, sizeof init), static_cast<ssize_t>(sizeof init));
    ASSERT_EQ(::kill(launcher, SIGSTOP), 0);
    ASSERT_EQ(::waitpid(launcher, nullptr, WUNTRACED), launcher);
    const auto before = std::filesystem::file_size(counter);
    EXPECT_TRUE(eventually([&] { return std::filesystem::file_size(counter) > before + 10; }));
    ASSERT_EQ(::kill(launcher, SIGKILL), 0);
    ASSERT_EQ(::waitpid(launcher, nullptr, 0), launcher);
    EXPECT_TRUE(eventually([&] { return !is_alive(init); }));
}

TEST_F(SandboxProcess, ALauncherWithoutStandardFdsWorks) {
    const pid_t launcher = ::fork();
    if (launcher == 0) {
        ::close(0);
        ::close(1);
        ::close(2);
        auto client = start_sandbox(shell("exit 17"));
        ::_exit(client ? client->wait().status() : client.error().exit_status);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(launcher, &status, 0), launcher);
    EXPECT_EQ(WEXITSTATUS(status), 17);
}

TEST_F(SandboxProcess, ALauncherWithThreadsWorks) {
    // Threads that allocate all the time hold malloc's locks at the moment of the clone, sooner or later.
    std::atomic<bool> stop = false;
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
        threads.emplace_back([&] {
            while (!stop) delete[] new char[1 + static_cast<std::size_t>(std::rand()) % 100000];
        });
    }
    for (int i = 0; i < 50; ++i) {
        auto client = start_sandbox(shell("exit 3"));
        ASSERT_TRUE(client);
        EXPECT_EQ(client->wait().status(), 3);
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
}

TEST_F(SandboxProcess, ManyInARowLeaveNothing) {
    const auto count = [](const char* path) {
        const auto range = std::filesystem::directory_iterator(path);
        return std::distance(begin(range), end(range));
    };
    const auto fds = count("/proc/self/fd");
    const std::string mounts = read_text("/proc/self/mountinfo");
    for (int i = 0; i < 200; ++i) {
        auto client = start_sandbox(shell("exit 0"));
        ASSERT_TRUE(client) << client.error().error.message;
        EXPECT_EQ(client->wait().status(), 0);
    }
    EXPECT_EQ(count("/proc/self/fd"), fds);
    EXPECT_EQ(read_text("/proc/self/mountinfo"), mounts);
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
}

class SandboxCgroup : public SandboxTest {
  protected:
    void SetUp() override {
        SandboxTest::SetUp();
        if (HasFatalFailure()) return;
        const auto probe = Cgroup::create("probe", {});
        ASSERT_TRUE(probe)
            << probe.error().message
            << "; these tests need a cgroup v2 hierarchy that root may write to: mount -t cgroup2 "
               "none /sys/fs/cgroup/unified (in a container: start it with a writable /sys/fs/cgroup)";
    }
};

TEST_F(SandboxCgroup, IsBornInIt) {
    std::string path;
    {
        auto cgroup = Cgroup::create("born", {});
        ASSERT_TRUE(cgroup) << cgroup.error().message;
        path = cgroup->path();
        EXPECT_EQ(std::filesystem::path(path).filename(), "postern-born");
        struct stat status = {};
        ASSERT_EQ(::stat(path.c_str(), &status), 0);
        EXPECT_EQ(cgroup->id(), status.st_ino) << "the id is the inode number";
        SandboxSpec spec = shell("cat /proc/self/cgroup; sleep 1000");
        spec.cgroup_fd = cgroup->fd();
        Captured captured;
        auto client = start_sandbox(spec);
        ASSERT_TRUE(client) << client.error().error.message;
        EXPECT_TRUE(eventually([&] { return captured.text().find("0::") != std::string::npos; }));
        captured.restore();
        EXPECT_THAT(captured.text(), HasSubstr("0::/\n")) << "its cgroup namespace is rooted in it";
        EXPECT_THAT(read_text(path + "/cgroup.procs"), HasSubstr(std::to_string(client->init_pid())));
        EXPECT_EQ(read_text("/proc/" + std::to_string(client->init_pid()) + "/cgroup").find("postern-born") ==
                      std::string::npos,
                  false);
        // Destroyed in the wrong order on purpose: the cgroup kills what is in it.
        { const Cgroup gone = std::move(*cgroup); }
        EXPECT_FALSE(std::filesystem::exists(path));
        EXPECT_EQ(client->wait().status(), 137);
    }
    EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(SandboxCgroup, KnowsItsDepth) {
    auto cgroup = Cgroup::create("deep", {});
    ASSERT_TRUE(cgroup);
    const auto level = cgroup->level();
    struct stat own = {};
    ASSERT_EQ(::stat("/proc/self/ns/cgroup", &own), 0);
    if (own.st_ino != 0xEFFFFFFB) {
        EXPECT_THAT(level.error().message, HasSubstr("cgroup namespace"));
        return;
    }
    const std::string membership = read_text("/proc/self/cgroup");
    const std::string mine = membership.substr(membership.find("0::/") + 3);
    const std::string path = mine.substr(0, mine.find('\n'));
    ASSERT_TRUE(level);
    EXPECT_EQ(*level, (path == "/" ? 0 : std::count(path.begin(), path.end(), '/')) + 1);
}

TEST_F(SandboxCgroup, LimitsHoldOrAreRefused) {
    auto cgroup = Cgroup::create("limits", {{"pids.max", "5"}});
    if (!cgroup) {
        // A hybrid hierarchy has no controllers: said, with nothing left behind.
        EXPECT_THAT(cgroup.error().message, HasSubstr("pids"));
        EXPECT_FALSE(std::filesystem::exists("/sys/fs/cgroup/unified/postern-limits"));
        EXPECT_FALSE(std::filesystem::exists("/sys/fs/cgroup/postern-limits"));
        return;
    }
    SandboxSpec spec = shell("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; true");
    spec.cgroup_fd = cgroup->fd();
    EXPECT_THAT(run(spec).out, HasSubstr("fork"));
}

TEST_F(SandboxCgroup, NonsenseIsRefused) {
    EXPECT_THAT(Cgroup::create("a/b", {}).error().message, HasSubstr("a/b"));
    EXPECT_THAT(Cgroup::create("x", {{"cgroup.freeze", "1"}}).error().message, HasSubstr("cgroup.freeze"));
    EXPECT_THAT(Cgroup::create("x", {{"../memory.max", "1"}}).error().message, HasSubstr("memory.max"));
    EXPECT_THAT(Cgroup::create("x", {{"nothing.max", "1"}}).error().message, HasSubstr("nothing"));
    const auto first = Cgroup::create("twice", {});
    ASSERT_TRUE(first);
    const auto second = Cgroup::create("twice", {});
    ASSERT_TRUE(second) << "a launcher in another pid namespace may have the same pid";
    EXPECT_NE(first->path(), second->path());
    EXPECT_NE(first->id(), second->id());
    EXPECT_TRUE(std::filesystem::exists(first->path())) << "and the first is still there";
}

TEST_F(SandboxCgroup, OneThatADeadLauncherLeftIsReplaced) {
    const std::string folder = std::filesystem::path(Cgroup::create("probe", {})->path()).parent_path();
    ASSERT_EQ(::mkdir((folder + "/postern-left").c_str(), 0755), 0);
    const auto cgroup = Cgroup::create("left", {});
    ASSERT_TRUE(cgroup) << cgroup.error().message;
    EXPECT_EQ(cgroup->path(), folder + "/postern-left");
}

TEST_F(SandboxCgroup, AThreadedOneIsNamedAsTheReason) {
    // What a launcher in a threaded cgroup would make: a cgroup below one, no domain of its own.
    const auto parent = Cgroup::create("threaded", {});
    ASSERT_TRUE(parent) << parent.error().message;
    const std::string below = parent->path() + "/below";
    ASSERT_EQ(::mkdir(below.c_str(), 0755), 0);
    const ScopeGuard removed([&] { ::rmdir(below.c_str()); });
    SandboxSpec spec = shell("exit 7");
    const UniqueFd folder(::open(below.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    spec.cgroup_fd = folder.get();
    EXPECT_EQ(run(spec).status, 7) << "the control: an ordinary one";
    std::ofstream(parent->path() + "/cgroup.type") << "threaded" << std::flush;
    ASSERT_EQ(read_text(parent->path() + "/cgroup.type"), "threaded\n");
    ASSERT_EQ(read_text(below + "/cgroup.type"), "domain invalid\n");
    const Outcome refused = run(spec);
    EXPECT_EQ(refused.status, 125);
    EXPECT_THAT(refused.error, HasSubstr("cgroup is \"domain invalid\""));
    EXPECT_THAT(refused.error, HasSubstr("threaded part of the hierarchy"));
}

TEST_F(SandboxCgroup, WithoutAPidNamespaceItIsWhatIsKilled) {
    auto cgroup = Cgroup::create("nopid", {});
    ASSERT_TRUE(cgroup);
    SandboxSpec spec = shell("setsid sleep 1000 & sleep 0.1; exit 2");
    spec.namespaces.pid = false;
    spec.cgroup_fd = cgroup->fd();
    auto client = start_sandbox(spec);
    ASSERT_TRUE(client) << client.error().error.message;
    EXPECT_EQ(client->wait().status(), 2);
    EXPECT_EQ(read_text(cgroup->path() + "/cgroup.procs"), "") << "the daemon is gone";
}

/// The whole as an ordinary user: a launcher that gave its ids up.
class SandboxUnprivileged : public SandboxTest {
  protected:
    static Outcome run_as_user(const SandboxSpec& spec) {
        Captured captured;
        const UniqueFd error(::memfd_create("error", MFD_CLOEXEC));
        const pid_t launcher = ::fork();
        if (launcher == 0) {
            if (::setgroups(0, nullptr) != 0 || ::setgid(1234) != 0 || ::setuid(1234) != 0) ::_exit(98);
            // A change of ids leaves /proc/self root's; exec would restore that, as in a launcher that a user
            // starts.
            ::prctl(PR_SET_DUMPABLE, 1);
            auto client = start_sandbox(spec);
            if (client) ::_exit(client->wait().status());
            const std::string& message = client.error().error.message;
            if (::write(error.get(), message.data(), message.size()) < 0) ::_exit(97);
            ::_exit(client.error().exit_status);
        }
        int status = 0;
        ::waitpid(launcher, &status, 0);
        captured.restore();
        Outcome outcome;
        outcome.status = WEXITSTATUS(status);
        outcome.out = captured.text();
        char text[1024] = {};
        if (::pread(error.get(), text, sizeof text - 1, 0) > 0) outcome.error = text;
        return outcome;
    }
    void SetUp() override {
        SandboxTest::SetUp();
        if (HasFatalFailure()) return;
        // The second is Debian's own; kernels without it allow all users what it would allow.
        ASSERT_NE("0\n", read_text("/proc/sys/user/max_user_namespaces"))
            << "user namespaces are off here: sysctl user.max_user_namespaces=10000";
        ASSERT_NE("0\n", read_text("/proc/sys/kernel/unprivileged_userns_clone"))
            << "user namespaces are for root only here: sysctl kernel.unprivileged_userns_clone=1";
    }
};

TEST_F(SandboxUnprivileged, HasTheFullSandboxToo) {
    const Outcome outcome = run_as_user(
        shell("id -u; cat /proc/self/status; touch /x; echo fine > /tmp/x && cat /tmp/x; ls /sys"));
    EXPECT_EQ(outcome.status, 0) << outcome.error;
    EXPECT_THAT(outcome.out, HasSubstr("65534\n"));
    EXPECT_THAT(outcome.out, HasSubstr("CapBnd:\t0000000000000000"));
    EXPECT_THAT(outcome.out, HasSubstr("NoNewPrivs:\t1"));
    EXPECT_THAT(outcome.out, HasSubstr("Read-only file system"));
    EXPECT_THAT(outcome.out, HasSubstr("fine\ndevices\n"));
}

TEST_F(SandboxUnprivileged, BindsWhatItMayEnter) {
    SandboxSpec spec = shell("ls /tmp/u >/dev/null && echo there");
    spec.mounts = {{Mount::Type::Bind, "/usr", "/tmp/u", {"ro"}}};
    EXPECT_EQ(run_as_user(spec).out, "there\n");
    std::filesystem::create_directories(folder() / "closed/inner");
    ASSERT_EQ(::chmod((folder() / "closed").c_str(), 0700), 0);
    spec.mounts = {{Mount::Type::Bind, folder() / "closed/inner", "/tmp/u", {}}};
    const Outcome refused = run_as_user(spec);
    EXPECT_EQ(refused.status, 125);
    EXPECT_THAT(refused.error, HasSubstr("may not enter"));
}

TEST_F(SandboxUnprivileged, RunsACommandThatTheSandboxHides) {
    const std::filesystem::path place = "/tmp/postern-user-hidden";
    std::filesystem::create_directory(place);
    std::filesystem::copy_file("/bin/sh", place / "tool");
    ASSERT_EQ(::chown((place / "tool").c_str(), 1234, 1234), 0);
    SandboxSpec spec = shell("exit 8");
    spec.argv[0] = place / "tool";
    const Outcome outcome = run_as_user(spec);
    EXPECT_EQ(outcome.status, 8) << outcome.error;
    // The client's uid outside owns the file; the sandbox still does not let it write there.
    spec.argv[2] = "exec 9>>/proc/$$/exe";
    EXPECT_NE(run_as_user(spec).status, 0);
    std::filesystem::remove_all(place);
}

TEST_F(SandboxUnprivileged, WithoutAUserNamespaceIsRefusedWithTheReason) {
    SandboxSpec spec = shell("true");
    spec.namespaces.user = false;
    const Outcome outcome = run_as_user(spec);
    EXPECT_EQ(outcome.status, 125);
    EXPECT_THAT(outcome.error, HasSubstr("CAP_SYS_ADMIN"));
}

}  // namespace
}  // namespace postern
