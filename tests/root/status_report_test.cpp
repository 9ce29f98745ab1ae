// SPDX-License-Identifier: Apache-2.0
//
// What `postern run` tells of its client: by --info-fd, --json-status-fd and on stderr.
#include "launcher/status_report.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <fstream>
#include <functional>
#include <iterator>

#include "broker-core/json_reader.h"
#include "launcher/commands.h"
#include "launcher/forbidden_call.h"
#include "launcher/syscalls.h"
#include "tests/root/sandbox_fixture.h"

namespace postern {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kInfo = 100;
constexpr int kStatus = 1101;  // beyond what select(2) knows

struct Told {
    int status = -1;
    std::string out;  ///< stdout and stderr, of postern and of the client
    std::string info;
    std::string lines;
    bool has_record = false;  ///< see with_a_record()

    [[nodiscard]] Json line(std::size_t number) const {
        std::istringstream stream(lines);
        std::string text;
        for (std::size_t i = 0; i <= number; ++i) std::getline(stream, text);
        return Json::parse(text, nullptr, false);
    }
};

std::string text_of(int fd) {
    std::string text(1 << 16, '\0');
    const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
}

std::string link_of(const std::string& path) {
    char text[256] = {};
    return ::readlink(path.c_str(), text, sizeof text - 1) > 0 ? text : "";
}

class StatusReportTest : public SandboxTest {
  protected:
    /// `postern run WORDS -- /bin/sh -c SCRIPT` in a process of its own, with files at the two numbers.
    static Told postern(std::vector<std::string> words, const std::string& script, bool as_user = false) {
        Captured captured;
        const UniqueFd info(::memfd_create("info", MFD_CLOEXEC));
        const UniqueFd lines(::memfd_create("lines", MFD_CLOEXEC));
        const pid_t launcher = ::fork();
        if (launcher == 0) {
            if (::dup2(info.get(), kInfo) < 0 || ::dup2(lines.get(), kStatus) < 0) ::_exit(98);
            if (as_user && (::setgid(1234) != 0 || ::setuid(1234) != 0)) ::_exit(97);
            // As exec would have it again after a change of ids.
            ::prctl(PR_SET_DUMPABLE, 1);
            CLI::App app("", "postern");
            const Command run = add_run_command(app);
            words.insert(words.begin(), "run");
            std::reverse(words.begin(), words.end());
            app.parse(words);
            const int status = run({"/bin/sh", "-c", script});
            std::fflush(stderr);
            ::_exit(status);
        }
        Told told;
        int status = 0;
        ::waitpid(launcher, &status, 0);
        captured.restore();
        told.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        told.out = captured.text();
        told.info = text_of(info.get());
        told.lines = text_of(lines.get());
        return told;
    }
    static Told told(const std::string& script, std::vector<std::string> words = {}) {
        words.insert(words.end(), {"--json-status-fd", std::to_string(kStatus)});
        return postern(words, script);
    }

    /// A profile whose filter kills for mkdir and allows everything else.
    [[nodiscard]] std::string no_mkdir() const {
        const std::string path = folder() / "no-mkdir.json";
        std::ofstream(path) << R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS"}]})";
        return path;
    }
};

TEST_F(StatusReportTest, TellsBubblewrapsMembersAndOurs) {
    const std::string script =
        "for each in cgroup ipc mnt net pid uts user; do readlink /proc/self/ns/$each; done; exit 7";
    const Told all =
        postern({"--info-fd", std::to_string(kInfo), "--json-status-fd", std::to_string(kStatus)}, script);
    EXPECT_EQ(all.status, 7) << all.out;
    const Json info = Json::parse(all.info, nullptr, false);
    const Json begin = all.line(0);
    const Json end = all.line(1);
    ASSERT_TRUE(info.is_object()) << all.info;
    ASSERT_TRUE(begin.is_object()) << all.lines;
    ASSERT_TRUE(end.is_object()) << all.lines;
    EXPECT_THAT(all.info, HasSubstr("    \"child-pid\": ")) << "as scripts look for it";
    EXPECT_THAT(all.lines, HasSubstr("{ \"exit-code\": 7, \"exit-reason\": \"status\" }\n"));
    EXPECT_GT(info["child-pid"], 1);
    EXPECT_EQ(info["child-pid"], begin["child-pid"]);
    EXPECT_GT(begin["pid"], 1);
    EXPECT_NE(begin["pid"], begin["child-pid"]);
    std::istringstream links(all.out);
    for (const char* each : {"cgroup", "ipc", "mnt", "net", "pid", "uts", "user"}) {
        const std::string member = std::string(each) + "-namespace";
        std::string link;
        std::getline(links, link);
        ASSERT_TRUE(begin.contains(member)) << all.lines;
        EXPECT_EQ(link, fmt::format("{}:[{}]", each, begin[member].get<std::uint64_t>()));
        EXPECT_EQ(info[member], begin[member]);
        EXPECT_NE(link, link_of(fmt::format("/proc/self/ns/{}", each)));
    }
}

TEST_F(StatusReportTest, LeavesSharedNamespacesOut) {
    const Told shared = told("true", {"--share-net", "--share-pid"});
    ASSERT_TRUE(shared.line(0).is_object()) << shared.lines << shared.out;
    EXPECT_FALSE(shared.line(0).contains("net-namespace"));
    EXPECT_FALSE(shared.line(0).contains("pid-namespace"));
    EXPECT_TRUE(shared.line(0).contains("ipc-namespace"));
}

TEST_F(StatusReportTest, TheFdsStayOutside) {
    const std::string list = "ls /proc/$$/fd";
    const Told told =
        postern({"--info-fd", std::to_string(kInfo), "--json-status-fd", std::to_string(kStatus)}, list);
    EXPECT_EQ(told.status, 0);
    EXPECT_EQ(told.out, "0\n1\n2\n");
    // The control: an ordinary child has them.
    Captured captured;
    const pid_t child = ::fork();
    if (child == 0) {
        ::dup2(1, kInfo);
        ::execl("/bin/sh", "sh", "-c", list.c_str(), nullptr);
        ::_exit(99);
    }
    ::waitpid(child, nullptr, 0);
    captured.restore();
    EXPECT_THAT(captured.text(), HasSubstr(std::to_string(kInfo)));
}

TEST_F(StatusReportTest, ABadFdIsRefusedBeforeAnythingStarts) {
    const auto refused = [](const std::vector<std::string>& words, const char* why) {
        const Told told = postern(words, "echo started");
        EXPECT_EQ(told.status, 125) << told.out;
        EXPECT_THAT(told.out, HasSubstr(why));
        EXPECT_THAT(told.out, Not(HasSubstr("started")));
        EXPECT_EQ(told.lines + told.info, "");
    };
    refused({"--json-status-fd", "77"}, "--json-status-fd 77: is not open");
    refused({"--info-fd", "-3"}, "--info-fd -3: is not open");
    refused({"--info-fd", "100", "--json-status-fd", "100"}, "give each a file of its own");
    const UniqueFd read_only(::open("/dev/null", O_RDONLY));
    refused({"--info-fd", std::to_string(read_only.get())}, "is not open for writing");
    const UniqueFd path_only(::open("/dev/null", O_PATH));
    refused({"--info-fd", std::to_string(path_only.get())}, "is not open for writing");
    EXPECT_EQ(postern({"--info-fd", "100"}, "echo started").out, "started\n");
}

TEST_F(StatusReportTest, AReaderThatIsGoneDoesNotEndTheClient) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    ::close(ends[0]);
    const UniqueFd broken(ends[1]);
    const Told told = postern({"--json-status-fd", std::to_string(broken.get())}, "echo fine; exit 5");
    EXPECT_EQ(told.status, 5);
    EXPECT_THAT(told.out, HasSubstr("fine\n"));
    EXPECT_THAT(told.out, HasSubstr("Broken pipe"));
}

TEST_F(StatusReportTest, AFailedLaunchTellsNothing) {
    const Told told = StatusReportTest::told("true", {"--ro-bind", "/no/such/source", "/tmp/x"});
    EXPECT_EQ(told.status, 125);
    EXPECT_EQ(told.lines, "");
    EXPECT_THAT(told.out, HasSubstr("create the source"));
}

TEST_F(StatusReportTest, TellsSignalsAndLimits) {
    Told told = StatusReportTest::told("kill -TERM $$");
    EXPECT_EQ(told.status, 143);
    EXPECT_THAT(told.lines, HasSubstr("{ \"exit-code\": 143, \"exit-reason\": \"signal\", \"signal\": 15, "
                                      "\"signal-name\": \"SIGTERM\" }\n"));
    told = StatusReportTest::told("sleep 60", {"--time-limit", "200ms"});
    EXPECT_EQ(told.status, 124);
    EXPECT_THAT(told.lines,
                HasSubstr("{ \"exit-code\": 124, \"exit-reason\": \"time\", \"limit\": \"time_limit\" }\n"));
    EXPECT_THAT(told.out, HasSubstr("the time limit was hit"));
    told = StatusReportTest::told("while :; do :; done", {"--rlimit", "cpu=1:60"});
    EXPECT_EQ(told.status, 128 + SIGXCPU);
    EXPECT_THAT(told.lines, HasSubstr("\"exit-reason\": \"time\", \"signal\": 24"));
    EXPECT_THAT(told.lines, HasSubstr("\"limit\": \"rlimits.cpu\""));
    EXPECT_THAT(told.out, HasSubstr("the limit of CPU time was hit"));
    told = StatusReportTest::told("while :; do :; done", {"--cpu-limit", "1s"});
    EXPECT_EQ(told.status, 124);
    EXPECT_THAT(told.lines, HasSubstr("\"exit-code\": 124, \"exit-reason\": \"time\", \"signal\": 24"));
    EXPECT_THAT(told.lines, HasSubstr("\"limit\": \"cpu_limit\""));
    EXPECT_THAT(told.out, HasSubstr("(cpu_limit) was hit"));
}

/// Whether this machine's log tells what a filter kills for: not where auditd takes it.
bool log_tells() {
    const auto since = std::chrono::system_clock::now();
    const pid_t child = ::fork();
    if (child == 0) {
        sock_filter program[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        const sock_fprog filter = {static_cast<unsigned short>(std::size(program)), program};
        if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            sys::seccomp(SECCOMP_SET_MODE_FILTER, 0, &filter) != 0) {
            ::_exit(1);
        }
        ::syscall(SYS_getppid);
        ::_exit(2);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << status;
    const auto call = find_forbidden_call(child, since, std::chrono::seconds(1));
    EXPECT_TRUE(!call || call->name == "getppid");
    return call.has_value();
}

/// What `launch` told when the kernel had recorded why its client was killed. The kernel drops records where
/// there are many, so not every launch has one; `has_record` is false if this machine's log has none at all.
Told with_a_record(const std::function<Told()>& launch) {
    Told told;
    bool log_has_some = true;
    for (int attempt = 0; attempt < 10 && log_has_some; ++attempt) {
        told = launch();
        told.has_record = told.out.find("Which one") == std::string::npos;
        if (told.has_record) return told;
        log_has_some = log_tells();
    }
    // Then it was there to be found.
    told.has_record = log_has_some;
    return told;
}

TEST_F(StatusReportTest, TellsASeccompViolation) {
    // exec: what a shell's child is killed for, the shell tells as status 159.
    const std::vector<std::string> words = {"--seccomp-profile", no_mkdir()};
    const Told told = with_a_record([&] { return StatusReportTest::told("exec mkdir /tmp/x", words); });
    EXPECT_EQ(told.status, 128 + SIGSYS) << told.out;
    EXPECT_THAT(told.lines,
                HasSubstr("\"exit-reason\": \"seccomp\", \"signal\": 31, \"signal-name\": \"SIGSYS\""));
    if (told.has_record) {
        EXPECT_THAT(told.lines,
                    HasSubstr("\"syscall\": 83, \"syscall-name\": \"mkdir\", \"syscall-abi\": \"x86_64\""));
        EXPECT_THAT(told.out, HasSubstr("for system call mkdir (83);"));
    } else {
        EXPECT_THAT(told.lines, Not(HasSubstr("\"syscall\"")));
        EXPECT_THAT(told.out,
                    HasSubstr("for a system call that it forbids. Which one is in the kernel's log"));
    }
    const Told fine = StatusReportTest::told("exec touch /tmp/x", words);
    EXPECT_EQ(fine.status, 0) << fine.out;
    EXPECT_THAT(fine.lines, HasSubstr("\"exit-reason\": \"status\""));
    EXPECT_EQ(fine.out, "");
}

TEST_F(StatusReportTest, AnOrdinaryUserIsToldAsMuchAsTheLogGives) {
    const auto launch = [&] {
        return postern({"--seccomp-profile", no_mkdir(), "--json-status-fd", std::to_string(kStatus)},
                       "exec mkdir /tmp/x", true);
    };
    const bool may_read = read_text("/proc/sys/kernel/dmesg_restrict") == "0\n";
    const Told told = may_read ? with_a_record(launch) : launch();
    EXPECT_EQ(told.status, 128 + SIGSYS) << told.out;
    EXPECT_THAT(told.lines, HasSubstr("\"exit-reason\": \"seccomp\""));
    EXPECT_THAT(told.out, HasSubstr(told.has_record ? "mkdir (83)" : "Which one is in the kernel's log"));
}

TEST_F(StatusReportTest, ASignalThatSomebodySendsIsNoViolation) {
    const Told told = StatusReportTest::told("kill -SYS $$", {"--seccomp-profile", "none"});
    EXPECT_EQ(told.status, 128 + SIGSYS);
    EXPECT_THAT(told.lines, HasSubstr("\"exit-reason\": \"signal\", \"signal\": 31"));
}

TEST_F(StatusReportTest, TheClientSaysWhoItIs) {
    Captured captured;
    auto client = start_sandbox(shell("echo up; sleep 60"));
    ASSERT_TRUE(client);
    EXPECT_TRUE(eventually([&] { return captured.text() == "up\n"; }));
    const auto seen = client->client_pid();
    ASSERT_TRUE(seen);
    EXPECT_EQ(client->identity().pid, *seen);
    EXPECT_EQ(client->identity().namespaces[0], 0U) << "only when asked";
}

TEST_F(StatusReportTest, AlsoOneThatIsGoneAtOnce) {
    for (int i = 0; i < 50; ++i) {
        auto client = start_sandbox(shell("exit 3"));
        ASSERT_TRUE(client);
        EXPECT_GT(client->identity().pid, 1);
        EXPECT_NE(client->identity().pid, client->init_pid());
        EXPECT_EQ(client->wait().status(), 3);
    }
}

}  // namespace
}  // namespace postern
