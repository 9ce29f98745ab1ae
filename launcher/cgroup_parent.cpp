// SPDX-License-Identifier: Apache-2.0
#include "launcher/cgroup_parent.h"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <string_view>

#include "broker-core/cgroup_file.h"

namespace postern {
namespace {

using Limits = std::vector<std::pair<std::string, std::string>>;

std::string_view controller_of(const std::string& file) {
    return std::string_view(file).substr(0, file.find('.'));
}

bool is_enabled(const std::string& folder, std::string_view controller) {
    return holds_word(read_cgroup_file(folder + "/cgroup.subtree_control"), controller);
}

bool are_there(const std::string& folder, const Limits& limits) {
    const std::string controllers = read_cgroup_file(folder + "/cgroup.controllers");
    return std::all_of(limits.begin(), limits.end(), [&](const auto& limit) {
        return holds_word(controllers, controller_of(limit.first));
    });
}

bool are_enabled(const std::string& folder, const Limits& limits) {
    return std::all_of(limits.begin(), limits.end(),
                       [&](const auto& limit) { return is_enabled(folder, controller_of(limit.first)); });
}

/// Whether the kernel would make a threaded domain of this cgroup if it enabled a controller in it. The root
/// of the hierarchy, which has no type, may hold processes and limit its children as well.
bool holds_processes_below_root(const std::string& folder) {
    return ::access((folder + "/cgroup.type").c_str(), F_OK) == 0 &&
           !read_cgroup_file(folder + "/cgroup.procs").empty();
}

bool is_writable(const std::string& folder) {
    return ::access((folder + "/cgroup.procs").c_str(), W_OK) == 0 &&
           ::access((folder + "/cgroup.subtree_control").c_str(), W_OK) == 0 &&
           ::access(folder.c_str(), W_OK) == 0;
}

/// Whether a limit was set on this very cgroup, which a client beside it would get past.
bool is_limited(const std::string& folder) {
    constexpr std::array kFiles = {"memory.max", "memory.high", "memory.swap.max", "pids.max",
                                   "cpu.max",    "io.max",      "cpuset.cpus",     "cpuset.mems"};
    return std::any_of(kFiles.begin(), kFiles.end(), [&](const char* file) {
        const std::string value = read_cgroup_file(fmt::format("{}/{}", folder, file));
        return !value.empty() && value != "\n" && !value.starts_with("max");
    });
}

/// Whether systemd manages this cgroup, and nobody else may, unless it was delegated.
bool is_unit(std::string_view folder) {
    return folder.ends_with(".slice") || folder.ends_with(".scope") || folder.ends_with(".service");
}

/// systemd's mark on a unit with Delegate=yes.
bool is_marked_as_delegated(const std::string& folder) {
    for (const char* name : {"trusted.delegate", "user.delegate"}) {
        char value[2] = {};
        if (::getxattr(folder.c_str(), name, value, sizeof value) == 1 && value[0] == '1') return true;
    }
    return false;
}

/// The one above `own`, if it was delegated to this user and `own` is a leaf that holds its processes.
std::optional<CgroupPath> delegated_above(const CgroupPath& own) {
    if (own.depth == 0 || is_unit(own.folder) || is_limited(own.folder)) return std::nullopt;
    CgroupPath above{own.folder.substr(0, own.folder.rfind('/')), own.depth - 1};
    if (::access((above.folder + "/cgroup.type").c_str(), F_OK) != 0 || !is_writable(above.folder) ||
        holds_processes_below_root(above.folder)) {
        return std::nullopt;
    }
    // What root may write to says nothing of what root was given.
    if ((::geteuid() == 0 || is_unit(above.folder)) && !is_marked_as_delegated(above.folder))
        return std::nullopt;
    return above;
}

bool is_alone_in(const std::string& folder) {
    return read_cgroup_file(folder + "/cgroup.procs") == fmt::format("{}\n", ::getpid());
}

Failure not_there(const std::string& parent, std::string_view controller) {
    std::string above = parent;
    while (::access((above + "/cgroup.controllers").c_str(), F_OK) == 0 &&
           !holds_word(read_cgroup_file(above + "/cgroup.controllers"), controller)) {
        above.erase(above.rfind('/'));
    }
    if (::access((above + "/cgroup.controllers").c_str(), F_OK) == 0) {
        return fail(
            "{0}: controller {1} is not there, for it is not given on by a cgroup above: echo +{1} "
            ">{2}/cgroup.subtree_control, or start with systemd-run --scope -p Delegate=yes",
            parent, controller, above);
    }
    return fail(
        "{}: controller {} is not there; it may be bound to a cgroup v1 hierarchy, or not be delegated "
        "to this cgroup: boot with cgroup v2 alone, or start with systemd-run --scope -p Delegate=yes",
        parent, controller);
}

/// Lets children of `parent` have `controller`.
Status enable_controller(const std::string& parent, std::string_view controller) {
    if (!holds_word(read_cgroup_file(parent + "/cgroup.controllers"), controller))
        return not_there(parent, controller);
    if (::access((parent + "/cgroup.subtree_control").c_str(), W_OK) != 0) {
        return fail(
            "{}: controller {} cannot be enabled, for this cgroup is not delegated to the launcher: start it "
            "with systemd-run --user --scope -p Delegate=yes",
            parent, controller);
    }
    // Asked, not tried: memory is refused with EBUSY, but cpu and pids would be enabled, and no process can
    // be born in a cgroup below from then on, with limits or without.
    if (holds_processes_below_root(parent)) {
        return fail(
            "{}: controller {} cannot be enabled while other processes than postern are in this cgroup "
            "itself: "
            "start postern in one of its own (systemd-run --scope -p Delegate=yes postern …, with --user as "
            "an ordinary user), or move them all, postern too, to a leaf of a cgroup that is delegated",
            parent, controller);
    }
    const int errnum = write_cgroup_file(parent + "/cgroup.subtree_control", fmt::format("+{}", controller));
    if (errnum == 0) return {};
    return fail_errno(errnum, "{}: enabling controller {}", parent, controller);
}

}  // namespace

CgroupParent*& CgroupParent::left() {
    static CgroupParent* parent = nullptr;
    return parent;
}

void CgroupParent::Leave::operator()(CgroupParent* parent) const {
    if (--parent->uses_ != 0) return;
    if (left() == parent) left() = nullptr;
    delete parent;
}

Result<CgroupParent::Use> CgroupParent::find(const Limits& limits) {
    if (left() != nullptr) {
        ++left()->uses_;
        Use parent(left());
        POSTERN_TRY(parent->enable(limits));
        return parent;
    }
    POSTERN_ASSIGN(const CgroupPath own, own_cgroup(read_cgroup_file("/proc/self/mountinfo"),
                                                    read_cgroup_file("/proc/self/cgroup")));
    Use parent(new CgroupParent(own));
    if (!are_enabled(own.folder, limits) && holds_processes_below_root(own.folder)) {
        if (const std::optional<CgroupPath> above = delegated_above(own);
            above && are_there(above->folder, limits)) {
            parent->path_ = *above;
        } else if (are_there(own.folder, limits) && is_writable(own.folder) && is_alone_in(own.folder)) {
            POSTERN_TRY(parent->step_aside());
            left() = parent.get();
        }
    }
    POSTERN_TRY(parent->enable(limits));
    return parent;
}

Status CgroupParent::step_aside() {
    // Named as what it is to a sweep: the pid comes first.
    const std::string leaf = fmt::format("{}/postern-{}-launcher", folder(), ::getpid());
    if (::mkdir(leaf.c_str(), 0755) != 0 && errno != EEXIST) {
        const int errnum = errno;
        return fail_errno(errnum, "cgroup: making {}", leaf);
    }
    if (const int errnum = write_cgroup_file(leaf + "/cgroup.procs", "0"); errnum != 0) {
        ::rmdir(leaf.c_str());
        return fail_errno(errnum, "cgroup: moving postern to {}", leaf);
    }
    leaf_ = leaf;
    return {};
}

Status CgroupParent::enable(const Limits& limits) {
    for (const auto& [file, value] : limits) {
        const std::string_view controller = controller_of(file);
        if (is_enabled(folder(), controller)) continue;
        if (Status done = enable_controller(folder(), controller); !done)
            return propagate(std::move(done), fmt::format("cgroup: {}", file));
        enabled_.emplace_back(controller);
    }
    return {};
}

CgroupParent::~CgroupParent() {
    // Elsewhere controllers stay enabled: other launches, and whoever made a cgroup here since, may limit by
    // them, and the kernel would drop their limits without a word. Here is nobody else.
    if (leaf_.empty()) return;
    for (const std::string& each : enabled_)
        (void)write_cgroup_file(folder() + "/cgroup.subtree_control", fmt::format("-{}", each));
    if (write_cgroup_file(folder() + "/cgroup.procs", "0") == 0) ::rmdir(leaf_.c_str());
}

}  // namespace postern
