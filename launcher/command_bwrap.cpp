// SPDX-License-Identifier: Apache-2.0
#include "launcher/command_bwrap.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <tuple>

#include "broker-core/file.h"
#include "launcher/bwrap_options.h"
#include "launcher/client_environment.h"
#include "launcher/raw_filter.h"
#include "launcher/report.h"
#include "launcher/supervise.h"
#include "launcher/syscalls.h"
#include "launcher/user_namespace_rules.h"

namespace postern {
namespace {

/// bubblewrap's own status for everything that goes wrong before the command runs.
int refuse(const Error& error, bool level_prefix) {
    tell("{}bwrap: {}\n", level_prefix ? "<3>" : "", error.message);
    return 1;
}

std::string help_text(const std::string& program) {
    std::string text = fmt::format("usage: {} [OPTIONS...] [--] COMMAND [ARGS...]\n\n", program);
    for (const BwrapOption& option : bwrap_options())
        text += fmt::format("    {:<29}{}\n", fmt::format("{} {}", option.name, option.words), option.help);
    return text;
}

BwrapCaller this_caller() {
    BwrapCaller caller;
    caller.uid = ::getuid();
    caller.gid = ::getgid();
    const std::unique_ptr<char, decltype(&std::free)> folder(::get_current_dir_name(), &std::free);
    caller.folder = folder ? folder.get() : "/";
    caller.environment = own_environment();
    char terminal[256];
    if (::ttyname_r(STDOUT_FILENO, terminal, sizeof terminal) == 0) caller.terminal = terminal;
    caller.can_make_user_namespaces =
        ::access("/proc/self/ns/user", F_OK) == 0 && read_user_namespace_rules().max_namespaces != "0";
    const std::uint64_t own = sys::permitted_capabilities();
    for (unsigned i = 0; i < 64; ++i) {
        if ((own >> i & 1) != 0) caller.capabilities.push_back(i);
    }
    return caller;
}

/// Open fds above 2 that programs which are started have, too.
std::vector<int> inheritable_fds() {
    std::vector<int> fds;
    for (const std::string& name : names_in("/proc/self/fd")) {
        const int fd = std::atoi(name.c_str());
        const int flags = ::fcntl(fd, F_GETFD);
        if (fd > 2 && flags >= 0 && (flags & FD_CLOEXEC) == 0) fds.push_back(fd);
    }
    return fds;
}

Status take_filters(BwrapRequest& request) {
    for (const int fd : request.filters) {
        POSTERN_ASSIGN(auto program, read_raw_filter(fd));
        ::close(fd);
        request.spec.seccomp.push_back(std::move(program));
    }
    return {};
}

/// bubblewrap's word for it, which callers look for.
Status check_sources(const SandboxSpec& spec) {
    for (const Mount& mount : spec.mounts) {
        if (mount.type != Mount::Type::Bind || mount.fd >= 0) continue;
        if (std::find(mount.options.begin(), mount.options.end(), "optional") != mount.options.end())
            continue;
        struct stat status = {};
        if (::stat(mount.source.c_str(), &status) == 0) continue;
        const int errnum = errno;
        return fail_errno(errnum, "Can't find source path {}", mount.source);
    }
    return {};
}

Status join(std::optional<int> fd, int kind, std::string_view what) {
    if (!fd || ::setns(*fd, kind) == 0) return {};
    const int errnum = errno;
    return fail_errno(errnum, "Joining the specified {} namespace failed", what);
}

/// Its end is ours from here on, also if it came before.
Status bind_to_parent(pid_t parent) {
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) {
        const int errnum = errno;
        return fail_errno(errnum, "prctl");
    }
    if (::getppid() != parent) return fail("the caller is gone");
    return {};
}

/// Tells the caller of init, and waits until it has mapped its user namespace.
Status await_caller_map(StatusReport& status, const Namespaces& namespaces, pid_t init, int block_fd) {
    status.tell_early(init, namespaces);
    char byte = 0;
    if (::read(block_fd, &byte, 1) >= 0) return {};
    const int errnum = errno;
    return fail_errno(errnum, "--userns-block-fd {}", block_fd);
}

int start(BwrapRequest request, const std::vector<int>& inherited, pid_t parent) {
    const auto refused = [&](const Error& error) { return refuse(error, request.level_prefix); };
    auto status = StatusReport::open(request.info_fd, request.status_fd);
    if (!status) return refused(status.error());
    SandboxSpec& spec = request.spec;
    for (const int fd : inherited) {
        const bool used = std::find(request.used.begin(), request.used.end(), fd) != request.used.end();
        if (!used) spec.inherited_fds.push_back(fd);
    }
    if (auto taken = take_filters(request); !taken) return refused(taken.error());
    if (auto found = check_sources(spec); !found) return refused(found.error());
    auto supervisor = Supervisor::create();
    if (!supervisor) return refused(supervisor.error());
    for (const auto& [fd, kind, what] : {std::tuple(request.user_fd, CLONE_NEWUSER, "user"),
                                         std::tuple(request.pid_fd, CLONE_NEWPID, "pid")}) {
        if (auto joined = join(fd, kind, what); !joined) return refused(joined.error());
    }
    if (request.die_with_parent) {
        if (auto bound = bind_to_parent(parent); !bound) return refused(bound.error());
    }
    spec.tell_namespaces = status->is_wanted();
    if (request.user_block_fd) {
        spec.await_user_map = [&](pid_t init) {
            return await_caller_map(*status, spec.namespaces, init, *request.user_block_fd);
        };
    }
    auto client = start_sandbox(spec);
    if (!client) return refused(client.error().error);
    return supervise(*supervisor, *status, std::move(*client),
                     {spec.namespaces, "", "", -1, !spec.seccomp.empty(), true, {}});
}

}  // namespace

int run_bwrap(const std::string& program, const std::vector<std::string>& words) {
    const pid_t parent = ::getppid();
    const std::vector<int> inherited = inheritable_fds();
    if (words.empty()) {
        tell("{}", help_text(program));
        return 1;
    }
    bool level_prefix = false;
    const BwrapCaller caller = this_caller();
    auto request = parse_bwrap(words, caller, &level_prefix);
    if (!request) return refuse(request.error(), level_prefix);
    for (const std::string& warning : request->warnings)
        tell("{}bwrap: {}\n", level_prefix ? "<4>" : "", warning);
    if (request->kind == BwrapRequest::Kind::Help) {
        std::fputs(help_text(program).c_str(), stdout);
        return 0;
    }
    if (request->kind == BwrapRequest::Kind::Version) {
        // Callers ask a program called bwrap what it can do.
        std::puts(program == kBwrapCommand ? "postern " POSTERN_VERSION
                                           : "bubblewrap " POSTERN_BWRAP_VERSION);
        return 0;
    }
    if (request->spec.argv.empty()) {
        tell("{}", help_text(program));
        return 1;
    }
    return start(std::move(*request), inherited, parent);
}

}  // namespace postern
