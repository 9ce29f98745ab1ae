// SPDX-License-Identifier: Apache-2.0
#include "launcher/measured_launcher.h"

#include <cstdlib>

#include "broker-core/file.h"
#include "broker-core/programs.h"
#include "launcher/exec_target.h"

namespace postern {

Result<std::vector<MeasuredLauncher>> find_launchers(const LaunchRoot& root) {
    const std::string inside = root.root();
    POSTERN_ASSIGN(const std::string floor, find_program("bare-launcher", "/"));
    std::vector<MeasuredLauncher> launchers{
        {"floor", "bare C launcher (the floor)", {floor, inside, root.filter()}, {}},
        {"postern", "postern", {program_prefix() + "/bin/postern", "run", "--root", inside, "--"}, {}}};
    const char* path = std::getenv("PATH");
    const auto add = [&](MeasuredLauncher launcher) {
        auto found =
            find_exec_target(launcher.words[0], path != nullptr ? path : "/usr/sbin:/usr/bin:/sbin:/bin");
        if (!found) return;
        launcher.words[0] = found->path;
        launchers.push_back(std::move(launcher));
    };
    add({"bwrap",
         "bubblewrap",
         {"bwrap",
          "--unshare-user",
          "--unshare-pid",
          "--unshare-net",
          "--unshare-ipc",
          "--unshare-uts",
          "--unshare-cgroup",
          "--uid",
          "65534",
          "--gid",
          "65534",
          "--ro-bind",
          inside,
          "/",
          "--proc",
          "/proc",
          "--tmpfs",
          "/tmp",
          "--hostname",
          "postern",
          "--new-session",
          "--die-with-parent",
          "--cap-drop",
          "ALL",
          "--seccomp",
          "9",
          "--"},
         root.library_filter()});
    add({"minijail0",
         "minijail",
         {"minijail0", "-U", "-m65534 0 1", "-M65534 0 1", "-p", "-v", "-e", "-l", "-N", "-c", "0", "-n",
          "-r", "-t", "-P", inside, "--uts=postern", "--seccomp-bpf-binary=" + root.library_filter(), "--"},
         {}});
    add({"nsjail",
         "nsjail",
         {"nsjail", "-Mo", "-Q", "--chroot", inside, "--user", "65534:0:1", "--group", "65534:0:1",
          "--tmpfsmount", "/tmp", "--hostname", "postern", "--disable_rlimits", "--seccomp_policy",
          root.kafel(), "--"},
         {}});
    add({"crun",
         "crun",
         {"crun", "--root", root.state(), "--cgroup-manager=disabled", "run", "--bundle", root.bundle()},
         {},
         true});
    add({"runc", "runc", {"runc", "--root", root.state(), "run", "--bundle", root.bundle()}, {}, true});
    add({"unshare",
         "unshare (no seccomp, no caps, no ro root)",
         {"unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount", "--net", "--ipc", "--uts",
          "--cgroup", "--root=" + inside, "--mount-proc", "--"},
         {}});
    return launchers;
}

}  // namespace postern
