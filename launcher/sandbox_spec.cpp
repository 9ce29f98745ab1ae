// SPDX-License-Identifier: Apache-2.0
#include "launcher/sandbox_spec.h"

#include <linux/mount.h>
#include <sys/resource.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <iterator>

#include "launcher/landlock_plan.h"
#include "launcher/mount_plan.h"

namespace postern {
namespace {

struct NamespaceName {
    const char* name;
    bool Namespaces::*member;
};
constexpr NamespaceName kNamespaces[] = {
    {"user", &Namespaces::user},     {"pid", &Namespaces::pid},   {"mount", &Namespaces::mount},
    {"net", &Namespaces::net},       {"ipc", &Namespaces::ipc},   {"uts", &Namespaces::uts},
    {"cgroup", &Namespaces::cgroup}, {"time", &Namespaces::time},
};

struct LimitName {
    std::string_view name;
    int resource;
};
constexpr LimitName kLimits[] = {
    {"as", RLIMIT_AS},           {"core", RLIMIT_CORE},         {"cpu", RLIMIT_CPU},
    {"data", RLIMIT_DATA},       {"fsize", RLIMIT_FSIZE},       {"locks", RLIMIT_LOCKS},
    {"memlock", RLIMIT_MEMLOCK}, {"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE},
    {"nofile", RLIMIT_NOFILE},   {"nproc", RLIMIT_NPROC},       {"rss", RLIMIT_RSS},
    {"rtprio", RLIMIT_RTPRIO},   {"rttime", RLIMIT_RTTIME},     {"sigpending", RLIMIT_SIGPENDING},
    {"stack", RLIMIT_STACK},
};

constexpr std::string_view kMountTypes[] = {"bind", "tmpfs",   "proc", "dev",  "overlay", "mqueue",
                                            "dir",  "symlink", "file", "data", "chmod",   "ro"};

std::string limit_text(std::uint64_t value) {
    return value == RLIM64_INFINITY ? "unlimited" : std::to_string(value);
}

std::string joined(const std::vector<std::string>& words, const char* none) {
    if (words.empty()) return none;
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
    return text;
}

std::size_t instruction_count(const std::vector<std::vector<sock_filter>>& programs) {
    std::size_t count = 0;
    for (const auto& program : programs) count += program.size();
    return count;
}

/// By their numbers, CAP_… of linux/capability.h. (libcap, which has them too, begins with work at each
/// start.)
constexpr std::string_view kCapabilities[] = {
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
};

}  // namespace

Result<Namespaces> namespaces_from_names(const std::vector<std::string>& names) {
    Namespaces result{false, false, false, false, false, false, false, false};
    for (const std::string& name : names) {
        const auto* entry =
            std::find_if(std::begin(kNamespaces), std::end(kNamespaces),
                         [&](const NamespaceName& candidate) { return name == candidate.name; });
        if (entry == std::end(kNamespaces)) {
            return fail(
                "namespace \"{}\" is not known; known are user, pid, mount, net, ipc, uts, cgroup, "
                "time",
                name);
        }
        result.*entry->member = true;
    }
    return result;
}

std::vector<std::string> namespace_names(const Namespaces& namespaces) {
    std::vector<std::string> names;
    for (const NamespaceName& entry : kNamespaces) {
        if (namespaces.*entry.member) names.emplace_back(entry.name);
    }
    return names;
}

Result<Mount::Type> mount_type_from_name(std::string_view name) {
    const auto* entry = std::find(std::begin(kMountTypes), std::end(kMountTypes), name);
    if (entry == std::end(kMountTypes)) {
        return fail(
            "mount type \"{}\" is not known; known are bind, tmpfs, proc, dev, overlay, mqueue, dir, "
            "symlink, "
            "chmod, ro",
            name);
    }
    return static_cast<Mount::Type>(entry - std::begin(kMountTypes));
}

std::string_view mount_type_name(Mount::Type type) {
    return kMountTypes[static_cast<std::size_t>(type)];
}

Result<int> rlimit_from_name(std::string_view name) {
    for (const LimitName& entry : kLimits) {
        if (entry.name == name) return entry.resource;
    }
    return fail(
        "resource limit \"{}\" is not known; the names are those of setrlimit(2), small and without RLIMIT_",
        name);
}

std::string_view rlimit_name(int resource) {
    for (const LimitName& entry : kLimits) {
        if (entry.resource == resource) return entry.name;
    }
    return "?";
}

std::string lower_layers_option(const std::vector<std::string>& from_bottom) {
    std::string option = "lowerdir=";
    for (auto layer = from_bottom.rbegin(); layer != from_bottom.rend(); ++layer) {
        if (layer != from_bottom.rbegin()) option += ':';
        for (const char c : *layer) {
            if (c == ':' || c == '\\') option += '\\';
            option += c;
        }
    }
    return option;
}

Result<unsigned> capability_from_name(std::string_view name) {
    std::string lower(name);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const std::string_view bare = std::string_view(lower).substr(lower.starts_with("cap_") ? 4 : 0);
    const auto* found = std::find(std::begin(kCapabilities), std::end(kCapabilities), bare);
    if (found == std::end(kCapabilities))
        return fail("capability \"{}\" is not known; see capabilities(7)", name);
    return static_cast<unsigned>(found - std::begin(kCapabilities));
}

std::string capability_name(unsigned capability) {
    if (capability >= std::size(kCapabilities)) return std::to_string(capability);
    std::string upper = "cap_" + std::string(kCapabilities[capability]);
    std::transform(upper.begin(), upper.end(), upper.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    return upper;
}

std::vector<std::string> describe_sandbox(const SandboxSpec& spec) {
    std::vector<std::string> lines;
    lines.push_back("new namespaces: " + joined(namespace_names(spec.namespaces), "none"));
    if (spec.cgroup_fd >= 0) lines.emplace_back("born in a cgroup of its own");
    if (const Result<MountPlan> plan = make_mount_plan(spec); !plan) {
        lines.push_back("cannot be made: " + plan.error().message);
    } else if (spec.namespaces.mount) {
        lines.push_back(
            plan->root_is_tmpfs
                ? fmt::format("root: an empty tmpfs{}", plan->seal_root ? ", read-only at the end" : "")
                : fmt::format("root: {}{}, nosuid{}", plan->root_source,
                              (plan->root_attributes & MOUNT_ATTR_RDONLY) != 0 ? " read-only" : "",
                              (plan->root_attributes & MOUNT_ATTR_NODEV) != 0 ? ", nodev" : ""));
        for (const MountStep& step : plan->steps) lines.push_back("mount: " + describe(step));
    }
    lines.push_back(fmt::format("user: uid {} gid {}, no supplementary groups{}", spec.uid, spec.gid,
                                spec.subids            ? ", subordinate ids"
                                : spec.uid_map.empty() ? ""
                                                       : ", the ids of its maps"));
    if (spec.hostname) lines.push_back("host name: " + *spec.hostname);
    lines.push_back(fmt::format("loopback: {}", spec.loopback_up ? "up" : "as it is"));
    std::vector<std::string> capabilities;
    for (const unsigned capability : spec.capabilities) capabilities.push_back(capability_name(capability));
    lines.push_back("capabilities: " + joined(capabilities, "none"));
    lines.push_back(fmt::format("no_new_privs: {}", spec.no_new_privs ? "yes" : "no"));
    lines.push_back("landlock: " + describe(spec.landlock));
    lines.push_back(spec.seccomp.empty()
                        ? "seccomp: none"
                        : fmt::format("seccomp: {} filter{}, {} instructions", spec.seccomp.size(),
                                      spec.seccomp.size() == 1 ? "" : "s", instruction_count(spec.seccomp)));
    for (const ResourceLimit& limit : spec.rlimits) {
        lines.push_back(fmt::format("limit {}: {} {}", rlimit_name(limit.resource), limit_text(limit.soft),
                                    limit_text(limit.hard)));
    }
    if (spec.time_limit) lines.push_back(fmt::format("time limit: {} ms", spec.time_limit->count()));
    if (spec.cpu_limit) lines.push_back(fmt::format("limit of CPU time: {} s", spec.cpu_limit->count()));
    lines.push_back(spec.new_session ? "session: its own" : "session: the launcher's");
    if (spec.new_keyring) lines.emplace_back("keyring: its own");
    lines.push_back("working folder: " + spec.cwd.value_or("the caller's if it is there inside, else /"));
    for (const std::string& variable : spec.env) lines.push_back("environment: " + variable);
    for (std::size_t i = 0; i < spec.fds.size(); ++i)
        lines.push_back(fmt::format("fd {}: {}", i + 3, spec.fds[i].name));
    lines.push_back("command: " + joined(spec.argv, "none"));
    return lines;
}

}  // namespace postern
