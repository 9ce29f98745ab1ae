// SPDX-License-Identifier: Apache-2.0
#include "launcher/mount_plan.h"

#include <linux/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

namespace postern {
namespace {

constexpr std::uint64_t kQuiet = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;

MountStep tmpfs_step(std::string target, const char* mode, std::string where) {
    MountStep step;
    step.kind = MountStep::Kind::Tmpfs;
    step.target = std::move(target);
    step.attributes = kQuiet;
    step.parameters = {{"mode", mode}};
    step.where = std::move(where);
    return step;
}

MountStep bind_step(std::string source, std::string target, std::uint64_t attributes, std::string where) {
    MountStep step;
    step.kind = MountStep::Kind::Bind;
    step.source = std::move(source);
    step.target = std::move(target);
    step.attributes = attributes;
    step.recursive = true;
    step.where = std::move(where);
    return step;
}

MountStep symlink_step(std::string text, std::string target, std::string where) {
    MountStep step;
    step.kind = MountStep::Kind::Symlink;
    step.source = std::move(text);
    step.target = std::move(target);
    step.where = std::move(where);
    return step;
}

MountStep plain_step(MountStep::Kind kind, std::string target, std::uint64_t attributes, std::string where) {
    MountStep step;
    step.kind = kind;
    step.target = std::move(target);
    step.attributes = attributes;
    step.where = std::move(where);
    return step;
}

MountStep proc_step(const SandboxSpec& spec, std::string target, std::string where) {
    constexpr std::uint64_t attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    // The kernel mounts a new proc only for whoever owns the pid namespace.
    if (!spec.namespaces.pid && !spec.joined_pid_namespace && spec.namespaces.user)
        return bind_step("/proc", std::move(target), attributes, std::move(where));
    return plain_step(MountStep::Kind::Proc, std::move(target), attributes, std::move(where));
}

/// Who is root on the host, in a user namespace or not, may write to these although its capabilities are
/// gone: proc_sys_permission() and the files' modes ask for the uid alone.
void add_proc_covers(const SandboxSpec& spec, std::vector<MountStep>& steps, const std::string& proc,
                     const std::string& where) {
    for (const char* name : {"/sys", "/sysrq-trigger", "/irq", "/bus", "/fs", "/acpi"}) {
        MountStep step = plain_step(MountStep::Kind::Cover, proc + name, MOUNT_ATTR_RDONLY, where);
        step.source = name;
        // As bubblewrap, which leaves root its sysctls.
        step.only_if_writable = spec.root.kind == Root::Kind::Bare;
        steps.push_back(std::move(step));
    }
}

void add_proc(const SandboxSpec& spec, std::vector<MountStep>& steps, const std::string& target,
              const std::string& where, std::uint64_t attributes, bool optional_target) {
    steps.push_back(proc_step(spec, target, where));
    steps.back().attributes |= attributes;
    steps.back().optional_target = optional_target;
    steps.back().has_covers = !spec.namespaces.user || spec.uid == 0 || spec.own_ids;
    if (steps.back().has_covers) add_proc_covers(spec, steps, target, where);
}

/// A minimal /dev: the six devices that hold nothing, terminals of its own, shared memory of its own.
void add_dev(std::vector<MountStep>& steps, const std::string& target, bool optional_target,
             const std::string& where, bool writable = false) {
    const std::size_t first = steps.size();
    MountStep root = tmpfs_step(target, "0755", where);
    root.attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
    steps.push_back(std::move(root));
    for (const char* name : {"null", "zero", "full", "random", "urandom", "tty"}) {
        // Not nodev, as it is to be a device; everything else comes with the seal below.
        MountStep device = bind_step(std::string("/dev/") + name, target + "/" + name, 0, where);
        device.recursive = false;
        device.optional_source = true;
        steps.push_back(std::move(device));
    }
    const std::pair<const char*, const char*> links[] = {{"/proc/self/fd", "/fd"},
                                                         {"/proc/self/fd/0", "/stdin"},
                                                         {"/proc/self/fd/1", "/stdout"},
                                                         {"/proc/self/fd/2", "/stderr"},
                                                         {"pts/ptmx", "/ptmx"}};
    for (const auto& [text, name] : links) {
        steps.push_back(symlink_step(text, target + name, where));
    }
    if (writable) steps.push_back(symlink_step("/proc/kcore", target + "/core", where));
    steps.push_back(plain_step(MountStep::Kind::Directory, target + "/pts", 0, where));
    steps.push_back(plain_step(MountStep::Kind::Directory, target + "/shm", 0, where));
    // Why before pts and shm, and after everything else: it is recursive, and those two must stay writable.
    MountStep seal = plain_step(MountStep::Kind::Seal, target,
                                MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, where);
    seal.recursive = true;
    if (!writable) steps.push_back(std::move(seal));
    MountStep terminals =
        plain_step(MountStep::Kind::Devpts, target + "/pts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, where);
    terminals.parameters = {{"mode", "0620"}, {"ptmxmode", "0666"}};
    steps.push_back(std::move(terminals));
    steps.push_back(tmpfs_step(target + "/shm", "1777", where));
    for (std::size_t i = first; i < steps.size(); ++i) steps[i].optional_target = optional_target;
}

/// /sys without sysfs: PCI resource files, debugfs, bpffs and cgroups are not there at all. glibc and others
/// count processors in devices/system, so that stays.
void add_sys(std::vector<MountStep>& steps) {
    MountStep root = tmpfs_step("/sys", "0755", "/sys");
    root.optional_target = true;
    steps.push_back(std::move(root));
    MountStep system =
        bind_step("/sys/devices/system", "/sys/devices/system",
                  MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, "/sys");
    system.optional_source = true;
    system.optional_target = true;
    steps.push_back(std::move(system));
    MountStep seal = plain_step(MountStep::Kind::Seal, "/sys", MOUNT_ATTR_RDONLY, "/sys");
    seal.optional_target = true;
    steps.push_back(std::move(seal));
}

void add_host_coverings(const SandboxSpec& spec, std::vector<MountStep>& steps) {
    // Without a proc of its own the launcher's is what the root clone has already.
    if (spec.namespaces.pid) add_proc(spec, steps, "/proc", "/proc", 0, false);
    add_dev(steps, "/dev", false, "/dev");
    steps.push_back(tmpfs_step("/tmp", "1777", "/tmp"));
    for (const auto& [target, mode] :
         {std::pair{"/run", "0755"}, std::pair{"/var/run", "0755"}, std::pair{"/var/tmp", "1777"}}) {
        MountStep step = tmpfs_step(target, mode, target);
        step.optional_target = true;
        steps.push_back(std::move(step));
    }
    add_sys(steps);
}

Status check_target(const std::string& target, bool may_be_root) {
    if (!target.starts_with('/')) return fail("target \"{}\" is not an absolute path", target);
    if (target.size() >= 4096) return fail("target is longer than a path can be (4095)");
    if (target.find('\0') != std::string::npos) return fail("target holds a NUL byte");
    std::string_view rest = target;
    bool any = false;
    while (!rest.empty()) {
        rest.remove_prefix(1);
        const std::string_view part = rest.substr(0, rest.find('/'));
        if (part == "." || part == "..")
            return fail("target \"{}\" has \"{}\" in it; write it without", target, part);
        any = any || !part.empty();
        rest.remove_prefix(part.size());
    }
    if (!any && !may_be_root) return fail("target is \"/\"; choose the root with \"root\" instead");
    return {};
}

/// The options that are attributes of the mount itself. False if `option` is none of them.
bool take_attribute(std::string_view option, std::uint64_t& attributes) {
    struct Attribute {
        std::string_view name;
        std::uint64_t set;
        std::uint64_t clear;
    };
    static constexpr Attribute known[] = {
        {"ro", MOUNT_ATTR_RDONLY, 0},     {"rw", 0, MOUNT_ATTR_RDONLY},   {"nosuid", MOUNT_ATTR_NOSUID, 0},
        {"suid", 0, MOUNT_ATTR_NOSUID},   {"nodev", MOUNT_ATTR_NODEV, 0}, {"dev", 0, MOUNT_ATTR_NODEV},
        {"noexec", MOUNT_ATTR_NOEXEC, 0}, {"exec", 0, MOUNT_ATTR_NOEXEC},
    };
    for (const Attribute& attribute : known) {
        if (attribute.name != option) continue;
        attributes = (attributes | attribute.set) & ~attribute.clear;
        return true;
    }
    return false;
}

Status unknown_option(const Mount& mount, const std::string& option, std::string_view known) {
    return fail(
        "option \"{}\" is not known for a {} mount; known are ro, rw, nosuid, suid, nodev, dev, noexec, "
        "exec{}",
        option, mount_type_name(mount.type), known);
}

Status no_source(const Mount& mount) {
    if (mount.source.empty() || mount.source == mount_type_name(mount.type)) return {};
    return fail("a {} mount has no source, but \"{}\" is given", mount_type_name(mount.type), mount.source);
}

/// A path that was read from an fd may lead elsewhere by the time that it is bound.
Status expect_file(int fd, MountStep& step) {
    struct stat status = {};
    if (::fstat(fd, &status) != 0) {
        const int errnum = errno;
        return fail_errno(errnum, "fd {}", fd);
    }
    step.fd = fd;
    step.must_device = status.st_dev;
    step.must_inode = status.st_ino;
    return {};
}

Result<MountStep> plan_bind(const Mount& mount, MountStep step) {
    step.kind = MountStep::Kind::Bind;
    step.recursive = true;
    if (!mount.source.starts_with('/'))
        return fail("source \"{}\" of a bind is not an absolute path", mount.source);
    if (mount.source.find('\0') != std::string::npos) return fail("source holds a NUL byte");
    step.source = mount.source;
    if (mount.fd >= 0) POSTERN_TRY(expect_file(mount.fd, step));
    // A root launcher may bind from folders that root without capabilities, which the child is, cannot enter.
    step.from_launcher = true;
    for (const std::string& option : mount.options) {
        if (take_attribute(option, step.attributes)) continue;
        if (option == "rbind" || option == "bind") {
            step.recursive = option == "rbind";
        } else if (option == "optional") {
            step.optional_source = true;
        } else {
            POSTERN_TRY(unknown_option(mount, option, ", rbind, bind, optional"));
        }
    }
    return step;
}

Result<MountStep> plan_tmpfs(const Mount& mount, MountStep step) {
    POSTERN_TRY(no_source(mount));
    step.kind = MountStep::Kind::Tmpfs;
    std::string mode = step.target.ends_with("/tmp") ? "1777" : "0755";
    for (const std::string& option : mount.options) {
        if (take_attribute(option, step.attributes)) continue;
        const std::size_t equals = option.find('=');
        const std::string key = option.substr(0, equals);
        if (equals == std::string::npos || (key != "size" && key != "nr_inodes" && key != "mode")) {
            POSTERN_TRY(unknown_option(mount, option, ", size=, nr_inodes=, mode="));
        }
        const std::string value = option.substr(equals + 1);
        if (value.empty() || value.size() > 64) return fail("option \"{}\" has no sensible value", option);
        if (key == "mode") {
            if (value.find_first_not_of("01234567") != std::string::npos || value.size() > 5) {
                return fail("option \"{}\": the mode is octal, such as 1777", option);
            }
            mode = value;
        } else {
            step.parameters.emplace_back(key, value);
        }
    }
    step.parameters.emplace_back("mode", mode);
    return step;
}

/// "A:B" with "\:" and "\\" as in mount(8).
std::vector<std::string> split_layers(std::string_view text) {
    std::vector<std::string> layers(1);
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == ':') {
            layers.emplace_back();
        } else {
            if (text[i] == '\\' && i + 1 < text.size()) ++i;
            layers.back() += text[i];
        }
    }
    return layers;
}

Result<MountStep> plan_overlay(const Mount& mount, MountStep step) {
    POSTERN_TRY(no_source(mount));
    step.kind = MountStep::Kind::Overlay;
    for (const std::string& option : mount.options) {
        if (take_attribute(option, step.attributes)) continue;
        if (option.starts_with("lowerdir=")) {
            step.lower = split_layers(option.substr(std::strlen("lowerdir=")));
        } else if (option.starts_with("upperdir=/")) {
            step.upper = option.substr(std::strlen("upperdir="));
        } else if (option.starts_with("workdir=/")) {
            step.work = option.substr(std::strlen("workdir="));
        } else if (option == "scratch") {
            step.scratch = true;
        } else if (option == "userxattr" || option == "volatile") {
            step.parameters.emplace_back(option, "");
        } else {
            POSTERN_TRY(unknown_option(
                mount, option, ", lowerdir=/…, upperdir=/…, workdir=/…, scratch, userxattr, volatile"));
        }
    }
    if (step.lower.empty()) return fail("an overlay needs \"lowerdir=/…\" in its options");
    if (step.lower.size() > MountStep::kMaxLayers)
        return fail("an overlay of {} layers; {} are possible", step.lower.size(), MountStep::kMaxLayers);
    for (const std::string& layer : step.lower) {
        if (!layer.starts_with('/')) return fail("lowerdir: \"{}\" is not an absolute path", layer);
    }
    if (step.upper.empty() != step.work.empty())
        return fail("an overlay needs both \"upperdir=/…\" and \"workdir=/…\", or neither");
    if (step.scratch && !step.upper.empty())
        return fail("an overlay has either \"scratch\" or an \"upperdir\", not both");
    // What the launcher makes is attached nowhere, and there a scratch upper layer has no place.
    step.from_launcher = !step.scratch;
    return step;
}

Result<int> parse_mode(std::string_view text) {
    int mode = 0;
    for (const char digit : text) {
        if (digit < '0' || digit > '7' || mode > 0777)
            return fail("mode \"{}\" is not octal, such as 0755", text);
        mode = mode * 8 + (digit - '0');
    }
    if (text.empty() || mode > 07777) return fail("mode \"{}\" is not octal, such as 0755", text);
    return mode;
}

/// Directory, File, Data and Chmod: things that have a mode and no mount's attributes, but for "ro" of Data.
Result<MountStep> plan_node(const Mount& mount, MountStep::Kind kind, MountStep step) {
    POSTERN_TRY(no_source(mount));
    step.kind = kind;
    step.fd = mount.fd;
    const bool is_data = kind == MountStep::Kind::Data;
    step.attributes = is_data ? kQuiet : 0;
    if (is_data) step.mode = 0600;
    for (const std::string& option : mount.options) {
        if (option.starts_with("mode=")) {
            POSTERN_ASSIGN(step.mode, parse_mode(std::string_view(option).substr(std::strlen("mode="))));
        } else if (is_data && (option == "ro" || option == "rw")) {
            if (option == "ro") step.attributes |= MOUNT_ATTR_RDONLY;
        } else {
            return fail("option \"{}\" is not known for {}; known are mode=OCTAL{}", option,
                        mount_type_name(mount.type), is_data ? ", ro, rw" : "");
        }
    }
    if (kind == MountStep::Kind::Chmod && step.mode < 0) return fail("chmod needs \"mode=OCTAL\"");
    const bool takes_data = is_data || kind == MountStep::Kind::File;
    if (takes_data && mount.fd < 0)
        return fail("a {} is made from an open file: only flags can have it", mount_type_name(mount.type));
    return step;
}

Result<MountStep> plan_pseudo(const Mount& mount, MountStep::Kind kind, std::uint64_t attributes,
                              MountStep step) {
    POSTERN_TRY(no_source(mount));
    step.kind = kind;
    step.attributes = attributes;
    for (const std::string& option : mount.options) {
        if (!take_attribute(option, step.attributes)) POSTERN_TRY(unknown_option(mount, option, ""));
    }
    return step;
}

Result<MountStep> plan_symlink(const Mount& mount, MountStep step) {
    if (mount.source.empty() || mount.source.size() > 4095)
        return fail("a link to \"{}\" cannot be", mount.source);
    if (!mount.options.empty()) return fail("option \"{}\": a symlink has none", mount.options.front());
    step.kind = MountStep::Kind::Symlink;
    step.source = mount.source;
    step.attributes = 0;
    return step;
}

/// The mounts that are one step.
Result<MountStep> plan_step(const Mount& mount, MountStep step) {
    switch (mount.type) {
        case Mount::Type::Bind:
            return plan_bind(mount, std::move(step));
        case Mount::Type::Tmpfs:
            return plan_tmpfs(mount, std::move(step));
        case Mount::Type::Overlay:
            return plan_overlay(mount, std::move(step));
        case Mount::Type::Mqueue:
            return plan_pseudo(mount, MountStep::Kind::Mqueue,
                               MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, std::move(step));
        case Mount::Type::Directory:
            return plan_node(mount, MountStep::Kind::Directory, std::move(step));
        case Mount::Type::Symlink:
            return plan_symlink(mount, std::move(step));
        case Mount::Type::File:
            return plan_node(mount, MountStep::Kind::File, std::move(step));
        case Mount::Type::Data:
            return plan_node(mount, MountStep::Kind::Data, std::move(step));
        case Mount::Type::Chmod:
            return plan_node(mount, MountStep::Kind::Chmod, std::move(step));
        case Mount::Type::Ro:
            return plan_pseudo(mount, MountStep::Kind::Seal, MOUNT_ATTR_RDONLY, std::move(step));
        case Mount::Type::Proc:
        case Mount::Type::Dev:
            break;
    }
    return fail("a {} mount is more than one step", mount_type_name(mount.type));
}

Status add_mount(const SandboxSpec& spec, const Mount& mount, const std::string& where,
                 std::vector<MountStep>& steps) {
    POSTERN_TRY(check_target(mount.target, spec.root.kind == Root::Kind::Bare));
    MountStep step;
    step.target = mount.target;
    step.attributes = kQuiet;
    step.where = where;
    if (mount.type != Mount::Type::Proc && mount.type != Mount::Type::Dev) {
        POSTERN_ASSIGN(MountStep planned, plan_step(mount, std::move(step)));
        steps.push_back(std::move(planned));
        return {};
    }
    POSTERN_TRY(no_source(mount));
    std::uint64_t attributes = 0;
    bool writable = false;
    for (const std::string& option : mount.options) {
        if (mount.type == Mount::Type::Dev && option == "writable") {
            writable = true;
            continue;
        }
        // Both are as closed as they can be already; what asks for that is no error.
        if (!take_attribute(option, attributes)) POSTERN_TRY(unknown_option(mount, option, ""));
    }
    if (mount.type == Mount::Type::Proc) {
        add_proc(spec, steps, mount.target, where, attributes, false);
    } else {
        add_dev(steps, mount.target, false, where, writable);
    }
    return {};
}

/// "/", "//", "/usr/..": those name the host's root, which must not come in without its coverings.
bool is_host_root(const std::string& path) {
    struct stat named = {};
    struct stat root = {};
    // What is another folder has another name, too.
    if (::stat(path.c_str(), &named) == 0 && ::stat("/", &root) == 0 &&
        (named.st_ino != root.st_ino || named.st_dev != root.st_dev)) {
        return false;
    }
    const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
    return real && std::string_view(real.get()) == "/";
}

/// Whether the folder `root` is there and has no `path`. Only to do no work in vain: what is mounted there
/// goes only where a folder is, and a folder that comes later is the root's own, read-only and without device
/// nodes.
bool lacks(const std::string& root, const std::string& path) {
    struct stat status = {};
    return ::lstat(root.c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
           ::lstat((root + path).c_str(), &status) != 0 && errno == ENOENT;
}

/// Most bare roots begin with a bind on "/": then that is the root, and a tmpfs below it is saved.
void take_root_from_steps(MountPlan& plan) {
    if (plan.steps.empty()) return;
    const MountStep& first = plan.steps.front();
    if (first.kind != MountStep::Kind::Bind || first.fd >= 0 || !first.recursive || first.optional_source ||
        first.target.find_first_not_of('/') != std::string::npos)
        return;
    plan.root_is_tmpfs = false;
    plan.root_source = first.source;
    plan.root_attributes = first.attributes;
    plan.steps.erase(plan.steps.begin());
}

}  // namespace

Result<MountPlan> make_mount_plan(const SandboxSpec& spec) {
    MountPlan plan;
    if (!spec.namespaces.mount) {
        if (!spec.mounts.empty() || spec.root.kind != Root::Kind::HostReadOnly) {
            return fail("\"mounts\" and \"root\" need the mount namespace; add \"mount\" to the namespaces");
        }
        return plan;
    }
    Root::Kind kind = spec.root.kind;
    if (kind == Root::Kind::Path) {
        if (!spec.root.path.starts_with('/'))
            return fail("root: path \"{}\" is not absolute", spec.root.path);
        if (is_host_root(spec.root.path)) kind = Root::Kind::HostReadOnly;
    }
    plan.root_attributes = MOUNT_ATTR_RDONLY | kQuiet;
    switch (kind) {
        case Root::Kind::HostReadOnly:
            plan.is_host_root = true;
            add_host_coverings(spec, plan.steps);
            break;
        case Root::Kind::Empty:
            plan.root_is_tmpfs = true;
            plan.seal_root = true;
            plan.root_attributes = kQuiet;
            add_proc(spec, plan.steps, "/proc", "/proc", 0, false);
            add_dev(plan.steps, "/dev", false, "/dev");
            plan.steps.push_back(tmpfs_step("/tmp", "1777", "/tmp"));
            break;
        case Root::Kind::Path:
            plan.root_source = spec.root.path;
            add_proc(spec, plan.steps, "/proc", "/proc", 0, true);
            if (!lacks(spec.root.path, "/dev")) add_dev(plan.steps, "/dev", true, "/dev");
            plan.steps.push_back(tmpfs_step("/tmp", "1777", "/tmp"));
            plan.steps.back().optional_target = true;
            break;
        case Root::Kind::Bare:
            plan.root_is_tmpfs = true;
            plan.root_attributes = kQuiet;
            break;
    }
    for (std::size_t i = 0; i < spec.mounts.size(); ++i) {
        const std::string where = fmt::format("mounts[{}]", i);
        if (Status added = add_mount(spec, spec.mounts[i], where, plan.steps); !added) {
            return propagate(std::move(added), where);
        }
    }
    if (spec.root.kind == Root::Kind::Bare) take_root_from_steps(plan);
    return plan;
}

std::string describe(const MountStep& step) {
    std::string flags;
    for (const auto& [bit, name] : {std::pair<std::uint64_t, const char*>{MOUNT_ATTR_RDONLY, " ro"},
                                    {MOUNT_ATTR_NOSUID, " nosuid"},
                                    {MOUNT_ATTR_NODEV, " nodev"},
                                    {MOUNT_ATTR_NOEXEC, " noexec"}}) {
        if ((step.attributes & bit) != 0) flags += name;
    }
    for (const auto& [key, value] : step.parameters)
        flags += value.empty() ? " " + key : fmt::format(" {}={}", key, value);
    switch (step.kind) {
        case MountStep::Kind::Bind:
            return fmt::format("bind {} on {}{}", step.source, step.target, flags);
        case MountStep::Kind::Overlay:
            return fmt::format("overlay on {}{}", step.target, flags);
        case MountStep::Kind::Tmpfs:
            return fmt::format("tmpfs on {}{}", step.target, flags);
        case MountStep::Kind::Proc:
            return fmt::format("proc on {}{}", step.target, flags);
        case MountStep::Kind::Devpts:
            return fmt::format("devpts on {}{}", step.target, flags);
        case MountStep::Kind::Mqueue:
            return fmt::format("mqueue on {}{}", step.target, flags);
        case MountStep::Kind::Directory:
            return fmt::format("folder {}", step.target);
        case MountStep::Kind::Symlink:
            return fmt::format("link {} to {}", step.target, step.source);
        case MountStep::Kind::File:
            return fmt::format("file {} from fd {}", step.target, step.fd);
        case MountStep::Kind::Data:
            return fmt::format("data of fd {} on {}{}", step.fd, step.target, flags);
        case MountStep::Kind::Chmod:
            return fmt::format("mode {:#o} for {}", step.mode, step.target);
        case MountStep::Kind::Cover:
            return fmt::format("cover {}{}", step.target, flags);
        case MountStep::Kind::Seal:
            break;
    }
    return fmt::format("seal {}{}", step.target, flags);
}

}  // namespace postern
