// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker-core/id_range.h"
#include "broker-core/landlock_rules.h"
#include "broker-core/result.h"

namespace postern {

/// The namespaces that the client gets for itself; the others it shares with the launcher.
struct Namespaces {
    bool user = true;
    bool pid = true;
    bool mount = true;
    bool net = true;
    bool ipc = true;
    bool uts = true;
    bool cgroup = true;
    bool time = false;

    bool operator==(const Namespaces&) const = default;
};

/// What "/" is inside.
struct Root {
    enum class Kind {
        HostReadOnly,  ///< the launcher's own, read-only, its /proc /sys /dev /tmp /run /var/tmp replaced
        Empty,         ///< a read-only tmpfs with /proc /dev /tmp and what `mounts` adds
        Path,  ///< the folder `path`, read-only, with /proc /dev /tmp mounted over it where they exist
        Bare,  ///< a writable tmpfs with what `mounts` adds and nothing else; a mount may be on "/" itself
    };
    Kind kind = Kind::HostReadOnly;
    std::string path = {};
};

/// One mount of the profile, done in the order given, after the mounts that every root gets. Targets are
/// absolute paths inside; symbolic links in them are followed inside the new root and never leave it. A
/// target that is missing is made if it lies in a tmpfs of the sandbox; it is never made in a host folder
/// (but see SandboxSpec::make_targets).
///
/// Options, for all types: ro rw nosuid suid nodev dev noexec exec (default: rw, nosuid, nodev).
///   bind     source: absolute host path, opened with the launcher's rights before anything hides it;
///            "rbind" (default: with what is mounted below), "bind" (without), "optional" (a missing source
///            is skipped)
///   tmpfs    "size=BYTES[k|m|g|%]", "nr_inodes=N", "mode=OCTAL" (default 0755; 1777 for a target that ends
///   in /tmp)
///   proc     the proc of the sandbox's pid namespace
///   dev      a minimal /dev; "writable" leaves it open to more mounts and files
///   overlay  "lowerdir=A:B", "upperdir=C", "workdir=D" as in mount(8), host paths; "scratch" instead of the
///            latter two: what is written is lost with the sandbox
///   mqueue   the POSIX message queues of the ipc namespace
///   dir      a folder, "mode=OCTAL" (0755) if it is not there yet
///   symlink  a symbolic link to the text `source`; one that is there already must be the same
///   file     a file with what can be read from `fd` up to its end, "mode=OCTAL" (0666)
///   data     the same (0600), as a file of its own bound to the target; "ro"
///   chmod    "mode=OCTAL" for what is at the target
///   ro       what is mounted at the target becomes read-only, without what is mounted below it
struct Mount {
    enum class Type { Bind, Tmpfs, Proc, Dev, Overlay, Mqueue, Directory, Symlink, File, Data, Chmod, Ro };
    Type type = Type::Bind;
    std::string source = {};
    std::string target = {};
    std::vector<std::string> options = {};
    /// File, Data: what is read. Bind: what `source` must lead to. Borrowed until start_sandbox() has
    /// returned.
    int fd = -1;
};

/// A resource limit of setrlimit(2); RLIM_INFINITY is "unlimited". A hard limit above the launcher's own
/// needs CAP_SYS_RESOURCE in the initial user namespace.
struct ResourceLimit {
    int resource = 0;  ///< RLIMIT_*
    std::uint64_t soft = 0;
    std::uint64_t hard = 0;
};

/// A file descriptor for the client, borrowed from the caller until start_sandbox() has returned.
struct PassedFd {
    int fd = -1;
    std::string name;  ///< its entry in LISTEN_FDNAMES: no ':' and no control characters
};

/// Everything about one sandbox, decided: nothing below this struct reads a profile, an environment variable
/// or a default. Executing it is start_sandbox() (sandbox.h).
struct SandboxSpec {
    Namespaces namespaces = {};
    Root root = {};
    std::vector<Mount> mounts = {};

    /// Programs for seccomp(2), see seccomp_filter.h, installed in this order; empty means none.
    std::vector<std::vector<sock_filter>> seccomp = {};
    /// Capability numbers (CAP_*) that the client keeps, in all five sets; meaningful inside its user
    /// namespace.
    std::vector<unsigned> capabilities = {};
    /// Instead: all sets stay as the launcher's are.
    bool keep_capabilities = false;
    bool no_new_privs = true;
    /// On top. Its paths are opened inside, by the client.
    LandlockRules landlock = {};
    std::vector<ResourceLimit> rlimits = {};

    /// Ids inside. A root launcher maps them to the same ids outside, any other launcher to its own ids.
    uid_t uid = 65534;
    gid_t gid = 65534;
    /// More of them: those that /etc/subuid and /etc/subgid grant to the launcher's user. Inside they are
    /// those from 0 on, around the launcher's own; a root launcher gives none of its own.
    bool subids = false;
    /// Instead: exactly these, `uid` and `gid` among them.
    std::vector<IdRange> uid_map = {};
    std::vector<IdRange> gid_map = {};
    /// A root launcher maps the ids to its own, too.
    bool own_ids = false;
    /// Supplementary groups of the launcher's stay.
    bool keep_groups = false;

    /// nullopt leaves the launcher's host name (a copy of it, with a uts namespace).
    std::optional<std::string> hostname = std::nullopt;
    /// Complete environment, "NAME=value"; only LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES are added, when
    /// `fds` has any.
    std::vector<std::string> env = {};
    /// Variables that are added with the client's pid, as it sees itself.
    std::vector<std::string> pid_variables = {};
    /// Working folder inside; must exist. nullopt: the launcher's own if it can be entered inside, else HOME
    /// of `env` with a bare root, else "/".
    std::optional<std::string> cwd = std::nullopt;
    /// PWD in the environment says which it became.
    bool tell_folder = false;
    /// Wall clock from exec on; Supervisor enforces it with SIGKILL and status 124.
    std::optional<std::chrono::milliseconds> time_limit = std::nullopt;
    /// RLIMIT_CPU of `rlimits` (soft, and hard one second later) is a limit in time, too: a client that ends
    /// by it has status 124.
    std::optional<std::chrono::seconds> cpu_limit = std::nullopt;
    /// cgroup v2 folder that the client is born in (Cgroup::fd()); borrowed until start_sandbox() has
    /// returned. -1: the launcher's own.
    int cgroup_fd = -1;

    /// The client tells the numbers of its namespaces (RunningClient::identity()), not only its pid.
    bool tell_namespaces = false;

    /// The client in a session of its own: no controlling terminal (so no TIOCSTI), kill(0, …) stays inside.
    bool new_session = true;
    /// The client possesses none of the launcher's keys, whatever its filter lets it ask for (keyrings(7)): a
    /// session keyring of its own, which counts against the user's quota of keys.
    bool new_keyring = true;
    /// Sets the loopback interface of a new network namespace up (costs 0.1 ms).
    bool loopback_up = false;

    /// argv[0] is the command: with a '/' a path, else looked up. With a HostReadOnly root this is done on
    /// the host before anything is started (caller's working folder and PATH) and the file that was found is
    /// the one that runs, even if it lies where the sandbox does not see it; with any other root inside, with
    /// PATH of `env`.
    std::vector<std::string> argv = {};
    std::optional<std::string> argv0 = std::nullopt;  ///< what the client gets as argv[0] instead
    /// Become fds 3, 4, 5… of the client. 0, 1 and 2 are inherited, every other fd is closed.
    std::vector<PassedFd> fds = {};
    /// Not together with `fds`: fds of the launcher that the client has under the same numbers.
    std::vector<int> inherited_fds = {};

    /// Missing targets of `mounts` are made wherever the client's user may make them, in host folders too;
    /// a target that is a symbolic link itself is an error.
    bool make_targets = false;
    /// The client is pid 1 of its pid namespace: nobody reaps for it, and signals that it does not handle
    /// do nothing. Not with `lock_files` and the time namespace.
    bool as_pid_1 = false;
    /// The client cannot make user namespaces, whatever it does. Needs one of its own.
    bool no_more_user_namespaces = false;
    /// Nothing is changed, but the launch fails if the client could make one.
    bool assert_no_more_user_namespaces = false;
    /// Seconds that the clocks of the time namespace are ahead.
    std::int64_t monotonic_offset = 0;
    std::int64_t boottime_offset = 0;
    /// A network namespace to join instead of a new one or the launcher's: a file of nsfs, opened with the
    /// launcher's rights. Empty: none.
    std::string net_path = {};
    /// A pid namespace was joined by the launcher (setns(2)): the client is born in it.
    bool joined_pid_namespace = false;
    /// A user namespace that the client enters when everything is set up; borrowed. -1: none.
    int late_user_fd = -1;
    /// The client waits before exec until this can be read; borrowed. -1: it does not.
    int block_fd = -1;
    /// Init holds it open until the sandbox ends; borrowed. -1: none.
    int sync_fd = -1;
    /// Paths inside; init holds a shared fcntl(2) lock on each until the sandbox ends.
    std::vector<std::string> lock_files = {};
    /// Instead of writing the user map: called with init's pid, and the map is there when it returns.
    std::function<Status(pid_t)> await_user_map = {};
};

/// Names as in the profile: user pid mount net ipc uts cgroup. Error: a name that is none of them.
Result<Namespaces> namespaces_from_names(const std::vector<std::string>& names);
std::vector<std::string> namespace_names(const Namespaces& namespaces);

/// "bind" "tmpfs" "proc" "dev" "overlay" "mqueue" "dir" "symlink" "file" "data" "chmod" "ro", and back.
Result<Mount::Type> mount_type_from_name(std::string_view name);
std::string_view mount_type_name(Mount::Type type);

/// "nofile" → RLIMIT_NOFILE and so on for every limit of setrlimit(2), and back.
Result<int> rlimit_from_name(std::string_view name);
std::string_view rlimit_name(int resource);

/// The "lowerdir=…" option of a Mount for these folders, named from the bottom up as bubblewrap has it.
/// Overlayfs wants the top first, and ':' and '\\' escaped.
std::string lower_layers_option(const std::vector<std::string>& from_bottom);

/// "CAP_NET_ADMIN" or "net_admin" → 12, and back ("CAP_NET_ADMIN"). Error: unknown to this build.
Result<unsigned> capability_from_name(std::string_view name);
std::string capability_name(unsigned capability);

/// The steps that starting `spec` takes, in their order, one sentence a line, for --dry-run.
std::vector<std::string> describe_sandbox(const SandboxSpec& spec);

}  // namespace postern
