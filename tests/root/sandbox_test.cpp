// SPDX-License-Identifier: Apache-2.0
//
// What a client is inside: its status, ids, rights, namespaces, fds, environment. Each refusal has a positive
// control beside it.
#include "launcher/sandbox.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/capability.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <sstream>

#include "tests/root/sandbox_fixture.h"

namespace postern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using ::testing::Not;

std::string link_of(const std::string& path) {
    char text[256] = {};
    return ::readlink(path.c_str(), text, sizeof text - 1) > 0 ? text : "";
}

class SandboxStatus : public SandboxTest {};

TEST_F(SandboxStatus, IsTheClients) {
    EXPECT_EQ(run_shell("exit 0").status, 0);
    EXPECT_EQ(run_shell("exit 7").status, 7);
    EXPECT_EQ(run_shell("exit 255").status, 255);
    EXPECT_EQ(run_shell("echo hello").out, "hello\n");
}

TEST_F(SandboxStatus, IsTheSignalsNumber) {
    for (const int signal : {SIGTERM, SIGKILL, SIGSEGV, SIGABRT, SIGUSR1}) {
        const Outcome outcome = run_shell("kill -" + std::to_string(signal) + " $$");
        EXPECT_EQ(outcome.status, 128 + signal);
        EXPECT_EQ(outcome.kind, ClientExit::Kind::Signaled);
    }
    const Outcome exited = run_shell("exit 137");
    EXPECT_EQ(exited.status, 137);
    EXPECT_EQ(exited.kind, ClientExit::Kind::Exited) << "told apart from SIGKILL";
}

TEST_F(SandboxStatus, TellsATimeLimit) {
    SandboxSpec spec = shell("sleep 60 & sleep 60");
    spec.time_limit = std::chrono::milliseconds(200);
    const auto begin = std::chrono::steady_clock::now();
    const Outcome outcome = run(spec);
    EXPECT_EQ(outcome.status, 124);
    EXPECT_EQ(outcome.kind, ClientExit::Kind::TimeLimit);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
    spec = shell("exit 3");
    spec.time_limit = std::chrono::minutes(1);
    EXPECT_EQ(run(spec).status, 3);
}

TEST_F(SandboxStatus, TellsMissingFromUnfitCommands) {
    SandboxSpec spec = full();
    spec.argv = {"no-such-command"};
    EXPECT_EQ(run(spec).status, 127);
    spec.argv = {"/no/such/command"};
    EXPECT_EQ(run(spec).status, 127);
    spec.argv = {"/etc/passwd"};
    EXPECT_EQ(run(spec).status, 126);
    spec.argv = {"/etc"};
    EXPECT_EQ(run(spec).status, 126);
    spec.argv = {"true"};
    EXPECT_EQ(run(spec).status, 0);
    {
        SandboxSpec empty = full();
        empty.root.kind = Root::Kind::Empty;
        empty.argv = {"/bin/true"};
        EXPECT_EQ(run(empty).status, 127);
        for (const char* part : {"/usr", "/lib", "/lib64", "/bin"}) {
            empty.mounts.push_back({Mount::Type::Bind, part, part, {"ro", "optional"}});
        }
        EXPECT_EQ(run(empty).status, 0);
        empty.argv = {"true"};
        EXPECT_EQ(run(empty).status, 0) << "by PATH of its environment";
        empty.argv = {"no-such-command"};
        EXPECT_EQ(run(empty).status, 127);
        empty.argv = {"/usr"};
        EXPECT_EQ(run(empty).status, 126);
    }
}

TEST_F(SandboxStatus, OfAFailedLaunchIs125AndNamesTheStep) {
    SandboxSpec spec = shell("true");
    spec.mounts = {{Mount::Type::Bind, "/no/such/source", "/tmp/x", {}}};
    Outcome outcome = run(spec);
    EXPECT_EQ(outcome.status, 125);
    EXPECT_THAT(outcome.error, HasSubstr("mounts[0]: bind /no/such/source on /tmp/x"));
    EXPECT_THAT(outcome.error, HasSubstr("No such file"));
    spec.mounts = {{Mount::Type::Bind, "/usr", "/no/such/target", {}}};
    outcome = run(spec);
    EXPECT_EQ(outcome.status, 125);
    EXPECT_THAT(outcome.error, HasSubstr("the target is not there"));
    EXPECT_FALSE(std::filesystem::exists("/no"));
    spec.mounts = {{Mount::Type::Bind, "/no/such/source", "/tmp/x", {"optional"}}};
    EXPECT_EQ(run(spec).status, 0);
    spec = shell("true");
    spec.cwd = "/no/such/folder";
    EXPECT_THAT(run(spec).error, HasSubstr("entering the working folder /no/such/folder"));
    spec = shell("true");
    spec.capabilities = {40, 63};
    EXPECT_THAT(run(spec).error, HasSubstr("dropping capabilities"));
    spec.capabilities = {CAP_NET_ADMIN};
    EXPECT_EQ(run(spec).status, 0);
}

class SandboxIdentity : public SandboxTest {};

TEST_F(SandboxIdentity, HasNoRights) {
    const auto status = fields(run_shell("cat /proc/self/status").out);
    EXPECT_EQ(status.at("Uid"), "65534\t65534\t65534\t65534");
    EXPECT_EQ(status.at("Gid"), "65534\t65534\t65534\t65534");
    EXPECT_EQ(status.at("Groups"), "");
    for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
        EXPECT_EQ(status.at(set), "0000000000000000") << set;
    }
    EXPECT_EQ(status.at("NoNewPrivs"), "1");
    EXPECT_EQ(status.at("Seccomp"), "2");
    EXPECT_EQ(status.at("Seccomp_filters"), "1");
    EXPECT_EQ(status.at("SigBlk"), "0000000000000000");
    EXPECT_EQ(status.at("SigIgn"), "0000000000000000");
}

TEST_F(SandboxIdentity, SupplementaryGroupsOfTheLauncherAreGone) {
    const gid_t groups[] = {4, 24};
    ASSERT_EQ(::setgroups(2, groups), 0);
    const auto status = fields(run_shell("cat /proc/self/status").out);
    ASSERT_EQ(::setgroups(0, nullptr), 0);
    EXPECT_EQ(status.at("Groups"), "");
}

TEST_F(SandboxIdentity, CannotReadRootsFiles) {
    std::filesystem::path secret = folder() / "secret";
    ASSERT_EQ(::close(::open(secret.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
    EXPECT_NE(run_shell("cat " + secret.string()).status, 0);
    ASSERT_EQ(::chmod(secret.c_str(), 0644), 0);
    EXPECT_EQ(run_shell("cat " + secret.string()).status, 0);
}

TEST_F(SandboxIdentity, IdsAreAsAsked) {
    SandboxSpec spec = shell("id -u; id -g; id -G");
    spec.uid = 1234;
    spec.gid = 4321;
    EXPECT_EQ(run(spec).out, "1234\n4321\n4321\n");
    spec.uid = 0;
    spec.gid = 0;
    EXPECT_EQ(run(spec).out, "0\n0\n0\n");
}

TEST_F(SandboxIdentity, RootInsideHasNoCapabilitiesEither) {
    SandboxSpec spec = shell("cat /proc/self/status");
    spec.uid = 0;
    spec.gid = 0;
    const auto status = fields(run(spec).out);
    EXPECT_EQ(status.at("CapEff"), "0000000000000000");
    EXPECT_EQ(status.at("CapBnd"), "0000000000000000");
}

TEST_F(SandboxIdentity, KeepsTheCapabilitiesAskedFor) {
    SandboxSpec spec = shell("cat /proc/self/status");
    spec.capabilities = {CAP_NET_ADMIN, CAP_NET_RAW};
    const auto status = fields(run(spec).out);
    for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
        EXPECT_EQ(status.at(set), "0000000000003000") << set;
    }
}

TEST_F(SandboxIdentity, WithoutAUserNamespaceTheRestHolds) {
    SandboxSpec spec = shell("cat /proc/self/status; touch /tmp/x");
    spec.namespaces.user = false;
    const Outcome outcome = run(spec);
    EXPECT_EQ(outcome.status, 0) << outcome.error << outcome.out;
    const auto status = fields(outcome.out);
    EXPECT_EQ(status.at("Uid"), "65534\t65534\t65534\t65534");
    EXPECT_EQ(status.at("CapEff"), "0000000000000000");
    EXPECT_EQ(status.at("CapBnd"), "0000000000000000");
}

TEST_F(SandboxIdentity, NoNewPrivsCanBeLeftOut) {
    SandboxSpec spec = shell("cat /proc/self/status");
    spec.no_new_privs = false;
    const auto status = fields(run(spec).out);
    EXPECT_EQ(status.at("NoNewPrivs"), "0");
    EXPECT_EQ(status.at("Seccomp"), "2");
    EXPECT_EQ(status.at("CapEff"), "0000000000000000");
}

TEST_F(SandboxIdentity, SeccompRefusesForReal) {
    // unshare(1) reports EPERM, and works where there is no filter.
    EXPECT_THAT(run_shell("unshare --user true").out, HasSubstr("Operation not permitted"));
    SandboxSpec spec = shell("unshare --user true");
    spec.seccomp.clear();
    EXPECT_EQ(run(spec).status, 0);
    EXPECT_THAT(run_shell("python3 -c 'import ctypes; l=ctypes.CDLL(None,use_errno=True); "
                          "print(l.syscall(471), ctypes.get_errno())'")
                    .out,
                HasSubstr("-1 38"));
}

TEST_F(SandboxIdentity, ThirtyTwoBitCallsKill) {
    // int 0x80 with eax = getpid of i386, as machine code.
    const std::string call =
        "import ctypes,mmap\n"
        "m=mmap.mmap(-1,4096,prot=7)\n"
        "m.write(bytes.fromhex('b814000000cd80c3'))\n"
        "f=ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
        "print(f() is not None)\n";
    SandboxSpec spec = full();
    spec.argv = {"/usr/bin/python3", "-c", call};
    EXPECT_EQ(run(spec).status, 128 + SIGSYS);
    spec.seccomp.clear();
    const int without = run(spec).status;
    EXPECT_TRUE(without == 0 || without == 128 + SIGSEGV) << without << ": a kernel without IA32 faults";
}

class SandboxNamespaces : public SandboxTest {};

TEST_F(SandboxNamespaces, AreAllItsOwn) {
    const std::string names =
        run_shell("for n in user pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done").out;
    std::istringstream lines(names);
    for (const char* name : {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"}) {
        std::string line;
        ASSERT_TRUE(std::getline(lines, line));
        EXPECT_THAT(line, HasSubstr(std::string(name) + ":["));
        EXPECT_NE(line, link_of(std::string("/proc/self/ns/") + name));
    }
}

TEST_F(SandboxNamespaces, AreSharedWhenNotAskedFor) {
    for (const auto& [name, member] : {std::pair{"net", &Namespaces::net},
                                       {"ipc", &Namespaces::ipc},
                                       {"uts", &Namespaces::uts},
                                       {"cgroup", &Namespaces::cgroup},
                                       {"pid", &Namespaces::pid},
                                       {"mnt", &Namespaces::mount}}) {
        SandboxSpec spec = shell(std::string("readlink /proc/self/ns/") + name);
        spec.namespaces.*member = false;
        const Outcome outcome = run(spec);
        EXPECT_EQ(outcome.out, link_of(std::string("/proc/self/ns/") + name) + "\n") << outcome.error;
    }
}

TEST_F(SandboxNamespaces, SeesNoProcessOfTheHost) {
    EXPECT_EQ(run_shell("cd /proc; for p in [0-9]*; do cat $p/comm; done").out, "postern-init\nsh\n");
}

TEST_F(SandboxNamespaces, SeesOnlyLoopback) {
    EXPECT_EQ(run_shell("tail -n +3 /proc/net/dev | cut -d: -f1").out, "    lo\n");
    SandboxSpec spec = shell(
        "python3 -c 'import socket; s=socket.socket(); s.bind((\"127.0.0.1\",0)); s.listen(); "
        "c=socket.create_connection(s.getsockname(), 2); print(\"up\")'");
    EXPECT_THAT(run(spec).out, Not(HasSubstr("up")));
    spec.loopback_up = true;
    EXPECT_EQ(run(spec).out, "up\n");
}

TEST_F(SandboxNamespaces, HostNameIsItsOwn) {
    char before[65] = {};
    ASSERT_EQ(::gethostname(before, sizeof before - 1), 0);
    SandboxSpec spec = shell("uname -n");
    spec.hostname = "inside";
    EXPECT_EQ(run(spec).out, "inside\n");
    char after[65] = {};
    ASSERT_EQ(::gethostname(after, sizeof after - 1), 0);
    EXPECT_STREQ(before, after);
}

TEST_F(SandboxNamespaces, AbstractSocketsOfTheHostAreOutOfReach) {
    const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string name = "postern-test-" + std::to_string(::getpid());
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    ASSERT_EQ(::listen(listener.get(), 4), 0);
    SandboxSpec spec = full();
    spec.argv = {"/usr/bin/python3", "-c",
                 "import socket; socket.socket(socket.AF_UNIX).connect('\\0" + name + "')"};
    EXPECT_NE(run(spec).status, 0);
    spec.namespaces.net = false;
    spec.landlock = no_landlock();
    EXPECT_EQ(run(spec).status, 0);
}

class SandboxFds : public SandboxTest {};

TEST_F(SandboxFds, AreExactlyThoseGiven) {
    // Whatever else is open here, with and without O_CLOEXEC and high up, stays out.
    const UniqueFd leaked(::open("/dev/null", O_RDONLY));
    const UniqueFd high(::fcntl(leaked.get(), F_DUPFD, 900));
    const std::string list =
        "import os\nprint(sorted(int(f) for f in os.listdir('/proc/self/fd') if "
        "os.path.exists('/proc/self/fd/'+f)))";
    SandboxSpec spec = full();
    spec.argv = {"/usr/bin/python3", "-c", list};
    EXPECT_EQ(run(spec).out, "[0, 1, 2]\n");
    const UniqueFd first(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
    const UniqueFd second(::open("/etc/group", O_RDONLY | O_CLOEXEC));
    spec.fds = {{high.get(), "high"}, {second.get(), "second"}, {first.get(), "first"}};
    EXPECT_EQ(run(spec).out, "[0, 1, 2, 3, 4, 5]\n");
}

TEST_F(SandboxFds, ComeInTheOrderGiven) {
    // Low numbers on purpose: what one becomes is what another still is.
    std::vector<UniqueFd> files;
    for (int i = 0; i < 4; ++i) {
        const std::filesystem::path path = folder() / std::to_string(i);
        files.emplace_back(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
        const std::string text = "file " + std::to_string(i) + "\n";
        ASSERT_EQ(::pwrite(files.back().get(), text.data(), text.size(), 0),
                  static_cast<ssize_t>(text.size()));
    }
    SandboxSpec spec = shell("cat <&3; cat <&4; cat <&5; cat <&6");
    for (const int i : {3, 1, 0, 2})
        spec.fds.push_back({files[static_cast<std::size_t>(i)].get(), "f" + std::to_string(i)});
    EXPECT_EQ(run(spec).out, "file 3\nfile 1\nfile 0\nfile 2\n");
}

TEST_F(SandboxFds, AreToldBySdListenFds) {
    const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    SandboxSpec spec = shell("echo $LISTEN_FDS $LISTEN_FDNAMES $((LISTEN_PID == $$))");
    spec.fds = {{file.get(), "manifest"}, {file.get(), "window.doorbell"}};
    EXPECT_EQ(run(spec).out, "2 manifest:window.doorbell 1\n");
    spec.namespaces.pid = false;
    EXPECT_EQ(run(spec).out, "2 manifest:window.doorbell 1\n") << "without a pid namespace, too";
    spec = shell("env | grep -c LISTEN");
    EXPECT_EQ(run(spec).out, "0\n") << "and not when there is none";
}

TEST_F(SandboxFds, MayBeMany) {
    SandboxSpec spec = shell("ls /proc/self/fd | wc -l");
    const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    for (int i = 0; i < 200; ++i) spec.fds.push_back({file.get(), "f" + std::to_string(i)});
    spec.rlimits = {{RLIMIT_NOFILE, 300, 300}};
    const Outcome outcome = run(spec);
    EXPECT_EQ(outcome.out, "204\n") << outcome.error << "0, 1, 2, 200 of ours, and ls's own";
}

TEST_F(SandboxFds, InitKeepsNone) {
    const UniqueFd secret(::open("/etc/shadow", O_RDONLY | O_CLOEXEC));
    SandboxSpec spec = shell("sleep 60");
    spec.fds = {{secret.get(), "secret"}};
    auto client = start_sandbox(spec);
    ASSERT_TRUE(client) << client.error().error.message;
    const std::string fds = "/proc/" + std::to_string(client->init_pid()) + "/fd";
    const auto open_in_init = [&] {
        std::vector<std::string> links;
        for (const auto& entry : std::filesystem::directory_iterator(fds))
            links.push_back(link_of(entry.path()));
        return links;
    };
    const auto status_of_init = [&] {
        return fields(read_text("/proc/" + std::to_string(client->init_pid()) + "/status"));
    };
    // Init gives everything up while the client starts, and comes under its filter last.
    EXPECT_TRUE(eventually([&] { return status_of_init().at("Seccomp") == "2"; }));
    EXPECT_THAT(open_in_init(), ElementsAre(HasSubstr("pipe:"))) << "for the client's status";
    const auto status = status_of_init();
    EXPECT_EQ(status.at("CapPrm"), "0000000000000000");
    EXPECT_EQ(status.at("CapBnd"), "0000000000000000");
    EXPECT_EQ(status.at("NoNewPrivs"), "1");
    EXPECT_EQ(status.at("Seccomp"), "2");
    const auto pid = client->client_pid();
    ASSERT_TRUE(pid);
    EXPECT_THAT(link_of("/proc/" + std::to_string(*pid) + "/fd/3"), HasSubstr("shadow"))
        << "the client does have it";
}

TEST_F(SandboxFds, InitIsClosedToTheClient) {
    EXPECT_NE(run_shell("ls /proc/1/fd").status, 0);
    EXPECT_NE(run_shell("cat /proc/1/environ").status, 0);
    EXPECT_NE(run_shell("head -c 1 /proc/1/mem").status, 0);
    EXPECT_EQ(run_shell("ls /proc/self/fd").status, 0);
    EXPECT_EQ(run_shell("kill -9 1; sleep 0.1; exit 3").status, 3) << "and cannot be killed from inside";
}

class SandboxSurroundings : public SandboxTest {};

TEST_F(SandboxSurroundings, EnvironmentIsExactlyTheOneGiven) {
    SandboxSpec spec = full();
    spec.argv = {"/usr/bin/env"};
    spec.env = {"A=1", "B=two words", "EMPTY="};
    EXPECT_EQ(run(spec).out, "A=1\nB=two words\nEMPTY=\n");
    spec.env.clear();
    EXPECT_EQ(run(spec).out, "");
}

TEST_F(SandboxSurroundings, ArgumentsAreExact) {
    SandboxSpec spec = full();
    spec.argv = {"printf", "[%s]", "", "a b", "$x", std::string(100000, 'y')};
    EXPECT_EQ(run(spec).out, "[][a b][$x][" + std::string(100000, 'y') + "]");
}

TEST_F(SandboxSurroundings, WorkingFolder) {
    SandboxSpec spec = shell("pwd");
    spec.cwd = "/usr/bin";
    EXPECT_EQ(run(spec).out, "/usr/bin\n");
    const auto before = std::filesystem::current_path();
    spec.cwd.reset();
    std::filesystem::current_path(folder());
    EXPECT_EQ(run(spec).out, folder().string() + "\n");
    std::filesystem::current_path("/root");
    EXPECT_EQ(run(spec).out, "/\n") << "that nobody cannot enter";
    std::filesystem::current_path(before);
}

TEST_F(SandboxSurroundings, Limits) {
    SandboxSpec spec = shell("ulimit -Sn; ulimit -Hn; ulimit -Sc");
    spec.rlimits = {{RLIMIT_NOFILE, 77, 99}, {RLIMIT_CORE, 0, 0}};
    EXPECT_EQ(run(spec).out, "77\n99\n0\n");
    rlimit64 own = {};
    ASSERT_EQ(::getrlimit64(RLIMIT_NOFILE, &own), 0);
    spec.rlimits = {{RLIMIT_NOFILE, 64, own.rlim_max + 1}};
    const Outcome raised = run(spec);
    // Raising takes CAP_SYS_RESOURCE: with it the client has it, without there is an error and no client.
    const std::uint64_t own_capabilities =
        std::stoull(fields(read_text("/proc/self/status"))["CapEff"], nullptr, 16);
    if ((own_capabilities >> CAP_SYS_RESOURCE & 1) != 0) {
        EXPECT_EQ(raised.status, 0) << raised.error;
    } else {
        EXPECT_EQ(raised.status, 125);
        EXPECT_THAT(raised.error, HasSubstr("CAP_SYS_RESOURCE"));
    }
}

TEST_F(SandboxSurroundings, SessionIsItsOwnUnlessNotAskedFor) {
    const std::string script = "read -r a b c d e sid rest < /proc/self/stat; echo $sid";
    EXPECT_NE(run_shell(script).out, "0\n");
    SandboxSpec spec = shell(script);
    spec.new_session = false;
    EXPECT_EQ(run(spec).out, "0\n") << "one of outside has no number in here";
}

}  // namespace
}  // namespace postern
