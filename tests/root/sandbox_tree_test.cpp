// SPDX-License-Identifier: Apache-2.0
//
// The file tree of a sandbox: what is there, what can be written, what mounts of a profile become, and that
// none of them leads out.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "tests/root/sandbox_fixture.h"

namespace postern {
namespace {

using ::testing::HasSubstr;

class SandboxTree : public SandboxTest {
  protected:
    void write(const std::filesystem::path& path, const std::string& text, mode_t mode = 0644) {
        std::filesystem::create_directories(path.parent_path());
        std::ofstream(path) << text;
        ASSERT_EQ(::chmod(path.c_str(), mode), 0);
    }
    static Outcome run_with(const Mount& mount, const std::string& script) {
        SandboxSpec spec = shell(script);
        spec.mounts = {mount};
        return run(spec);
    }
};

TEST_F(SandboxTree, HostRootIsReadOnly) {
    SandboxSpec spec = shell("touch /var/lib/postern-escaped");
    spec.uid = 0;  // so that the file modes do not hide what the mount does
    spec.gid = 0;
    EXPECT_THAT(run(spec).out, HasSubstr("Read-only file system"));
    EXPECT_FALSE(std::filesystem::exists("/var/lib/postern-escaped"));
    const std::string mounts = run_shell("cat /proc/self/mountinfo").out;
    EXPECT_THAT(mounts, HasSubstr(" / / ro,nosuid,nodev,"));
}

TEST_F(SandboxTree, TmpRunAndShmAreFreshAndWritable) {
    write("/tmp/postern-host-file", "x");
    EXPECT_EQ(run_shell("ls -A /tmp /run /var/tmp /dev/shm | grep -v :").out, "\n\n\n");
    std::filesystem::remove("/tmp/postern-host-file");
    EXPECT_EQ(run_shell("set -e; for d in /tmp /run /var/tmp /dev/shm; do echo $d > $d/f; cat $d/f; done; "
                        "stat -c %a /tmp")
                  .out,
              "/tmp\n/run\n/var/tmp\n/dev/shm\n1777\n");
    EXPECT_FALSE(std::filesystem::exists("/tmp/f"));
}

TEST_F(SandboxTree, SysHoldsOnlyTheProcessors) {
    EXPECT_EQ(run_shell("ls /sys; ls /sys/devices; cat /sys/devices/system/cpu/online").out,
              "devices\nsystem\n" + read_text("/sys/devices/system/cpu/online"));
    SandboxSpec spec = shell("touch /sys/x");
    spec.uid = 0;
    spec.gid = 0;
    EXPECT_THAT(run(spec).out, HasSubstr("Read-only file system"));
}

TEST_F(SandboxTree, DevIsMinimal) {
    EXPECT_EQ(run_shell("ls /dev | tr '\\n' ' '").out,
              "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero ");
    EXPECT_EQ(
        run_shell("echo x > /dev/null && head -c 4 /dev/zero | od -An -tx1 && head -c 4 /dev/urandom | wc -c")
            .out,
        " 00 00 00 00\n4\n");
    EXPECT_NE(run_shell("echo x > /dev/full").status, 0);
    EXPECT_EQ(run_shell("python3 -c 'import pty,os; m,s=pty.openpty(); print(os.ttyname(s))'").out,
              "/dev/pts/0\n");
    EXPECT_EQ(run_shell("echo through > /dev/stdout").out, "through\n");
    EXPECT_THAT(run_shell("touch /dev/x").out, HasSubstr("Read-only file system"));
}

TEST_F(SandboxTree, ProcIsItsOwn) {
    EXPECT_EQ(run_shell("readlink /proc/self; cat /proc/1/comm").out, "3\npostern-init\n");
    EXPECT_NE(run_shell("echo 1 > /proc/sys/kernel/randomize_va_space").status, 0);
}

TEST_F(SandboxTree, AMaskedProcIsNamedAsTheReason) {
    // As in a container: something lies over part of /proc, and then the kernel gives no new one to a user
    // namespace.
    const UniqueFd error(::memfd_create("error", MFD_CLOEXEC));
    const pid_t container = ::fork();
    if (container == 0) {
        if (::unshare(CLONE_NEWNS) != 0 ||
            ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            ::mount("/dev/null", "/proc/meminfo", nullptr, MS_BIND, nullptr) != 0) {
            ::_exit(98);
        }
        const auto client = start_sandbox(shell("true"));
        if (client) ::_exit(0);
        const std::string& message = client.error().error.message;
        if (::write(error.get(), message.data(), message.size()) < 0) ::_exit(97);
        ::_exit(client.error().exit_status);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(container, &status, 0), container);
    EXPECT_EQ(WEXITSTATUS(status), 125);
    char text[1024] = {};
    ASSERT_GT(::pread(error.get(), text, sizeof text - 1, 0), 0);
    EXPECT_THAT(text, HasSubstr("part of /proc is covered"));
}

TEST_F(SandboxTree, LeavesTheHostsMountsAlone) {
    const std::string before = read_text("/proc/self/mountinfo");
    EXPECT_EQ(run_shell("true").status, 0);
    SandboxSpec spec = shell("true");
    spec.namespaces.user = false;
    EXPECT_EQ(run(spec).status, 0);
    spec.mounts = {{Mount::Type::Bind, "/usr", "/no/target", {}}};
    EXPECT_EQ(run(spec).status, 125);
    EXPECT_EQ(read_text("/proc/self/mountinfo"), before);
}

TEST_F(SandboxTree, BindsAreWritableOrReadOnlyAsAsked) {
    const auto shared = folder() / "shared";
    std::filesystem::create_directory(shared);
    ASSERT_EQ(::chmod(shared.c_str(), 0777), 0);
    const Mount bind{Mount::Type::Bind, shared, "/tmp/in/side", {}};
    EXPECT_EQ(run_with(bind, "echo text > /tmp/in/side/file").status, 0);
    EXPECT_EQ(read_text(shared / "file"), "text\n");
    Mount read_only = bind;
    read_only.options = {"ro"};
    EXPECT_THAT(run_with(read_only, "cat /tmp/in/side/file; echo x > /tmp/in/side/file").out,
                testing::AllOf(HasSubstr("text"), HasSubstr("Read-only file system")));
}

TEST_F(SandboxTree, FilesAreBoundToo) {
    write(folder() / "file", "content\n");
    EXPECT_EQ(run_with({Mount::Type::Bind, folder() / "file", "/tmp/there", {}}, "cat /tmp/there").out,
              "content\n");
    EXPECT_EQ(run_with({Mount::Type::Bind, folder() / "file", "/etc/hostname", {}}, "cat /etc/hostname").out,
              "content\n");
    EXPECT_THAT(run_with({Mount::Type::Bind, folder() / "file", "/usr", {}}, "true").error,
                HasSubstr("a file"));
}

TEST_F(SandboxTree, SourcesAreOpenedBeforeTheyAreHidden) {
    write("/tmp/postern-source/file", "from the host\n");
    EXPECT_EQ(run_with({Mount::Type::Bind, "/tmp/postern-source", "/tmp/postern-source", {"ro"}},
                       "cat /tmp/postern-source/file")
                  .out,
              "from the host\n");
    std::filesystem::remove_all("/tmp/postern-source");
}

TEST_F(SandboxTree, RootsRightsReachTheSource) {
    // A folder of somebody else that only CAP_DAC_OVERRIDE enters: as with sudo in a home that is 0700.
    write(folder() / "home/project/file", "reached\n");
    ASSERT_EQ(::chown((folder() / "home").c_str(), 1000, 1000), 0);
    ASSERT_EQ(::chmod((folder() / "home").c_str(), 0700), 0);
    EXPECT_EQ(run_with({Mount::Type::Bind, folder() / "home/project", "/tmp/project", {"ro"}},
                       "cat /tmp/project/file")
                  .out,
              "reached\n");
}

TEST_F(SandboxTree, NoexecNosuidNodevHold) {
    const auto tools = folder() / "tools";
    std::filesystem::create_directory(tools);
    std::filesystem::copy_file("/bin/true", tools / "true");
    EXPECT_EQ(run_with({Mount::Type::Bind, tools, "/tmp/t", {}}, "/tmp/t/true").status, 0);
    EXPECT_EQ(run_with({Mount::Type::Bind, tools, "/tmp/t", {"noexec"}}, "/tmp/t/true").status, 126);
    const std::string options =
        run_with({Mount::Type::Bind, tools, "/tmp/t", {}}, "grep /tmp/t /proc/self/mounts").out;
    EXPECT_THAT(options, HasSubstr("nosuid,nodev"));
    ASSERT_EQ(::mknod((tools / "null").c_str(), S_IFCHR | 0666, static_cast<dev_t>(1 << 8 | 3)), 0);
    ASSERT_EQ(::chmod((tools / "null").c_str(), 0666), 0);
    EXPECT_NE(run_with({Mount::Type::Bind, tools, "/tmp/t", {}}, "echo x > /tmp/t/null").status, 0);
    EXPECT_EQ(run_with({Mount::Type::Bind, tools, "/tmp/t", {"dev"}}, "echo x > /tmp/t/null").status, 0);
}

TEST_F(SandboxTree, MountsBelowASourceComeAlongReadOnlyToo) {
    const auto outer = folder() / "outer";
    std::filesystem::create_directories(outer / "inner");
    ASSERT_EQ(::mount("tmpfs", (outer / "inner").c_str(), "tmpfs", 0, "mode=0777"), 0);
    write(outer / "inner/file", "deep\n", 0666);
    const Outcome all = run_with({Mount::Type::Bind, outer, "/tmp/o", {"ro"}},
                                 "cat /tmp/o/inner/file; echo x > /tmp/o/inner/file");
    const Outcome top = run_with({Mount::Type::Bind, outer, "/tmp/o", {"ro", "bind"}}, "ls /tmp/o/inner");
    const Outcome hosts =
        run_shell("cat " + (outer / "inner/file").string() + "; echo x > " + (outer / "inner/file").string());
    ASSERT_EQ(::umount2((outer / "inner").c_str(), MNT_DETACH), 0);
    EXPECT_THAT(all.out, testing::AllOf(HasSubstr("deep"), HasSubstr("Read-only")));
    EXPECT_EQ(top.out, "");
    EXPECT_THAT(hosts.out, testing::AllOf(HasSubstr("deep"), HasSubstr("Read-only")))
        << "the host root is read-only all the way down";
}

TEST_F(SandboxTree, NewMountsOfTheHostDoNotAppear) {
    const auto place = folder() / "place";
    std::filesystem::create_directory(place);
    ASSERT_EQ(::mount(folder().c_str(), folder().c_str(), nullptr, MS_BIND, nullptr), 0);
    ASSERT_EQ(::mount(nullptr, folder().c_str(), nullptr, MS_SHARED, nullptr), 0);
    SandboxSpec spec = shell("read line; ls " + place.string());
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const UniqueFd read_end(ends[0]);
    UniqueFd write_end(ends[1]);
    const UniqueFd old_in(::fcntl(0, F_DUPFD_CLOEXEC, 3));
    ::dup2(read_end.get(), 0);
    std::string out;
    {
        Captured captured;
        auto client = start_sandbox(spec);
        ::dup2(old_in.get(), 0);
        EXPECT_TRUE(client);
        EXPECT_EQ(::mount("tmpfs", place.c_str(), "tmpfs", 0, nullptr), 0);
        std::ofstream(place / "new") << "x";
        EXPECT_EQ(::write(write_end.get(), "\n", 1), 1);
        EXPECT_EQ(client ? client->wait().status() : -1, 0);
        out = captured.text();
    }
    ::umount2(place.c_str(), MNT_DETACH);
    ::umount2(folder().c_str(), MNT_DETACH);
    EXPECT_EQ(out, "");
}

TEST_F(SandboxTree, TargetsBehindLinksStayInside) {
    // The folder is bound in, and its links try to lead the next mount's target out.
    const auto trap = folder() / "trap";
    const auto victim = folder() / "victim";
    std::filesystem::create_directory(trap);
    std::filesystem::create_directory(victim);
    write(victim / "file", "victim\n");
    std::filesystem::create_directory_symlink("../../../../../../../.." + victim.string(), trap / "relative");
    std::filesystem::create_directory_symlink(victim, trap / "absolute");
    std::filesystem::create_directory_symlink("/proc/1/root", trap / "magic");
    for (const char* link : {"relative", "absolute", "magic"}) {
        SandboxSpec spec = shell("true");
        spec.root.kind = Root::Kind::Empty;
        spec.mounts = {{Mount::Type::Bind, trap, "/trap", {}},
                       {Mount::Type::Tmpfs, "", std::string("/trap/") + link, {}}};
        for (const char* part : {"/usr", "/lib", "/lib64", "/bin"})
            spec.mounts.push_back({Mount::Type::Bind, part, part, {"ro", "optional"}});
        // In the empty root the links' targets do not exist, or are the sandbox's own.
        EXPECT_EQ(run(spec).status, 125) << link;
        EXPECT_EQ(read_text(victim / "file"), "victim\n");
    }
    SandboxSpec spec = shell("ls -A /trap/inside");
    spec.root.kind = Root::Kind::Empty;
    std::filesystem::create_directory_symlink("/tmp/made", trap / "inside");
    spec.mounts = {{Mount::Type::Tmpfs, "", "/tmp/made", {}},
                   {Mount::Type::Bind, trap, "/trap", {}},
                   {Mount::Type::Bind, victim, "/trap/inside", {"ro"}}};
    for (const char* part : {"/usr", "/lib", "/lib64", "/bin"})
        spec.mounts.push_back({Mount::Type::Bind, part, part, {"ro", "optional"}});
    EXPECT_EQ(run(spec).out, "file\n") << "a link that leads to what is inside is followed there";
}

TEST_F(SandboxTree, TargetsAreNotMadeInHostFolders) {
    std::filesystem::create_directory(folder() / "host");
    ASSERT_EQ(::chmod((folder() / "host").c_str(), 0777), 0);
    SandboxSpec spec = shell("true");
    spec.mounts = {{Mount::Type::Bind, folder() / "host", "/tmp/host", {}},
                   {Mount::Type::Tmpfs, "", "/tmp/host/new", {}}};
    EXPECT_EQ(run(spec).status, 125);
    EXPECT_TRUE(std::filesystem::is_empty(folder() / "host"));
    std::filesystem::create_directory(folder() / "host/new");
    EXPECT_EQ(run(spec).status, 0);
}

TEST_F(SandboxTree, TmpfsOptions) {
    EXPECT_EQ(run_with({Mount::Type::Tmpfs, "", "/tmp/t", {"size=1m", "mode=0700"}},
                       "stat -c %a /tmp/t; head -c 2000000 /dev/zero > /tmp/t/f; stat -c %s /tmp/t/f")
                  .out,
              "700\nhead: error writing 'standard output': No space left on device\n1048576\n");
    EXPECT_THAT(run_with({Mount::Type::Tmpfs, "", "/tmp/t", {"ro"}}, "touch /tmp/t/f").out,
                HasSubstr("Read-only"));
    EXPECT_THAT(run_with({Mount::Type::Tmpfs, "", "/tmp/t", {"size=many"}}, "true").error,
                HasSubstr("tmpfs(5)"));
}

TEST_F(SandboxTree, ProcAndDevElsewhere) {
    EXPECT_EQ(run_with({Mount::Type::Proc, "", "/tmp/p", {}}, "cat /tmp/p/1/comm").out, "postern-init\n");
    EXPECT_EQ(run_with({Mount::Type::Dev, "", "/tmp/d", {}}, "ls /tmp/d | wc -l; echo x > /tmp/d/null").out,
              "13\n");
}

TEST_F(SandboxTree, Overlay) {
    write(folder() / "lower/kept", "kept\n");
    write(folder() / "lower/changed", "old\n", 0666);
    for (const char* name : {"upper", "work"}) std::filesystem::create_directory(folder() / name);
    ASSERT_EQ(::chmod((folder() / "lower").c_str(), 0777), 0);
    ASSERT_EQ(::chmod((folder() / "upper").c_str(), 0777), 0);
    const std::string lower = "lowerdir=" + (folder() / "lower").string();
    const Outcome outcome = run_with(
        {Mount::Type::Overlay,
         "",
         "/tmp/o",
         {lower, "upperdir=" + (folder() / "upper").string(), "workdir=" + (folder() / "work").string()}},
        "cat /tmp/o/kept; echo new > /tmp/o/changed; cat /tmp/o/changed; echo x > /tmp/o/fresh && cat "
        "/tmp/o/fresh");
    EXPECT_EQ(outcome.out, "kept\nnew\nx\n") << outcome.error;
    EXPECT_EQ(read_text(folder() / "lower/changed"), "old\n");
    EXPECT_EQ(read_text(folder() / "upper/changed"), "new\n");
    write(folder() / "second/more", "more\n");
    const Outcome read_only =
        run_with({Mount::Type::Overlay, "", "/tmp/o", {lower + ":" + (folder() / "second").string()}},
                 "cat /tmp/o/more /tmp/o/kept; echo x > /tmp/o/kept");
    EXPECT_THAT(read_only.out, testing::AllOf(HasSubstr("more\nkept\n"), HasSubstr("Read-only")))
        << read_only.error;
}

TEST_F(SandboxTree, EmptyRootHoldsNothingElse) {
    SandboxSpec spec = full();
    spec.root.kind = Root::Kind::Empty;
    for (const char* part : {"/usr", "/lib", "/lib64", "/bin"})
        spec.mounts.push_back({Mount::Type::Bind, part, part, {"ro", "optional"}});
    spec.argv = {"/bin/sh", "-c", "ls / | tr '\\n' ' '; echo x > /tmp/x && echo ok; touch /x"};
    const Outcome outcome = run(spec);
    EXPECT_THAT(outcome.out, HasSubstr("bin dev lib lib64 proc tmp usr ok\n"));
    EXPECT_THAT(outcome.out, HasSubstr("Read-only file system"));
}

TEST_F(SandboxTree, AFolderAsRoot) {
    for (const char* name : {"proc", "dev", "tmp", "usr", "etc"})
        std::filesystem::create_directories(folder() / "root" / name);
    write(folder() / "root/etc/motd", "the folder's\n");
    for (const char* name : {"lib", "lib64", "bin"})
        std::filesystem::create_symlink(std::string("usr/") + name, folder() / "root" / name);
    SandboxSpec spec = shell(
        "cat /etc/motd; ls / | tr '\\n' ' '; touch /etc/x; cat /proc/1/comm; echo x > /tmp/x && echo fine");
    spec.root = {Root::Kind::Path, folder() / "root"};
    spec.mounts = {{Mount::Type::Bind, "/usr", "/usr", {"ro"}}};
    const Outcome outcome = run(spec);
    EXPECT_THAT(outcome.out, HasSubstr("the folder's\nbin dev etc lib lib64 proc tmp usr ")) << outcome.error;
    EXPECT_THAT(outcome.out, HasSubstr("Read-only file system"));
    EXPECT_THAT(outcome.out, HasSubstr("postern-init\nfine\n"));
    // Nothing is required to be in it.
    std::filesystem::create_directories(folder() / "bare/bin");
    spec.root = {Root::Kind::Path, folder() / "bare"};
    spec.mounts.clear();
    EXPECT_EQ(run(spec).status, 127);
    EXPECT_TRUE(std::filesystem::is_empty(folder() / "bare/bin"));
}

class SandboxCommand : public SandboxTree {};

TEST_F(SandboxCommand, RunsFromWhereTheSandboxDoesNotReach) {
    // Below /tmp, which is covered, and below a folder that only root enters.
    for (const std::filesystem::path& place :
         {std::filesystem::path("/tmp/postern-hidden"), folder() / "private"}) {
        std::filesystem::create_directory(place);
        std::filesystem::copy_file("/bin/sh", place / "tool");
        ASSERT_EQ(::chmod(place.c_str(), 0700), 0);
        SandboxSpec spec = shell("echo ran; cat /proc/self/comm >/dev/null; exit 4");
        spec.argv[0] = place / "tool";
        const Outcome outcome = run(spec);
        EXPECT_EQ(outcome.status, 4) << outcome.error;
        EXPECT_EQ(outcome.out, "ran\n");
        // Its own file is read-only to it, even where it owns it.
        ASSERT_EQ(::chown((place / "tool").c_str(), 65534, 65534), 0);
        spec.argv = {place / "tool", "-c", "exec 9<>/proc/$$/exe"};
        EXPECT_NE(run(spec).status, 0);
        // A script is opened by name, which does not lead there.
        write(place / "script", "#!/bin/sh\nexit 0\n", 0755);
        spec.argv = {place / "script"};
        const Outcome script = run(spec);
        EXPECT_EQ(script.status, 126);
        EXPECT_THAT(script.error, HasSubstr("bind its folder"));
        std::filesystem::remove_all(place);
    }
    write(folder() / "script", "#!/bin/sh\nexit 5\n", 0755);
    SandboxSpec spec = full();
    spec.argv = {folder() / "script"};
    EXPECT_EQ(run(spec).status, 5);
}

TEST_F(SandboxCommand, IsNotReplacedByAnotherFileOfThatName) {
    // The sandbox has another file where the command's path leads: the one found on the host runs.
    std::filesystem::create_directory(folder() / "a");
    std::filesystem::create_directory(folder() / "b");
    std::filesystem::copy_file("/bin/sh", folder() / "a/tool");
    std::filesystem::copy_file("/bin/false", folder() / "b/tool");
    SandboxSpec spec = full();
    spec.argv = {folder() / "a/tool", "-c", "exit 6"};
    spec.mounts = {{Mount::Type::Bind, folder() / "b", folder() / "a", {}}};
    EXPECT_EQ(run(spec).status, 6);
}

TEST_F(SandboxCommand, WithAMissingInterpreterIs126) {
    write(folder() / "script", "#!/no/such/interpreter\n", 0755);
    SandboxSpec spec = full();
    spec.argv = {folder() / "script"};
    const Outcome outcome = run(spec);
    EXPECT_EQ(outcome.status, 126);
    EXPECT_THAT(outcome.error, HasSubstr("interpreter"));
    write(folder() / "junk", "neither\n", 0755);
    spec.argv = {folder() / "junk"};
    EXPECT_EQ(run(spec).status, 126);
}

}  // namespace
}  // namespace postern
