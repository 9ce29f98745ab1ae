// SPDX-License-Identifier: Apache-2.0
#include "launcher/sandbox.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "broker-core/file.h"
#include "broker-core/scope_guard.h"
#include "launcher/borrowed_network.h"
#include "launcher/cgroup_events.h"
#include "launcher/child.h"
#include "launcher/child_tree.h"
#include "launcher/exec_target.h"
#include "launcher/landlock_uapi.h"
#include "launcher/launch_error.h"
#include "launcher/sandbox_launch.h"
#include "launcher/syscalls.h"
#include "launcher/user_map_choice.h"

namespace postern {
namespace {

constexpr std::string_view kDefaultSearchPath = "/usr/local/bin:/usr/bin:/bin";
constexpr int kEndingSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

tl::unexpected<LaunchError> refuse(Failure failure) {
    return tl::unexpected(LaunchError{std::move(failure.value()).within("sandbox"), 125});
}

template <typename T>
tl::unexpected<LaunchError> refuse(Result<T>&& result) {
    return refuse(Failure(std::move(result.error())));
}

/// Never 0, 1 or 2, even when the launcher was started with those closed: they are the client's.
Status open_pipe(UniqueFd& read_end, UniqueFd& write_end) {
    std::array<int, 2> ends = {-1, -1};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        const int errnum = errno;
        return fail_errno(errnum, "pipe2");
    }
    const std::array<UniqueFd*, 2> owners = {&read_end, &write_end};
    for (std::size_t i = 0; i < 2; ++i) owners[i]->reset(ends[i]);
    for (UniqueFd* owner : owners) {
        if (owner->get() > 2) continue;
        owner->reset(::fcntl(owner->get(), F_DUPFD_CLOEXEC, 3));
        if (!*owner) return fail("pipe2: no file descriptor above 2 is free");
    }
    return {};
}

/// The launcher's /proc, by which the client learns its pid as the launcher sees it. None, if that is not the
/// /proc of the launcher's own pid namespace: what it said would be somebody else's.
UniqueFd open_own_proc() {
    UniqueFd proc(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (proc && proc.get() <= 2) proc.reset(::fcntl(proc.get(), F_DUPFD_CLOEXEC, 3));
    std::array<char, 12> self = {};
    if (!proc || ::readlinkat(proc.get(), "self", self.data(), self.size() - 1) <= 0) return {};
    if (std::strtol(self.data(), nullptr, 10) != ::getpid()) return {};
    return proc;
}

std::string_view variable(const std::vector<std::string>& env, std::string_view name) {
    for (const std::string& entry : env) {
        if (entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=') {
            return std::string_view(entry).substr(name.size() + 1);
        }
    }
    return {};
}

/// What cannot be had together.
Status check_combinations(const SandboxSpec& spec) {
    if (!spec.fds.empty() && !spec.inherited_fds.empty())
        return fail("granted files and inherited ones have the same numbers; only one of them is possible");
    for (const int fd : spec.inherited_fds) {
        if (fd < 3) return fail("fd {} is inherited anyway", fd);
    }
    if (spec.as_pid_1 && !spec.namespaces.pid)
        return fail("the client can be pid 1 only in a pid namespace of its own");
    if (spec.as_pid_1 && (!spec.lock_files.empty() || spec.namespaces.time))
        return fail("locks and the time namespace need an init, so the client cannot be pid 1");
    const bool has_id_maps = spec.subids || !spec.uid_map.empty() || !spec.gid_map.empty();
    if (has_id_maps && !spec.namespaces.user)
        return fail("ids are mapped in a user namespace only; add \"user\" to the namespaces");
    if (has_id_maps && spec.no_more_user_namespaces)
        return fail(
            "a client that cannot make user namespaces is in a second one, which has one id; leave "
            "\"disable_userns\" out, "
            "or the other ids");
    if (spec.subids && !spec.uid_map.empty())
        return fail("the ids are either the subordinate ones or those of uid_map and gid_map; leave one out");
    if (spec.uid_map.empty() != spec.gid_map.empty()) return fail("uid_map and gid_map go together");
    if (spec.no_more_user_namespaces && !spec.namespaces.user)
        return fail("user namespaces can only be ended in one of its own; add \"user\" to the namespaces");
    if (!spec.net_path.empty() && spec.namespaces.net)
        return fail("a network namespace is either joined or new; leave \"net\" out of the namespaces");
    if ((spec.monotonic_offset != 0 || spec.boottime_offset != 0) && !spec.namespaces.time)
        return fail("offsets of clocks need the time namespace; add \"time\" to the namespaces");
    return {};
}

Status check_command(const SandboxSpec& spec) {
    if (spec.argv.empty()) return fail("no command is given");
    for (const std::string& argument : spec.argv) {
        if (argument.find('\0') != std::string::npos)
            return fail("argument \"{}\" holds a NUL byte", argument.c_str());
    }
    for (const std::string& entry : spec.env) {
        if (entry.find('=') == std::string::npos || entry.starts_with('=') ||
            entry.find('\0') != std::string::npos) {
            return fail("environment entry \"{}\" is not NAME=value", entry.c_str());
        }
    }
    return {};
}

Status check_sandbox(const SandboxSpec& spec) {
    for (const PassedFd& passed : spec.fds) {
        if (passed.name.empty() || passed.name.size() > 255 ||
            std::any_of(passed.name.begin(), passed.name.end(),
                        [](char c) { return c < ' ' || c > '~' || c == ':'; })) {
            return fail("fd {}: \"{}\" cannot be in LISTEN_FDNAMES: printable ASCII without ':' can",
                        passed.fd, passed.name);
        }
        if (::fcntl(passed.fd, F_GETFD) < 0)
            return fail("fd {} (\"{}\") is not open", passed.fd, passed.name);
    }
    if (Status alone = check_combinations(spec); !alone) return alone;
    if (spec.hostname && !spec.namespaces.uts) {
        return fail("\"hostname\" needs the uts namespace; add \"uts\" to the namespaces");
    }
    if (spec.hostname && (spec.hostname->empty() || spec.hostname->size() > 64)) {
        return fail("host name \"{}\" is not of 1 to 64 characters", *spec.hostname);
    }
    if (spec.loopback_up && !spec.namespaces.net)
        return fail("the loopback interface of the host is not ours to set up");
    for (const ResourceLimit& limit : spec.rlimits) {
        if (limit.soft > limit.hard) {
            return fail("limit {}: soft {} is above hard {}", rlimit_name(limit.resource), limit.soft,
                        limit.hard);
        }
    }
    for (const unsigned capability : spec.capabilities) {
        if (capability >= 64) return fail("capability number {} does not exist", capability);
    }
    return {};
}

bool is_root_unasked(const SandboxSpec& spec, const UserMap& map) {
    return spec.namespaces.user && map.outside_uid == 0 && spec.uid != 0 && !spec.own_ids;
}

/// A root that cannot give its client another user would leave it root to the host's files, under another
/// number.
Status check_root_outside(const SandboxSpec& spec, const UserMap& map) {
    if (!is_root_unasked(spec, map) || !id_exists("/proc/self/uid_map", spec.uid)) return {};
    return fail(
        "uid {}: a launcher that is root without CAP_SETUID and CAP_SETGID cannot give the client another "
        "user, and as root's it could read and change what is root's alone; start it with both capabilities, "
        "or as an ordinary user",
        spec.uid);
}

/// In a user namespace that has no other id than the launcher's 0, the client has that one outside. Whose
/// that is further out nobody here knows: what is for root alone is kept from it.
SandboxSpec with_own_ids(SandboxSpec spec) {
    spec.own_ids = true;
    return spec;
}

/// Opens what the launcher's rights reach further than the child's. Whatever it may not, the child tries
/// itself.
Status open_as_launcher(ChildPlan& plan, SandboxLaunch::Fds& fds) {
    plan.sources.assign(plan.mounts.steps.size(), -1);
    if (!plan.namespaces.mount || !may_open_for_child()) return {};
    for (std::size_t i = 0; i < plan.mounts.steps.size(); ++i) {
        const MountStep& step = plan.mounts.steps[i];
        if (!step.from_launcher) continue;
        StepFailure failure;
        int tree = -1;
        const bool opened = step.kind == MountStep::Kind::Overlay
                                ? make_overlay_as_launcher(step, tree, failure)
                                : open_bind(step, tree, failure);
        const int errnum = errno;
        if (tree >= 0) fds.sources.emplace_back(tree);
        plan.sources[i] = tree;
        if (!opened && errnum != EPERM && errnum != EACCES) {
            ChildReport report;
            report.step = ChildStep::Sources;
            report.errnum = errnum;
            report.item = static_cast<int>(i);
            std::strncpy(report.call, failure.call, sizeof report.call - 1);
            return Failure(explain_report(report, plan, "").error);
        }
    }
    // The host's own root is left to the child, in whose namespace what is mounted below is locked to it.
    if (!plan.mounts.root_is_tmpfs && plan.mounts.root_source != "/") {
        StepFailure failure;
        if (open_root(plan.mounts, plan.root_tree, failure)) fds.root.reset(plan.root_tree);
    }
    return {};
}

void add_environment(const SandboxSpec& spec, const ChildPlan& plan, CommandText& text) {
    text.env = spec.env;
    if (spec.tell_folder)
        std::erase_if(text.env, [](const std::string& entry) { return entry.starts_with("PWD="); });
    text.pid_variables = spec.pid_variables;
    if (!spec.fds.empty()) {
        std::string names;
        for (const PassedFd& passed : spec.fds) names += (names.empty() ? "" : ":") + passed.name;
        text.env.push_back(fmt::format("LISTEN_FDS={}", spec.fds.size()));
        text.env.push_back("LISTEN_FDNAMES=" + names);
        text.pid_variables.emplace_back("LISTEN_PID");
    }
    // Last: the child puts another of them there if it comes to be in another folder.
    if (spec.tell_folder) text.env.push_back(plan.folder_entries.back());
}

void lay_out_clocks(const SandboxSpec& spec, ChildPlan& plan) {
    plan.has_clocks = spec.namespaces.time;
    std::string lines;
    if (spec.monotonic_offset != 0) lines += fmt::format("monotonic {} 0\n", spec.monotonic_offset);
    if (spec.boottime_offset != 0) lines += fmt::format("boottime {} 0\n", spec.boottime_offset);
    lines.copy(plan.clock_offsets, sizeof plan.clock_offsets - 1);
}

std::string own_folder() {
    char* folder = ::get_current_dir_name();
    if (folder == nullptr) return "/";
    std::string result(folder);
    std::free(folder);
    // getcwd(3): a folder outside of the root is "(unreachable)/…".
    return result.starts_with('/') ? result : "/";
}

void lay_out_folders(const SandboxSpec& spec, ChildPlan& plan) {
    if (spec.cwd) {
        plan.folders = {*spec.cwd};
    } else {
        plan.folders = {own_folder()};
        const std::string_view home = variable(spec.env, "HOME");
        if (spec.root.kind == Root::Kind::Bare && home.starts_with('/')) plan.folders.emplace_back(home);
        plan.folders.emplace_back("/");
    }
    if (!spec.tell_folder) return;
    for (const std::string& folder : plan.folders) plan.folder_entries.push_back("PWD=" + folder);
}

void lay_out_fds(const SandboxSpec& spec, const SandboxLaunch::Fds& fds, ChildPlan& plan) {
    for (const PassedFd& passed : spec.fds) plan.fds.push_back(passed.fd);
    plan.moved_fds.assign(plan.fds.size(), -1);
    plan.report_pipe = fds.report_write.get();
    plan.status_pipe = fds.status_write.get();
    plan.go_pipe = fds.go_read.get();
    plan.launcher_pidfd = fds.launcher.get();
    plan.proc = fds.proc.get();
    plan.late_user_fd = spec.late_user_fd;
    plan.block_fd = spec.block_fd;
    plan.init_fds.reserve(spec.lock_files.size() + 2);
    plan.init_fds.push_back(plan.status_pipe);
    if (spec.sync_fd >= 0) plan.init_fds.push_back(spec.sync_fd);
    std::vector<int> data;
    for (const MountStep& step : plan.mounts.steps) data.push_back(step.fd);
    for (const int fd : spec.inherited_fds) plan.inherited_fds.push_back(static_cast<unsigned>(fd));
    std::sort(plan.inherited_fds.begin(), plan.inherited_fds.end());
    for (const std::vector<int>& group :
         {plan.fds, plan.sources, spec.inherited_fds, data,
          std::vector<int>{spec.late_user_fd, spec.block_fd, spec.sync_fd, plan.report_pipe, plan.status_pipe,
                           plan.go_pipe, plan.launcher_pidfd, plan.proc, plan.command.target_tree,
                           plan.command_socket, plan.root_tree}}) {
        for (const int fd : group) {
            if (fd >= 0) plan.kept_fds.push_back(static_cast<unsigned>(fd));
        }
    }
    std::sort(plan.kept_fds.begin(), plan.kept_fds.end());
}

std::uint64_t clone_flags(const Namespaces& namespaces) {
    std::uint64_t flags = CLONE_PIDFD;
    if (namespaces.user) flags |= CLONE_NEWUSER;
    if (namespaces.pid) flags |= CLONE_NEWPID;
    if (namespaces.mount) flags |= CLONE_NEWNS;
    if (namespaces.net) flags |= CLONE_NEWNET;
    if (namespaces.ipc) flags |= CLONE_NEWIPC;
    if (namespaces.uts) flags |= CLONE_NEWUTS;
    // Not the time namespace: one that is entered by the clone has no offsets and gets none any more.
    return flags;
}

Status make_user_map_of(const SandboxSpec& spec, const ChildPlan& plan, pid_t init) {
    if (!spec.namespaces.user) return {};
    if (spec.await_user_map) return spec.await_user_map(init);
    return write_user_map(init, plan.user);
}

/// A hard limit above the child's can only be had from outside its user namespace.
Status raise_hard_limits(pid_t pid, const std::vector<ResourceLimit>& limits) {
    for (const ResourceLimit& limit : limits) {
        rlimit64 current = {};
        if (sys::prlimit(pid, limit.resource, nullptr, &current) != 0 || current.rlim_max >= limit.hard)
            continue;
        const rlimit64 raised = {current.rlim_cur, limit.hard};
        if (sys::prlimit(pid, limit.resource, &raised, nullptr) != 0) {
            const int errnum = errno;
            return fail_errno(
                errnum,
                "limit {}: hard {} is above the launcher's own {}, which takes CAP_SYS_RESOURCE; lower it or "
                "raise the launcher's (ulimit -H)",
                rlimit_name(limit.resource), limit.hard, current.rlim_max);
        }
    }
    return {};
}

/// Lets the child go on. One that has failed already has closed its end, and its report says why: then
/// SIGPIPE must not be the launcher's end.
void let_go(int go_pipe) {
    sigset_t pipe_signal;
    sigset_t before;
    ::sigemptyset(&pipe_signal);
    ::sigaddset(&pipe_signal, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    if (::write(go_pipe, "g", 1) != 1) {
        const timespec now = {0, 0};
        ::sigtimedwait(&pipe_signal, nullptr, &now);
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool read_fully(int fd, void* data, std::size_t size) {
    auto* bytes = static_cast<char*>(data);
    std::size_t done = 0;
    while (done < size) {
        const ssize_t got = ::read(fd, bytes + done, size - done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        done += static_cast<std::size_t>(got);
    }
    return true;
}

/// Whether the start may last as long as somebody else wants.
bool may_wait(const SandboxSpec& spec, const MountPlan& mounts) {
    return spec.block_fd >= 0 ||
           std::any_of(mounts.steps.begin(), mounts.steps.end(), [](const MountStep& step) {
               return step.kind == MountStep::Kind::File || step.kind == MountStep::Kind::Data;
           });
}

/// Waits until the child has something to say. Returns the signal that asks the launcher to end meanwhile,
/// which stays pending for whoever has blocked it; 0: none did.
int await_report(int report) {
    sigset_t ending;
    ::sigemptyset(&ending);
    for (const int signal : kEndingSignals) ::sigaddset(&ending, signal);
    const UniqueFd signals(::signalfd(-1, &ending, SFD_CLOEXEC));
    std::array<pollfd, 2> polled = {pollfd{report, POLLIN, 0}, pollfd{signals.get(), POLLIN, 0}};
    while (::poll(polled.data(), polled.size(), -1) < 0 && errno == EINTR) {
    }
    if (polled[0].revents != 0) return 0;
    sigset_t pending;
    ::sigpending(&pending);
    for (const int signal : kEndingSignals) {
        if (::sigismember(&pending, signal) == 1) return signal;
    }
    return 0;
}

/// Waits until the process behind `pidfd` is gone; what waitid(2) says of it.
siginfo_t await_end(int pidfd, int more_flags = 0) {
    siginfo_t info = {};
    while (::waitid(P_PIDFD, static_cast<id_t>(pidfd), &info, WEXITED | more_flags) != 0 && errno == EINTR) {
    }
    return info;
}

/// cgroup.kill (Linux 5.14), then until nothing is left in it; only for sandboxes without a pid namespace.
void empty_cgroup(int cgroup) {
    const UniqueFd killer(::openat(cgroup, "cgroup.kill", O_WRONLY | O_CLOEXEC));
    if (!killer || ::write(killer.get(), "1", 1) != 1) return;
    const UniqueFd events(::openat(cgroup, "cgroup.events", O_RDONLY | O_CLOEXEC));
    if (!events) return;
    while (true) {
        char text[128] = {};
        if (::pread(events.get(), text, sizeof text - 1, 0) <= 0) return;
        if (std::strstr(text, "populated 0") != nullptr) return;
        // kernfs: POLLPRI on a change; the time-out only guards against one between the read and the poll.
        pollfd changed = {events.get(), POLLPRI, 0};
        ::poll(&changed, 1, 100);
    }
}

}  // namespace

bool may_open_for_child() {
    constexpr std::uint64_t admin = std::uint64_t{1} << CAP_SYS_ADMIN;
    return (sys::permitted_capabilities() & admin) != 0;
}

/// The host's own view decides for the host's root; any other root is searched by the child.
tl::expected<CommandText, LaunchError> find_command(const SandboxSpec& spec, const ChildPlan& plan,
                                                    UniqueFd& target) {
    if (Status valid = check_command(spec); !valid) return refuse(std::move(valid));
    CommandText text;
    text.argv = spec.argv;
    if (spec.argv0) text.argv.front() = *spec.argv0;
    add_environment(spec, plan, text);
    const std::string& command = spec.argv.front();
    if (command.empty())
        return tl::unexpected(LaunchError{Error{"the command is an empty string", ENOENT}, 127});
    if (!plan.mounts.is_host_root && spec.namespaces.mount) {
        std::string_view path = variable(spec.env, "PATH");
        if (path.empty()) path = kDefaultSearchPath;
        text.candidates = exec_candidates(command, std::string(path));
        return text;
    }
    const char* path = std::getenv("PATH");
    auto found = find_exec_target(command, path != nullptr ? path : std::string(kDefaultSearchPath));
    if (!found) return tl::unexpected(std::move(found.error()));
    text.has_target = true;
    text.candidates = {found->path};
    text.target_device = found->device;
    text.target_inode = found->inode;
    text.target_is_script = found->is_script;
    if (spec.namespaces.mount && may_open_for_child()) {
        StepFailure failure;
        int tree = -1;
        if (open_target(found->path.c_str(), tree, failure)) target.reset(tree);
        text.target_tree = tree;
    }
    return text;
}

tl::expected<void, LaunchError> begin_launch(SandboxLaunch& launch) {
    const SandboxSpec& spec = launch.spec;
    ChildPlan& plan = launch.plan;
    SandboxLaunch::Fds& fds = launch.fds;
    if (Status valid = check_sandbox(spec); !valid) return refuse(std::move(valid));

    plan.namespaces = spec.namespaces;
    auto user = choose_user_map(spec);
    if (!user) return refuse(std::move(user));
    plan.user = std::move(*user);
    if (Status safe = check_root_outside(spec, plan.user); !safe) return refuse(std::move(safe));
    if (auto mounts =
            is_root_unasked(spec, plan.user) ? make_mount_plan(with_own_ids(spec)) : make_mount_plan(spec)) {
        plan.mounts = std::move(*mounts);
    } else {
        return refuse(std::move(mounts));
    }
    plan.set_hostname = spec.hostname.has_value();
    plan.hostname = spec.hostname.value_or("");
    plan.loopback_up = spec.loopback_up;
    plan.new_session = spec.new_session;
    plan.new_keyring = spec.new_keyring;
    plan.no_new_privs = spec.no_new_privs;
    // restrict_self(2) wants one of: no_new_privs, CAP_SYS_ADMIN. That the scopes need it is nobody's error.
    if (spec.landlock.is_asked_for() || (spec.landlock.has_scopes() && spec.no_new_privs)) {
        auto landlock = make_landlock_plan(spec.landlock, landlock::abi());
        if (!landlock) return refuse(std::move(landlock));
        plan.landlock = std::move(*landlock);
    }
    for (const unsigned capability : spec.capabilities) plan.capabilities |= std::uint64_t{1} << capability;
    plan.limits = spec.rlimits;
    plan.seccomp = spec.seccomp;
    plan.keep_capabilities = spec.keep_capabilities;
    plan.make_targets = spec.make_targets;
    plan.as_pid_1 = spec.as_pid_1;
    plan.tell_cpu_time = spec.cpu_limit.has_value();
    plan.may_wait = may_wait(spec, plan.mounts);
    plan.no_more_user_namespaces = spec.no_more_user_namespaces;
    plan.assert_no_more_user_namespaces = spec.assert_no_more_user_namespaces;
    plan.lock_files = spec.lock_files;
    lay_out_clocks(spec, plan);
    plan.own_devices.reserve(plan.mounts.steps.size() + 1);

    lay_out_folders(spec, plan);
    if (plan.command_socket < 0) {
        auto text = find_command(spec, plan, fds.target);
        if (!text) return tl::unexpected(std::move(text.error()));
        launch.command.resize(text->size());
        plan.command = text->lay_out(launch.command.data());
        if (spec.tell_folder) plan.folder_entry = &plan.command.env[text->env.size() - 1];
    }
    if (Status opened = open_as_launcher(plan, fds); !opened)
        return tl::unexpected(LaunchError{opened.error(), 125});
    for (auto [read_end, write_end] :
         {std::pair{&fds.report_read, &fds.report_write}, std::pair{&fds.status_read, &fds.status_write},
          std::pair{&fds.go_read, &fds.go_write}}) {
        if (Status opened = open_pipe(*read_end, *write_end); !opened) return refuse(std::move(opened));
    }
    fds.launcher.reset(sys::pidfd_open(::getpid()));
    if (!fds.launcher) {
        const int errnum = errno;
        return refuse(fail_errno(errnum, "pidfd_open"));
    }
    fds.proc = open_own_proc();
    plan.tell_namespaces = spec.tell_namespaces;
    lay_out_fds(spec, fds, plan);

    RunningClient& client = launch.client;
    client.own_session_ = spec.new_session;
    client.is_init_ = spec.as_pid_1;
    client.time_limit_ = spec.time_limit;
    client.cpu_limit_ = spec.cpu_limit;
    if (!spec.namespaces.pid && spec.cgroup_fd >= 0) {
        client.cgroup_.reset(::fcntl(spec.cgroup_fd, F_DUPFD_CLOEXEC, 3));
    }

    int pidfd = -1;
    clone_args arguments_of_clone = {};
    arguments_of_clone.flags = clone_flags(spec.namespaces);
    arguments_of_clone.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
    arguments_of_clone.exit_signal = SIGCHLD;
    if (spec.cgroup_fd >= 0) {
        arguments_of_clone.flags |= CLONE_INTO_CGROUP;
        arguments_of_clone.cgroup = static_cast<std::uint64_t>(spec.cgroup_fd);
    }
    std::optional<BorrowedNetwork> network(std::in_place);
    if (Status joined = network->join(spec.net_path); !joined) return refuse(std::move(joined));
    // Why blocked: no handler of the launcher's may run in the child, and init wants all signals to wait for
    // it.
    std::uint64_t old_mask = 0;
    sys::set_signal_mask(sys::kAllSignals, &old_mask);
    const long pid = sys::clone3(arguments_of_clone);
    if (pid == 0) run_child(plan);
    const int clone_errnum = errno;
    network.reset();
    sys::set_signal_mask(old_mask, nullptr);
    if (pid < 0) {
        return tl::unexpected(
            explain_clone_error(clone_errnum, spec.namespaces, spec.cgroup_fd, read_user_namespace_rules()));
    }
    // From here on every way out kills the child and waits for it: ~RunningClient.
    client.init_pid_ = static_cast<pid_t>(pid);
    client.pidfd_.reset(pidfd);
    client.status_pipe_ = std::move(fds.status_read);
    // Its own copy of that end: a child that has failed already has closed the other, and is not written to.
    fds.go_read.reset();

    Status& prepared = launch.prepared;
    prepared = make_user_map_of(spec, plan, client.init_pid_);
    if (!prepared) prepared = Failure(explain_map_error(prepared.error(), read_user_namespace_rules()));
    if (prepared) prepared = raise_hard_limits(client.init_pid_, spec.rlimits);
    if (prepared) let_go(fds.go_write.get());
    // Why only now: the child waits for nothing of this.
    fds.go_write.reset();
    fds.report_write.reset();
    fds.status_write.reset();
    return {};
}

tl::expected<RunningClient, LaunchError> end_launch(SandboxLaunch& launch, const std::string& command) {
    const SandboxSpec& spec = launch.spec;
    const ChildPlan& plan = launch.plan;
    const SandboxLaunch::Fds& fds = launch.fds;
    RunningClient& client = launch.client;
    Status& prepared = launch.prepared;
    // Why the report counts first: a child that has failed already is a reason for what failed here.
    ChildReport report;
    if (const int signal = plan.may_wait ? await_report(fds.report_read.get()) : 0; signal != 0) {
        return tl::unexpected(LaunchError{
            Error{fmt::format("sandbox: signal {} asked postern to end before the client ran", signal),
                  EINTR},
            128 + signal});
    }
    bool has_failed = read_fully(fds.report_read.get(), &report, sizeof report);
    if (has_failed && report.step == ChildStep::Ready && report.errnum == 0)
        has_failed = read_fully(fds.report_read.get(), &report, sizeof report);
    if (has_failed) {
        return tl::unexpected(explain_report(report, plan, command, read_user_namespace_rules()));
    }
    if (!prepared || (fds.proc && !client.read_identity())) {
        // A map cannot be given to one that is dead.
        const CgroupEvents events = read_cgroup_events(spec.cgroup_fd);
        if (!prepared && events.oom_kills == 0) return refuse(std::move(prepared));
        return tl::unexpected(explain_early_end(events));
    }
    client.started_ = std::chrono::steady_clock::now();
    return std::move(client);
}

tl::expected<RunningClient, LaunchError> start_sandbox(const SandboxSpec& spec) {
    SandboxLaunch launch(spec);
    if (auto begun = begin_launch(launch); !begun) return tl::unexpected(std::move(begun.error()));
    return end_launch(launch, spec.argv.front());
}

/// The clock is the one that the kernel looks at for its limits: what a signal came too early for is
/// somebody else's.
ClientExit RunningClient::to_exit(const ExitRecord& record) const {
    if (record.code == CLD_EXITED) return {ClientExit::Kind::Exited, record.value};
    const std::chrono::nanoseconds used(record.cpu_time);
    if (cpu_limit_ && ((record.value == SIGXCPU && used >= *cpu_limit_) ||
                       (record.value == SIGKILL && used >= *cpu_limit_ + std::chrono::seconds(1))))
        return {ClientExit::Kind::CpuLimit, record.value};
    return {ClientExit::Kind::Signaled, record.value};
}

/// It was written before exec, so it is there; unless something killed the client before, and then init's
/// word comes first, or none does.
bool RunningClient::read_identity() {
    StatusRecord record;
    if (!read_fully(status_pipe_.get(), &record, sizeof record)) return false;
    if (record.kind == StatusRecord::Kind::Identity) {
        identity_ = record.identity;
    } else {
        exit_ = to_exit(record.exit);
    }
    return true;
}

RunningClient RunningClient::behind(pid_t pid, UniqueFd pidfd, UniqueFd status_pipe,
                                    const ClientIdentity& identity, const Limits& limits) {
    RunningClient client;
    client.init_pid_ = pid;
    client.pidfd_ = std::move(pidfd);
    client.status_pipe_ = std::move(status_pipe);
    client.identity_ = identity;
    client.started_ = std::chrono::steady_clock::now();
    client.time_limit_ = limits.time;
    client.cpu_limit_ = limits.cpu;
    client.own_session_ = limits.own_session;
    return client;
}

RunningClient& RunningClient::operator=(RunningClient&& other) noexcept {
    if (this == &other) return *this;
    if (pidfd_) {
        kill();
        wait();
    }
    init_pid_ = other.init_pid_;
    pidfd_ = std::move(other.pidfd_);
    status_pipe_ = std::move(other.status_pipe_);
    identity_ = other.identity_;
    exit_ = other.exit_;
    cgroup_ = std::move(other.cgroup_);
    started_ = other.started_;
    time_limit_ = other.time_limit_;
    cpu_limit_ = other.cpu_limit_;
    own_session_ = other.own_session_;
    is_init_ = other.is_init_;
    return *this;
}

RunningClient::~RunningClient() {
    if (!pidfd_) return;
    kill();
    wait();
}

Result<pid_t> RunningClient::client_pid() const {
    const UniqueFd children(
        ::open(fmt::format("/proc/{0}/task/{0}/children", init_pid_).c_str(), O_RDONLY | O_CLOEXEC));
    // The first child is the oldest: the client. Daemons that init adopts come after it.
    std::array<char, 32> text = {};
    if (!children || ::read(children.get(), text.data(), text.size() - 1) <= 0)
        return fail("the client is gone");
    return static_cast<pid_t>(std::strtol(text.data(), nullptr, 10));
}

Status RunningClient::send(int signal) {
    if (sys::pidfd_send_signal(pidfd_.get(), signal) == 0) return {};
    const int errnum = errno;
    return fail_errno(errnum, "sending signal {} to the client", signal);
}

void RunningClient::kill() {
    sys::pidfd_send_signal(pidfd_.get(), SIGKILL);
}

bool RunningClient::was_killed(const ClientExit& exit) const {
    // Of a client that is pid 1 there is nobody else to tell; only from outside can it be killed.
    return exit.kind == ClientExit::Kind::Lost ||
           (is_init_ && exit.kind == ClientExit::Kind::Signaled && exit.value == SIGKILL);
}

ClientExit RunningClient::wait() {
    std::int64_t cpu_time = -1;
    if (is_init_ && cpu_limit_) {
        await_end(pidfd_.get(), WNOWAIT);
        cpu_time = sys::cpu_time(init_pid_);
    }
    const siginfo_t end = await_end(pidfd_.get());
    StatusRecord record;
    ClientExit result{ClientExit::Kind::Lost, SIGKILL};
    if (exit_) {
        result = *exit_;
    } else if (read_fully(status_pipe_.get(), &record, sizeof record)) {
        result = to_exit(record.exit);
    } else if (is_init_) {
        result = to_exit({end.si_code, end.si_status, cpu_time});
    } else if (end.si_code == CLD_KILLED) {
        result.value = end.si_status;
    }
    if (cgroup_) empty_cgroup(cgroup_.get());
    pidfd_.reset();
    status_pipe_.reset();
    cgroup_.reset();
    return result;
}

}  // namespace postern
