// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "launcher/child_command.h"
#include "launcher/client_identity.h"
#include "launcher/landlock_plan.h"
#include "launcher/mount_plan.h"
#include "launcher/sandbox_spec.h"
#include "launcher/user_map.h"

namespace postern {

/// What the child does between clone and exec, in this order. The first ones are done by the process that
/// becomes init (pid 1 of the sandbox), those from Session on by the client, its child.
enum class ChildStep : int {
    CloseFds,
    Signals,
    CgroupNamespace,
    PrivateMounts,
    Sources,
    AwaitLauncher,
    Clocks,
    Identity,
    Overlays,
    NewRoot,
    Mounts,
    SealRoot,
    EnterRoot,
    Hostname,
    Loopback,
    Locks,
    LateUserNamespace,
    NoMoreUserNamespaces,
    BoundingSet,
    DieWithLauncher,
    Fork,
    // in the client
    DieWithInit,
    Introduce,
    Session,
    Keyring,
    Fds,
    NoNewPrivs,
    Landlock,
    AwaitCommand,
    Limits,
    SeccompEarly,
    Capabilities,
    Block,
    WorkingFolder,
    Command,
    Ready,
    SeccompLate,
    Exec,
};

/// Name of a step for messages: what it was about to do.
const char* child_step_name(ChildStep step);

/// What the child sends through its report pipe when a step fails. (When nothing fails, exec closes the
/// pipe.)
struct ChildReport {
    ChildStep step = ChildStep::CloseFds;
    int errnum = 0;          ///< 0: no failure, but Ready
    int item = -1;           ///< index of the mount, limit, fd or capability
    bool found = false;      ///< Exec: there was a file, but it could not be run
    bool is_script = false;  ///< Exec: a script that only its fd leads to
    char call[24] = {};      ///< the system call
    char detail[256] = {};   ///< what was found instead
};

/// How init tells how the client ended.
struct ExitRecord {
    int code = 0;                ///< CLD_EXITED, CLD_KILLED or CLD_DUMPED
    int value = 0;               ///< status or signal
    std::int64_t cpu_time = -1;  ///< nanoseconds of the client's own, if the plan asks for them
};

/// What comes through the status pipe: from the client, once, before exec, who it is; from init, at the end,
/// the other.
struct StatusRecord {
    enum class Kind : int { Identity, Exit };
    Kind kind = Kind::Exit;
    ClientIdentity identity;
    ExitRecord exit;
};

/// Everything that the child needs, laid out by the launcher: after the clone nothing is allocated, parsed or
/// looked up. Pointers lead into the other members; the plan must not be moved once they are set.
struct ChildPlan {
    Namespaces namespaces;
    UserMap user;
    MountPlan mounts;
    std::vector<int> sources;        ///< one a step of mounts: opened by the launcher already, or -1
    int root_tree = -1;              ///< the root: opened by the launcher already, or -1
    std::vector<dev_t> own_devices;  ///< st_dev of each tmpfs made so far; capacity reserved
    std::vector<unsigned> kept_fds;  ///< sorted: what CloseFds leaves open
    bool make_targets = false;       ///< see SandboxSpec
    unsigned covered_roots = 0;      ///< how often something was mounted on "/" of the new root
    int proc_tree = -1;              ///< the proc that Cover steps are about; -1: it was skipped
    std::vector<int> init_fds;       ///< what init keeps; capacity reserved for the locks

    std::string hostname;
    bool set_hostname = false;
    bool loopback_up = false;
    bool new_session = true;
    bool new_keyring = true;
    bool no_new_privs = true;
    LandlockPlan landlock;
    std::uint64_t capabilities = 0;  ///< bit set of those kept
    bool keep_capabilities = false;
    std::vector<ResourceLimit> limits;
    std::span<const std::vector<sock_filter>> seccomp;  ///< the spec's
    bool as_pid_1 = false;
    bool tell_cpu_time = false;  ///< init tells what the client has used
    bool may_wait = false;       ///< for what somebody else writes, before Ready
    bool no_more_user_namespaces = false;
    bool assert_no_more_user_namespaces = false;
    bool has_clocks = false;
    char clock_offsets[96] = {};  ///< lines for timens_offsets
    std::vector<std::string> lock_files;
    int late_user_fd = -1;
    int block_fd = -1;
    int umask = 022;  ///< the launcher's, which the client has again

    /// Tried in turn; with one alone it must be possible.
    std::vector<std::string> folders;
    /// One for each of `folders`: what PWD in the environment is when it is that one; empty: PWD is not told.
    std::vector<std::string> folder_entries;
    char** folder_entry = nullptr;  ///< where in the command's environment it goes
    ChildCommand command;
    /// A command that is told late: it comes here, in memory shared with the launcher, and with a message
    /// through the socket that carries stdout, stderr and, if there is one, the target's tree. -1: not late.
    const ChildCommand* late_command = nullptr;
    int command_socket = -1;

    std::vector<int> fds;                 ///< the client's, in order
    std::vector<unsigned> inherited_fds;  ///< sorted: the client's, under the number they have
    std::vector<int> moved_fds;           ///< same size, scratch

    int report_pipe = -1;  ///< write end
    int status_pipe = -1;  ///< write end; init's, and the client's until exec
    int proc = -1;         ///< the launcher's /proc, or -1: the client tells nothing of itself
    bool tell_namespaces = false;
    int go_pipe = -1;  ///< read end: one byte when the launcher has written the user map
    int launcher_pidfd = -1;
};

/// The life of the child from clone to its end. Only async-signal-safe calls.
[[noreturn]] void run_child(ChildPlan& plan);

}  // namespace postern
