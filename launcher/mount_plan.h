// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "broker-core/result.h"
#include "launcher/sandbox_spec.h"

namespace postern {

/// One step of building the sandbox's tree, small enough that the child only has to make the system calls.
struct MountStep {
    enum class Kind {
        Bind,       ///< a clone of `source`, opened before anything hides it
        Overlay,    ///< an overlay of `parameters`, made before anything hides its folders
        Tmpfs,      ///< a new tmpfs with `parameters`
        Proc,       ///< the proc of the pid namespace
        Devpts,     ///< a new instance of devpts
        Mqueue,     ///< the message queues of the ipc namespace
        Directory,  ///< a folder
        Symlink,    ///< `target` as a symbolic link to `source`
        File,       ///< a file with what `fd` gives
        Data,       ///< such a file, on no path but where it is bound
        Chmod,      ///< `mode` for what is there
        Seal,       ///< `attributes` put on what is mounted at `target`
        Cover,      ///< `source`, a path in the proc before it, bound to itself, read-only
    };
    /// Overlay: so many that mount(2)'s page holds a path through /proc/self/fd of each.
    static constexpr std::size_t kMaxLayers = 128;

    Kind kind = Kind::Bind;
    std::string source = {};
    std::string target = {};
    std::uint64_t attributes = 0;  ///< MOUNT_ATTR_*
    bool recursive = false;        ///< Bind, Seal: with everything mounted below
    bool from_launcher = false;    ///< made by the launcher before the clone if its rights allow
    bool optional_source = false;  ///< a missing source skips the step
    bool optional_target = false;  ///< a missing target, or one behind a symbolic link, skips the step
    std::vector<std::pair<std::string, std::string>> parameters = {};  ///< fsconfig(2); flags have no value
    std::vector<std::string> lower = {};  ///< Overlay: the lower folders, topmost first
    std::string upper = {};               ///< Overlay: empty without one
    std::string work = {};
    bool only_if_writable = false;  ///< Cover
    bool has_covers = false;        ///< Proc, or the Bind instead: Cover steps follow
    bool scratch = false;           ///< Overlay: upper and work folder are made and forgotten
    int mode = -1;                  ///< Directory, File, Data, Chmod; also of the folders made on the way
    int fd = -1;                    ///< see Mount::fd
    std::uint64_t must_device = 0;  ///< Bind with `fd`: st_dev and st_ino of what it must be
    std::uint64_t must_inode = 0;
    std::string where = {};  ///< for messages: "mounts[2]", or what of ours it is
};

/// The tree, in the order in which it is built.
struct MountPlan {
    /// Kind::Empty: a tmpfs; otherwise a recursive clone of `root_source`.
    bool root_is_tmpfs = false;
    std::string root_source = "/";
    std::uint64_t root_attributes = 0;
    bool seal_root = false;     ///< the tmpfs root becomes read-only when all is in place
    bool is_host_root = false;  ///< commands are looked up by the launcher
    std::vector<MountStep> steps;
};

/// Decides every mount. Pure but for one look at whether `root.path` is "/" itself. Error: a mount that
/// cannot be, with its place ("mounts[1]").
Result<MountPlan> make_mount_plan(const SandboxSpec& spec);

/// One sentence, for --dry-run.
std::string describe(const MountStep& step);

}  // namespace postern
