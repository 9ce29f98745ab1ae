// SPDX-License-Identifier: Apache-2.0
#include "launcher/launch_error.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "broker-core/unique_fd.h"

namespace postern {
namespace {

LaunchError launch_error(int exit_status, int errnum, std::string message) {
    return LaunchError{Error{std::move(message), errnum}, exit_status};
}

std::string source_hint(const MountStep& step, int errnum) {
    if (step.kind == MountStep::Kind::Bind && (errnum == ENOENT || errnum == ENOTDIR)) {
        return "; create the source, or add the option \"optional\"";
    }
    if (step.kind == MountStep::Kind::Overlay && (errnum == ENOENT || errnum == EINVAL)) {
        return "; lowerdir, upperdir and workdir must be existing folders, the latter two on one file system "
               "that can "
               "be an upper layer";
    }
    if (errnum == EACCES) return "; the launcher's user may not enter it";
    return "";
}

std::string nosuid_hint(const ChildReport& report) {
    if (report.errnum != EPERM || std::string_view(report.call) != "fstatvfs") return "";
    return "; the source lies on a mount that is nosuid on the host (findmnt -T tells), and what is bound "
           "from it "
           "is so, too: leave the option \"suid\" out, or remount it there with suid";
}

std::string mount_hint(const MountStep& step, const ChildReport& report) {
    const int errnum = report.errnum;
    if (step.kind == MountStep::Kind::Symlink && report.detail[0] != '\0')
        return fmt::format("; Can't make symlink at {}: {}", step.target, report.detail);
    if (errnum == ELOOP)
        return fmt::format("; Can't mount on symlink destination {}: name what it leads to", step.target);
    if (step.kind == MountStep::Kind::Proc && errnum == EPERM) {
        return "; part of /proc is covered on this machine, as in a container, and then the kernel gives out "
               "no full one: "
               "run outside of it, or with its /proc unmasked";
    }
    if (step.kind == MountStep::Kind::Chmod && (errnum == ENOENT || errnum == EROFS))
        return errnum == ENOENT ? "; there is no such file in the sandbox" : "; it is on a read-only mount";
    if (errnum == ENOENT || errnum == EROFS) {
        return "; the target is not there, and is only made in a tmpfs of the sandbox: use an existing one, "
               "or one below "
               "/tmp or /run";
    }
    if (errnum == ENOTDIR)
        return fmt::format("; {} is not a directory: a folder needs a folder as its target", step.target);
    if (errnum == EISDIR)
        return fmt::format("; {} is not a file: a file needs a file as its target", step.target);
    if (errnum == EINVAL && step.kind == MountStep::Kind::Tmpfs)
        return "; see tmpfs(5) for what size, nr_inodes and mode can be";
    return "";
}

/// What was found on the host; empty: it is the child that looks.
std::string target_path(const ChildPlan& plan) {
    return plan.command.has_target ? plan.command.candidates[0] : "";
}

std::string step_detail(const ChildReport& report, const ChildPlan& plan) {
    const auto item = static_cast<std::size_t>(report.item);
    switch (report.step) {
        case ChildStep::Sources:
            if (report.item < 0) return fmt::format(" {}", target_path(plan));
            [[fallthrough]];
        case ChildStep::Overlays:
        case ChildStep::Mounts:
            if (report.item < 0 || item >= plan.mounts.steps.size()) return "";
            return fmt::format(" {}: {}", plan.mounts.steps[item].where, describe(plan.mounts.steps[item]));
        case ChildStep::NewRoot:
            return plan.mounts.root_is_tmpfs ? "" : " " + plan.mounts.root_source;
        case ChildStep::Limits:
            if (report.item < 0 || item >= plan.limits.size()) return "";
            return fmt::format(" {}", rlimit_name(plan.limits[item].resource));
        case ChildStep::Fds:
            return report.item < 0 ? "" : fmt::format(" number {}", report.item + 3);
        case ChildStep::WorkingFolder:
            return plan.folders.empty() ? "" : " " + plan.folders.front();
        case ChildStep::Landlock:
            return report.item < 0 ? "" : " " + plan.landlock.paths[item].path;
        case ChildStep::Locks:
            return report.item < 0 ? "" : " " + plan.lock_files[item];
        default:
            return "";
    }
}

std::string step_hint(const ChildReport& report, const ChildPlan& plan, const UserNamespaceRules& rules) {
    const auto item = static_cast<std::size_t>(report.item);
    const bool is_mount = report.item >= 0 && item < plan.mounts.steps.size();
    switch (report.step) {
        case ChildStep::Overlays:
        case ChildStep::Sources:
            return is_mount ? nosuid_hint(report) + source_hint(plan.mounts.steps[item], report.errnum) : "";
        case ChildStep::Mounts:
            return is_mount ? mount_hint(plan.mounts.steps[item], report) : "";
        // The first that need a capability in the new user namespace.
        case ChildStep::Identity:
            if (!plan.namespaces.user && report.errnum == EPERM)
                return "; another user without a user namespace takes CAP_SETUID and CAP_SETGID: run as "
                       "root, or "
                       "add \"user\" to the namespaces";
            [[fallthrough]];
        case ChildStep::CgroupNamespace:
        case ChildStep::PrivateMounts:
        case ChildStep::NewRoot:
        case ChildStep::Hostname:
        case ChildStep::Loopback:
            return plan.namespaces.user ? user_namespace_hint(report.errnum, rules) : "";
        case ChildStep::Limits:
            return report.errnum == EPERM
                       ? "; raising a hard limit needs CAP_SYS_RESOURCE in the first user namespace"
                       : "";
        case ChildStep::Fork:
            return report.errnum == EAGAIN ? "; the limit on processes is reached: the sandbox's init is one "
                                             "of them, so pids.max "
                                             "of its cgroup, or ulimit -u, must allow 2 at least"
                                           : "";
        case ChildStep::NoMoreUserNamespaces:
            return report.errnum == EEXIST ? "; creation of new user namespaces was not disabled as requested"
                                           : "";
        case ChildStep::Capabilities:
            return "; a capability can only be kept that the launcher has in this namespace and this kernel "
                   "knows";
        case ChildStep::WorkingFolder:
            return "; \"cwd\" must be a folder that the client can enter inside";
        case ChildStep::SeccompEarly:
        case ChildStep::SeccompLate:
            return report.errnum == EINVAL ? "; the filter is longer than 4096 instructions or not valid"
                                           : "";
        case ChildStep::Landlock:
            if (report.item >= 0) return "; its rules can only have paths that are there inside the sandbox";
            return report.errnum == EPERM ? "; it takes no_new_privs, or CAP_SYS_ADMIN" : "";
        case ChildStep::Keyring:
            return report.errnum == EDQUOT ? "; the user has too many keys: sysctl kernel.keys.maxkeys" : "";
        case ChildStep::Fds:
            return report.errnum == EINVAL || report.errnum == EMFILE ? "; raise `ulimit -n` of the launcher"
                                                                      : "";
        default:
            return "";
    }
}

LaunchError explain_exec(const ChildReport& report, const ChildPlan& plan, const std::string& command) {
    if (report.is_script) {
        return launch_error(
            126, report.errnum,
            fmt::format("{}: is a script in a place that the sandbox hides or its user cannot enter, and a "
                        "script is opened by path: bind its folder into the sandbox, or move it",
                        target_path(plan)));
    }
    if (!report.found) {
        return launch_error(
            127, report.errnum,
            fmt::format("{}: command not found inside the sandbox; its root may lack it, or PATH in its "
                        "environment the folder",
                        command));
    }
    std::string hint;
    if (report.errnum == ENOENT) hint = "; its interpreter or dynamic loader is not there inside the sandbox";
    if (report.errnum == ENOEXEC)
        hint = "; it is neither a program for this machine nor a script that begins with #!";
    if (report.errnum == EACCES) {
        hint = "; the client's user may not execute it, or it is on a mount that is noexec";
        if (plan.landlock.handled_fs != 0)
            hint +=
                ", or Landlock's rules do not let it, its interpreter or its dynamic loader be executed and "
                "read";
    }
    if (report.errnum == EPERM) hint = "; the seccomp filter may refuse execve";
    const std::string path = plan.command.has_target ? target_path(plan) : command;
    return launch_error(
        126, report.errnum,
        fmt::format("{}: found, but cannot be run: {}{}", path, errno_text(report.errnum), hint));
}

/// First line of a small file in `folder`; empty if it cannot be read.
std::string read_line(const char* path, int folder) {
    const UniqueFd file(::openat(folder, path, O_RDONLY | O_CLOEXEC));
    char text[64] = {};
    const ssize_t got = file ? ::read(file.get(), text, sizeof text - 1) : 0;
    if (got <= 0) return "";
    const std::string_view line(text, static_cast<std::size_t>(got));
    return std::string(line.substr(0, line.find('\n')));
}

std::string cgroup_hint(int errnum, int cgroup_fd) {
    const std::string type = read_line("cgroup.type", cgroup_fd);
    if (errnum == EOPNOTSUPP && (type == "threaded" || type == "domain invalid")) {
        return fmt::format(
            "; the client's cgroup is \"{}\", because postern is in a threaded part of the hierarchy, where "
            "cgroups hold threads but no process can be born (man 7 cgroups): start it from a cgroup whose "
            "cgroup.type is \"domain\", below no threaded one (systemd-run --scope -p Delegate=yes)",
            type);
    }
    return "; the launcher may not put the client into its cgroup: it needs to be delegated (systemd-run "
           "--scope -p Delegate=yes)";
}

std::string clone_hint(int errnum, const Namespaces& namespaces, int cgroup_fd,
                       const UserNamespaceRules& rules) {
    if (errnum == EPERM && !namespaces.user) {
        return "; namespaces without a user namespace need CAP_SYS_ADMIN: run as root, or add \"user\" to "
               "the namespaces";
    }
    if (std::string hint = user_namespace_hint(errnum, rules); namespaces.user && !hint.empty()) return hint;
    if (errnum == EPERM) {
        return "; user namespaces are forbidden here, as in a chroot or by the seccomp filter of a container";
    }
    if (errnum == ENOSPC || errnum == EUSERS) {
        return "; a limit on namespaces is reached (sysctl user.max_*_namespaces, or 32 levels of nesting)";
    }
    if (cgroup_fd >= 0 && (errnum == EACCES || errnum == EBUSY || errnum == EOPNOTSUPP))
        return cgroup_hint(errnum, cgroup_fd);
    if (errnum == EAGAIN) return "; the limit on processes is reached (ulimit -u, pids.max)";
    return "";
}

}  // namespace

LaunchError explain_report(const ChildReport& report, const ChildPlan& plan, const std::string& command,
                           const UserNamespaceRules& rules) {
    if (report.step == ChildStep::Exec || report.step == ChildStep::Command)
        return explain_exec(report, plan, command);
    return launch_error(
        125, report.errnum,
        fmt::format("sandbox: {}{}: {}: {}{}", child_step_name(report.step), step_detail(report, plan),
                    report.call, errno_text(report.errnum), step_hint(report, plan, rules)));
}

LaunchError explain_early_end(const CgroupEvents& events) {
    return launch_error(
        125, 0,
        fmt::format("sandbox: it was killed before the client began{}",
                    events.oom_kills > 0 ? "; the memory limit was hit by the start itself: raise memory.max "
                                           "of its cgroup to some MiB at least"
                                         : " (SIGKILL from outside, or the machine is out of memory)"));
}

Error explain_map_error(Error error, const UserNamespaceRules& rules) {
    error.message += user_namespace_hint(error.errnum, rules);
    return error;
}

LaunchError explain_clone_error(int errnum, const Namespaces& namespaces, int cgroup_fd,
                                const UserNamespaceRules& rules) {
    return launch_error(125, errnum,
                        fmt::format("sandbox: making the namespaces: clone3: {}{}", errno_text(errnum),
                                    clone_hint(errnum, namespaces, cgroup_fd, rules)));
}

}  // namespace postern
