// SPDX-License-Identifier: Apache-2.0
#include "launcher/child.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "launcher/child_tree.h"
#include "launcher/init.h"
#include "launcher/landlock_uapi.h"
#include "launcher/syscalls.h"

namespace postern {
namespace {

/// What the steps pass on to each other.
struct Child {
    ChildPlan& plan;
    StepFailure failure = {};
    int root = -1;
    bool found = false;      ///< a command was there
    bool is_script = false;  ///< it is a script, and hidden
    const char* exec_path = nullptr;
    pid_t init = 0;
    pid_t client = 0;
};

bool failed(Child& child, const char* call, int item = -1) {
    child.failure.call = call;
    child.failure.item = item;
    return false;
}

bool check(Child& child, long result, const char* call, int item = -1) {
    return result >= 0 || failed(child, call, item);
}

bool close_fds(Child& child) {
    unsigned next = 3;
    for (const unsigned kept : child.plan.kept_fds) {
        if (kept > next && !check(child, sys::close_range(next, kept - 1, 0), "close_range")) return false;
        if (kept >= next) next = kept + 1;
    }
    return check(child, sys::close_range(next, ~0U, 0), "close_range");
}

bool reset_signals(Child& child) {
    // Modes are what the plan says, until the client runs.
    child.plan.umask = static_cast<int>(::umask(0));
    for (int signal = 1; signal <= 64; ++signal) {
        // Errors are those of SIGKILL and SIGSTOP.
        if (signal != SIGKILL && signal != SIGSTOP) sys::reset_signal(signal);
    }
    return true;
}

bool new_cgroup_namespace(Child& child) {
    return !child.plan.namespaces.cgroup || check(child, ::unshare(CLONE_NEWCGROUP), "unshare");
}

bool cut_propagation(Child& child) {
    if (!child.plan.namespaces.mount) return true;
    return check(child, ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "mount");
}

bool open_sources(Child& child) {
    ChildPlan& plan = child.plan;
    if (!plan.namespaces.mount) return true;
    for (std::size_t i = 0; i < plan.mounts.steps.size(); ++i) {
        const MountStep& step = plan.mounts.steps[i];
        if (step.kind != MountStep::Kind::Bind || plan.sources[i] >= 0) continue;
        if (open_bind(step, plan.sources[i], child.failure)) continue;
        child.failure.item = static_cast<int>(i);
        return false;
    }
    if (plan.command.has_target && plan.command.target_tree < 0) {
        return open_target(plan.command.candidates[0], plan.command.target_tree, child.failure);
    }
    return true;
}

bool await_launcher(Child& child) {
    char byte = 0;
    const ssize_t got = ::read(child.plan.go_pipe, &byte, 1);
    if (got == 1) return true;
    // The launcher gave up or is gone: nobody is left to tell.
    if (got == 0) ::_exit(125);
    return failed(child, "read");
}

bool become_client_user(Child& child) {
    const ChildPlan& plan = child.plan;
    // Without a user namespace of our own, leaving uid 0 would take the capabilities that the mounts below
    // need.
    if (!plan.namespaces.user && !check(child, ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl")) return false;
    if (plan.user.may_set_groups && !plan.user.keep_groups &&
        !check(child, sys::setgroups(0, nullptr), "setgroups"))
        return false;
    if (!check(child, sys::setresgid(plan.user.inside_gid), "setresgid")) return false;
    if (!check(child, sys::setresuid(plan.user.inside_uid), "setresuid")) return false;
    if (!plan.namespaces.user) {
        const std::uint64_t permitted = sys::permitted_capabilities();
        if (!check(child, sys::capset(permitted, permitted, 0), "capset")) return false;
    }
    // Until exec this is a copy of the launcher's memory, and from here on it has a uid that others may have
    // too.
    return check(child, ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl");
}

bool make_overlays(Child& child) {
    ChildPlan& plan = child.plan;
    for (std::size_t i = 0; i < plan.mounts.steps.size(); ++i) {
        const MountStep& step = plan.mounts.steps[i];
        if (step.kind != MountStep::Kind::Overlay || plan.sources[i] >= 0) continue;
        if (make_overlay_as_client(step, plan.namespaces.user, plan.sources[i], child.failure)) continue;
        child.failure.item = static_cast<int>(i);
        return false;
    }
    return true;
}

bool new_root(Child& child) {
    if (!child.plan.namespaces.mount) return true;
    child.root = child.plan.root_tree;
    return make_new_root(child.plan.mounts, child.plan, child.root, child.failure);
}

bool mounts(Child& child) {
    return !child.plan.namespaces.mount || attach_mounts(child.plan, child.root, child.failure);
}

bool seal_root(Child& child) {
    if (!child.plan.mounts.seal_root) return true;
    mount_attr wanted = {};
    wanted.attr_set = MOUNT_ATTR_RDONLY;
    return check(child, sys::mount_setattr(child.root, "", AT_EMPTY_PATH, wanted), "mount_setattr");
}

bool pivot(Child& child) {
    return !child.plan.namespaces.mount || enter_root(child.plan, child.root, child.failure);
}

bool set_hostname(Child& child) {
    const ChildPlan& plan = child.plan;
    return !plan.set_hostname ||
           check(child, ::sethostname(plan.hostname.data(), plan.hostname.size()), "sethostname");
}

bool loopback_up(Child& child) {
    if (!child.plan.loopback_up) return true;
    const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket < 0) return failed(child, "socket");
    ifreq request = {};
    std::memcpy(request.ifr_name, "lo", sizeof "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    const bool up = check(child, ::ioctl(socket, SIOCSIFFLAGS, &request), "ioctl");
    const int errnum = errno;
    ::close(socket);
    errno = errnum;
    return up;
}

/// Children are born into it, not this process. /proc is the launcher's still.
bool new_clocks(Child& child) {
    if (!child.plan.has_clocks) return true;
    if (!check(child, ::unshare(CLONE_NEWTIME), "unshare")) return false;
    const std::size_t length = std::strlen(child.plan.clock_offsets);
    if (length == 0) return true;
    const int file = ::open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
    if (file < 0) return failed(child, "open");
    const bool set = check(child, ::write(file, child.plan.clock_offsets, length), "write");
    const int errnum = errno;
    ::close(file);
    errno = errnum;
    return set;
}

/// By this process, which becomes init: a lock of fcntl(2) is its maker's alone.
bool take_locks(Child& child) {
    ChildPlan& plan = child.plan;
    for (std::size_t i = 0; i < plan.lock_files.size(); ++i) {
        const int file = ::open(plan.lock_files[i].c_str(), O_RDONLY | O_CLOEXEC);
        if (file < 0) return failed(child, "open", static_cast<int>(i));
        struct flock lock = {};
        lock.l_type = F_RDLCK;
        lock.l_whence = SEEK_SET;
        if (::fcntl(file, F_SETLK, &lock) != 0) return failed(child, "fcntl", static_cast<int>(i));
        // Capacity was reserved by the launcher: this does not allocate.
        plan.init_fds.push_back(file);
    }
    return true;
}

bool enter_user_namespace(Child& child) {
    return child.plan.late_user_fd < 0 ||
           check(child, ::setns(child.plan.late_user_fd, CLONE_NEWUSER), "setns");
}

void write_decimal(char* out, pid_t value) {
    char digits[12];
    int count = 0;
    do digits[count++] = static_cast<char>('0' + value % 10);
    while ((value /= 10) > 0);
    while (count > 0) *out++ = digits[--count];
    *out = '\0';
}

bool write_file(int folder, const char* path, const char* text, std::size_t length) {
    const int file = ::openat(folder, path, O_WRONLY | O_CLOEXEC);
    if (file < 0) return false;
    const bool written = ::write(file, text, length) == static_cast<ssize_t>(length);
    const int errnum = errno;
    ::close(file);
    errno = errnum;
    return written;
}

/// "ID ID 1": an id keeps its number one namespace further in.
bool map_same_id(int proc, const char* path, unsigned id) {
    char line[32];
    char* end = line;
    for (int i = 0; i < 2; ++i) {
        write_decimal(end, static_cast<pid_t>(id));
        end += std::strlen(end);
        *end++ = ' ';
    }
    *end++ = '1';
    return write_file(proc, path, line, static_cast<std::size_t>(end - line));
}

/// The limit is of the namespace that this process is in, and counts those made below it. The client gets the
/// one that may still be made, in which it has no right to the limit: it cannot raise it again, and what it
/// makes itself would be one too many.
bool no_more_user_namespaces(Child& child) {
    const ChildPlan& plan = child.plan;
    if (plan.no_more_user_namespaces) {
        // The maps of what is not dumpable are root's. Who could look into this process now would need
        // capabilities in its user namespace, and nobody else is in there.
        if (!check(child, ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")) return false;
        if (!write_file(plan.proc, "sys/user/max_user_namespaces", "1", 1)) return failed(child, "write");
        if (!check(child, ::unshare(CLONE_NEWUSER), "unshare")) return false;
        if (!write_file(plan.proc, "self/setgroups", "deny", 4) && errno != EPERM)
            return failed(child, "write");
        if (!map_same_id(plan.proc, "self/uid_map", plan.user.inside_uid) ||
            !map_same_id(plan.proc, "self/gid_map", plan.user.inside_gid)) {
            return failed(child, "write");
        }
        if (!check(child, ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")) return false;
    }
    if (!plan.no_more_user_namespaces && !plan.assert_no_more_user_namespaces) return true;
    if (::unshare(CLONE_NEWUSER) != 0) return true;
    errno = EEXIST;
    return failed(child, "unshare");
}

bool drop_bounding_set(Child& child) {
    if (child.plan.keep_capabilities) return true;
    for (unsigned capability = 0; capability < 64; ++capability) {
        if ((child.plan.capabilities >> capability & 1) != 0) continue;
        if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) continue;
        if (errno == EINVAL) return true;  // one past the last that this kernel has
        return failed(child, "prctl", static_cast<int>(capability));
    }
    return true;
}

bool die_with_launcher(Child& child) {
    if (!check(child, ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "prctl")) return false;
    pollfd launcher = {child.plan.launcher_pidfd, POLLIN, 0};
    if (::poll(&launcher, 1, 0) > 0) ::_exit(125);
    return true;
}

int run_client(void* child);

/// What its steps need, many times over. Each launch has its own: this process is a copy of the launcher.
alignas(16) char client_stack[std::size_t{64} << 10];

/// Borrowing init's memory until exec saves the copy of it, which is what most of a fork is. Init stands
/// still meanwhile, and gives up what it holds only then: so not with a client that has capabilities, with
/// which it could reach into init before that.
int fork_flags(const ChildPlan& plan) {
    const bool has_capabilities = plan.keep_capabilities || plan.capabilities != 0;
    return has_capabilities ? SIGCHLD : SIGCHLD | CLONE_VM | CLONE_VFORK;
}

bool fork_client(Child& child) {
    if (child.plan.as_pid_1) return true;
    // Why before the clone: afterwards the client may be quicker to look than init to name itself. Exec names
    // the client anew.
    if (!check(child, ::prctl(PR_SET_NAME, "postern-init", 0, 0, 0), "prctl")) return false;
    child.init = ::getpid();
    child.client = ::clone(run_client, client_stack + sizeof client_stack, fork_flags(child.plan), &child);
    return check(child, child.client, "clone");
}

bool die_with_init(Child& child) {
    // In a pid namespace init's end is everybody's already.
    if (child.plan.namespaces.pid || child.plan.as_pid_1) return true;
    if (!check(child, ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "prctl")) return false;
    if (::getppid() != child.init) ::_exit(125);
    return true;
}

/// Never an error: a launch does not depend on what is told here.
bool introduce(Child& child) {
    const ChildPlan& plan = child.plan;
    if (plan.proc < 0) return true;
    StatusRecord record;
    record.kind = StatusRecord::Kind::Identity;
    char digits[12] = {};
    const ssize_t length = ::readlinkat(plan.proc, "self", digits, sizeof digits - 1);
    for (ssize_t i = 0; i < length; ++i) record.identity.pid = record.identity.pid * 10 + (digits[i] - '0');
    for (std::size_t i = 0; plan.tell_namespaces && i < kNamespaceLinks.size(); ++i) {
        struct stat status = {};
        if (::fstatat(plan.proc, kNamespaceLinks[i], &status, 0) == 0)
            record.identity.namespaces[i] = status.st_ino;
    }
    [[maybe_unused]] const ssize_t written = ::write(plan.status_pipe, &record, sizeof record);
    return true;
}

bool new_session(Child& child) {
    return !child.plan.new_session || check(child, ::setsid(), "setsid");
}

/// A session keyring goes along through every clone and exec, into other user namespaces too.
bool leave_keyring(Child& child) {
    if (!child.plan.new_keyring) return true;
    if (::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) >= 0) return true;
    // A kernel without keys, or a filter around the launcher: the client cannot ask for any either.
    return errno == ENOSYS || errno == EPERM || failed(child, "keyctl");
}

/// Moves `fd` to `lowest` or above, where no fd of the client's goes.
bool move_up(Child& child, int& fd, int lowest) {
    if (fd < 0 || fd >= lowest) return true;
    const int moved = ::fcntl(fd, F_DUPFD_CLOEXEC, lowest);
    if (moved < 0) return failed(child, "fcntl");
    fd = moved;
    return true;
}

bool place_fds(Child& child) {
    ChildPlan& plan = child.plan;
    const int end = 3 + static_cast<int>(plan.fds.size());
    if (!move_up(child, plan.report_pipe, end) || !move_up(child, plan.command_socket, end) ||
        !move_up(child, plan.command.target_tree, end))
        return false;
    // All of them out of the way first: what one becomes may be what another still is.
    for (std::size_t i = 0; i < plan.fds.size(); ++i) {
        plan.moved_fds[i] = ::fcntl(plan.fds[i], F_DUPFD_CLOEXEC, end);
        if (plan.moved_fds[i] < 0) return failed(child, "fcntl", static_cast<int>(i));
    }
    for (std::size_t i = 0; i < plan.fds.size(); ++i) {
        if (::dup2(plan.moved_fds[i], 3 + static_cast<int>(i)) < 0)
            return failed(child, "dup2", static_cast<int>(i));
    }
    auto next = static_cast<unsigned>(end);
    for (const unsigned kept : plan.inherited_fds) {
        if (!check(child, sys::close_range(next, kept - 1, CLOSE_RANGE_CLOEXEC), "close_range")) return false;
        next = kept + 1;
    }
    return check(child, sys::close_range(next, ~0U, CLOSE_RANGE_CLOEXEC), "close_range");
}

/// Nothing of the launcher's but the streams and the target comes in; the streams are those of this moment.
bool await_command(Child& child) {
    ChildPlan& plan = child.plan;
    if (plan.command_socket < 0) return true;
    constexpr std::size_t kMostFds = 3;
    alignas(cmsghdr) char control[CMSG_SPACE(kMostFds * sizeof(int))] = {};
    char byte = 0;
    iovec data = {&byte, 1};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(plan.command_socket, &message, MSG_CMSG_CLOEXEC);
    // The launcher gave up or is gone: nobody is left to tell.
    if (got == 0) ::_exit(125);
    if (got < 0) return failed(child, "recvmsg");
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    int fds[kMostFds] = {-1, -1, -1};
    const std::size_t size = header != nullptr ? header->cmsg_len - CMSG_LEN(0) : 0;
    if (header == nullptr || header->cmsg_type != SCM_RIGHTS || (message.msg_flags & MSG_CTRUNC) != 0 ||
        size < 2 * sizeof(int) || size > sizeof fds) {
        errno = EBADMSG;
        return failed(child, "recvmsg");
    }
    std::memcpy(fds, CMSG_DATA(header), size);
    for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
        if (!check(child, ::dup2(fds[stream - STDOUT_FILENO], stream), "dup2")) return false;
    }
    plan.command = *plan.late_command;
    plan.command.target_tree = fds[2];
    return true;
}

bool set_limits(Child& child) {
    for (std::size_t i = 0; i < child.plan.limits.size(); ++i) {
        const ResourceLimit& limit = child.plan.limits[i];
        const rlimit64 wanted = {limit.soft, limit.hard};
        if (!check(child, sys::prlimit(0, limit.resource, &wanted, nullptr), "prlimit64",
                   static_cast<int>(i))) {
            return false;
        }
    }
    return true;
}

bool await_go_ahead(Child& child) {
    const int fd = child.plan.block_fd;
    if (fd < 0) return true;
    char byte = 0;
    if (!check(child, ::read(fd, &byte, 1), "read")) return false;
    ::close(fd);
    return true;
}

bool enter_folder(Child& child) {
    ChildPlan& plan = child.plan;
    ::umask(static_cast<mode_t>(plan.umask));
    for (std::size_t i = 0; i < plan.folders.size(); ++i) {
        if (::chdir(plan.folders[i].c_str()) != 0) continue;
        if (plan.folder_entry != nullptr) *plan.folder_entry = plan.folder_entries[i].data();
        return true;
    }
    return plan.folders.empty() || failed(child, "chdir");
}

bool is_target(const char* path, const ChildCommand& command) {
    struct stat status = {};
    return ::stat(path, &status) == 0 && status.st_dev == command.target_device &&
           status.st_ino == command.target_inode;
}

bool choose_command(Child& child) {
    const ChildCommand& command = child.plan.command;
    for (char* const* digits = command.pid_digits; *digits != nullptr; ++digits)
        write_decimal(*digits, ::getpid());
    if (!command.has_target) return true;
    child.found = true;
    const char* path = command.candidates[0];
    if (is_target(path, command) || command.target_tree < 0) {
        child.exec_path = path;
        return true;
    }
    if (!command.target_is_script) return true;
    child.is_script = true;
    errno = ENOEXEC;
    return failed(child, "execveat");
}

bool allow_path(Child& child, int ruleset, int item) {
    const LandlockPlan::Path& rule = child.plan.landlock.paths[static_cast<std::size_t>(item)];
    const int file = ::open(rule.path.c_str(), O_PATH | O_CLOEXEC);
    if (file < 0) return failed(child, "open", item);
    struct stat status = {};
    if (::fstat(file, &status) != 0) return failed(child, "fstat", item);
    const std::uint64_t access = S_ISDIR(status.st_mode) ? rule.access : rule.access & landlock::kOfFiles;
    const landlock::PathBeneathAttr attr = {access, file};
    // A rule that allows nothing is an error to the kernel.
    if (access != 0 && landlock::add_rule(ruleset, landlock::kRulePathBeneath, &attr) != 0)
        return failed(child, "landlock_add_rule", item);
    return check(child, ::close(file), "close");
}

bool make_landlock_domain(Child& child) {
    const LandlockPlan& plan = child.plan.landlock;
    if (plan.is_empty()) return true;
    const int ruleset = landlock::create_ruleset({plan.handled_fs, plan.handled_net, plan.scoped});
    if (ruleset < 0) return failed(child, "landlock_create_ruleset");
    for (std::size_t i = 0; i < plan.paths.size(); ++i) {
        if (!allow_path(child, ruleset, static_cast<int>(i))) return false;
    }
    for (const LandlockPlan::Port& rule : plan.ports) {
        const landlock::NetPortAttr attr = {rule.access, rule.port};
        if (!check(child, landlock::add_rule(ruleset, landlock::kRuleNetPort, &attr), "landlock_add_rule"))
            return false;
    }
    return check(child, landlock::restrict_self(ruleset), "landlock_restrict_self") &&
           check(child, ::close(ruleset), "close");
}

bool no_new_privs(Child& child) {
    return !child.plan.no_new_privs || check(child, ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
}

bool install_seccomp(Child& child) {
    const ChildPlan& plan = child.plan;
    for (std::size_t i = 0; i < plan.seccomp.size(); ++i) {
        const auto& filter = plan.seccomp[i];
        const sock_fprog program = {static_cast<unsigned short>(filter.size()),
                                    const_cast<sock_filter*>(filter.data())};
        // Why not seccomp(2): a first filter may well forbid it, and prctl(2) is what programs need
        // themselves.
        if (!check(child, ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), "prctl",
                   static_cast<int>(i))) {
            return false;
        }
    }
    return true;
}

bool seccomp_early(Child& child) {
    return child.plan.no_new_privs || install_seccomp(child);
}
bool seccomp_late(Child& child) {
    return !child.plan.no_new_privs || install_seccomp(child);
}

bool drop_capabilities(Child& child) {
    if (child.plan.keep_capabilities) return true;
    const std::uint64_t kept = child.plan.capabilities;
    // More than this process has cannot be kept: that is an error, not a silent loss.
    if ((kept & ~sys::permitted_capabilities()) != 0) {
        errno = EPERM;
        return failed(child, "capset");
    }
    if (!check(child, sys::capset(kept, kept, kept), "capset")) return false;
    for (unsigned capability = 0; kept >> capability != 0; ++capability) {
        if ((kept >> capability & 1) == 0) continue;
        // Ambient: what a client that is not uid 0 inside still has after exec.
        if (!check(child, ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0), "prctl",
                   static_cast<int>(capability))) {
            return false;
        }
        if (capability == 63) break;
    }
    return true;
}

bool exec_command(Child& child) {
    const ChildCommand& command = child.plan.command;
    // Why only now: until here every signal of the launcher's waits, afterwards it kills as it would any
    // program.
    sys::set_signal_mask(0, nullptr);
    if (command.has_target && child.exec_path == nullptr) {
        sys::execveat(command.target_tree, "", command.argv, command.env, AT_EMPTY_PATH);
        return failed(child, "execveat");
    }
    int errnum = ENOENT;
    for (const char* const* candidate = command.candidates; *candidate != nullptr; ++candidate) {
        ::execve(*candidate, command.argv, command.env);
        const int why = errno;
        if (why == ENOENT || why == ENOTDIR) {
            // What is there and still is "not found" lacks its interpreter.
            if (::access(*candidate, F_OK) != 0) continue;
        }
        child.found = true;
        errnum = why;
        // As execvp(3): the search goes on only past a file that may not be run.
        if (why != EACCES) break;
    }
    errno = errnum;
    return failed(child, "execve");
}

/// Of a start that may be given up: from here on it is not. Why not the end of the pipe, which exec is: init
/// has it open, too, and may come to close it only after the client has begun to run.
bool tell_ready(Child& child) {
    if (!child.plan.may_wait) return true;
    ChildReport report;
    report.step = ChildStep::Ready;
    return check(child, ::write(child.plan.report_pipe, &report, sizeof report), "write");
}

struct StepEntry {
    ChildStep step;
    const char* name;
    bool (*run)(Child&);
};

constexpr StepEntry kInitSteps[] = {
    // Why first: the clone copied every fd of the launcher's, among them the unguarded device.
    {ChildStep::CloseFds, "closing the launcher's file descriptors", close_fds},
    {ChildStep::Signals, "resetting signals", reset_signals},
    // Why here and not in the clone: the namespace's root is the cgroup that its maker is in, and a child is
    // put into its own cgroup only after the namespaces of its clone were made.
    {ChildStep::CgroupNamespace, "making the cgroup namespace", new_cgroup_namespace},
    // Why before any mount: in a mount namespace without a user namespace of its own, mounts would show up on
    // the host.
    {ChildStep::PrivateMounts, "cutting mount propagation", cut_propagation},
    // Why before Identity: with the launcher's rights. Why before NewRoot: nothing hides them yet.
    {ChildStep::Sources, "opening what is to be mounted", open_sources},
    {ChildStep::AwaitLauncher, "waiting for the user map", await_launcher},
    // Why before Identity: behind it /proc/self is root's.
    {ChildStep::Clocks, "making the time namespace", new_clocks},
    // Why before Overlays and NewRoot: files in a tmpfs and in upper layers can only be made by an id that
    // the user namespace has.
    {ChildStep::Identity, "becoming the client's user", become_client_user},
    // Here, too: what is below may wait for whoever writes to a file of the caller's.
    {ChildStep::DieWithLauncher, "binding its life to the launcher's", die_with_launcher},
    {ChildStep::Overlays, "making overlays", make_overlays},
    {ChildStep::NewRoot, "making the root", new_root},
    {ChildStep::Mounts, "mounting", mounts},
    {ChildStep::SealRoot, "making the root read-only", seal_root},
    // Why after Mounts: a new proc is only allowed where the old one can be seen.
    {ChildStep::EnterRoot, "entering the root", pivot},
    {ChildStep::Hostname, "setting the host name", set_hostname},
    {ChildStep::Loopback, "setting the loopback interface up", loopback_up},
    {ChildStep::Locks, "locking", take_locks},
    {ChildStep::LateUserNamespace, "entering the second user namespace", enter_user_namespace},
    // Why before BoundingSet: a new user namespace has the full one again.
    {ChildStep::NoMoreUserNamespaces, "ending the making of user namespaces", no_more_user_namespaces},
    {ChildStep::BoundingSet, "dropping the capability bounding set", drop_bounding_set},
    // Why after Identity: a change of uid clears the parent-death signal. Why the look at the launcher comes
    // after it is set: of a launcher that died before, none would ever be sent.
    {ChildStep::DieWithLauncher, "binding its life to the launcher's", die_with_launcher},
    {ChildStep::Fork, "forking the client", fork_client},
};

constexpr StepEntry kClientSteps[] = {
    {ChildStep::DieWithInit, "binding its life to init's", die_with_init},
    // Why before Fds: the client's own take the places of what this needs. Why by the client and not by the
    // launcher: a client may have ended before the launcher looks.
    {ChildStep::Introduce, "telling who it is", introduce},
    {ChildStep::Session, "making a session", new_session},
    {ChildStep::Keyring, "leaving the launcher's keys", leave_keyring},
    {ChildStep::Fds, "placing its file descriptors", place_fds},
    {ChildStep::NoNewPrivs, "setting no_new_privs", no_new_privs},
    // Why after NoNewPrivs: without it neither Landlock nor a filter is there for a process without
    // capabilities.
    {ChildStep::Landlock, "making the Landlock domain", make_landlock_domain},
    // Why as late as this: what is below is done in no time. Why before Limits: it receives files.
    {ChildStep::AwaitCommand, "waiting for the command", await_command},
    // Why after Fds and Landlock: those need file descriptors beyond the client's RLIMIT_NOFILE.
    {ChildStep::Limits, "setting resource limits", set_limits},
    // Without no_new_privs a filter takes CAP_SYS_ADMIN, so it comes before the capabilities go …
    {ChildStep::SeccompEarly, "installing the seccomp filter", seccomp_early},
    {ChildStep::Capabilities, "dropping capabilities", drop_capabilities},
    {ChildStep::Block, "waiting for the caller", await_go_ahead},
    // Why after Capabilities: what the client itself may enter and see is what counts.
    {ChildStep::WorkingFolder, "entering the working folder", enter_folder},
    {ChildStep::Command, "finding the command", choose_command},
    {ChildStep::Ready, "telling that it is ready", tell_ready},
    // … and with it as late as can be, so that it need not allow what the steps above do.
    {ChildStep::SeccompLate, "installing the seccomp filter", seccomp_late},
    {ChildStep::Exec, "executing", exec_command},
};

[[noreturn]] void report_and_exit(const Child& child, ChildStep step, int errnum) {
    ChildReport report;
    report.step = step;
    report.errnum = errnum;
    report.item = child.failure.item;
    report.found = child.found;
    report.is_script = child.is_script;
    std::memcpy(report.detail, child.failure.detail, sizeof report.detail);
    if (child.failure.call != nullptr) {
        for (std::size_t i = 0; i + 1 < sizeof report.call && child.failure.call[i] != '\0'; ++i) {
            report.call[i] = child.failure.call[i];
        }
    }
    // A filter that forbids even this leaves the exit status, which says as much.
    [[maybe_unused]] const ssize_t written = ::write(child.plan.report_pipe, &report, sizeof report);
    while (true) ::_exit(125);
}

template <std::size_t count>
void run_steps(Child& child, const StepEntry (&steps)[count]) {
    for (const StepEntry& entry : steps) {
        if (!entry.run(child)) report_and_exit(child, entry.step, errno);
    }
}

int run_client(void* child) {
    run_steps(*static_cast<Child*>(child), kClientSteps);
    // Not reached: the last step either execs or fails.
    ::_exit(125);
}

}  // namespace

const char* child_step_name(ChildStep step) {
    for (const StepEntry& entry : kInitSteps) {
        if (entry.step == step) return entry.name;
    }
    for (const StepEntry& entry : kClientSteps) {
        if (entry.step == step) return entry.name;
    }
    return "?";
}

void run_child(ChildPlan& plan) {
    Child child{.plan = plan};
    run_steps(child, kInitSteps);
    if (child.client > 0) {
        std::sort(plan.init_fds.begin(), plan.init_fds.end());
        run_init({.client = child.client,
                  .status_pipe = plan.status_pipe,
                  .kept_fds = plan.init_fds.data(),
                  .kept_count = plan.init_fds.size(),
                  .pid_namespace = plan.namespaces.pid,
                  .tell_cpu_time = plan.tell_cpu_time});
    }
    run_client(&child);
    ::_exit(125);
}

}  // namespace postern
