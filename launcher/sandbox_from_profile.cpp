// SPDX-License-Identifier: Apache-2.0
#include "launcher/sandbox_from_profile.h"

#include <sys/resource.h>

#include "broker-core/file.h"
#include "launcher/seccomp_filter.h"
#include "launcher/seccomp_profile.h"
#include "launcher/tcp_filter.h"

namespace postern {
namespace {

constexpr size_t kMaxSeccompBytes = 4 << 20;

/// With some arguments is enough.
bool allows(const SeccompProfile& filter, std::string_view call) {
    const auto passes = [](const SeccompAction& action) {
        return action.kind == SeccompAction::Kind::Allow || action.kind == SeccompAction::Kind::Log ||
               action.kind == SeccompAction::Kind::Trace;
    };
    return passes(filter.default_action) ||
           std::any_of(filter.rules.begin(), filter.rules.end(),
                       [&](const SeccompRule& rule) { return rule.name == call && passes(rule.action); });
}

/// `reaches_keys`: the filter lets the client ask for keys.
Result<std::vector<sock_filter>> seccomp_program(const Profile& profile, const SandboxSpec& spec,
                                                 std::vector<ReadFile>* read, bool& reaches_keys) {
    const std::string& name = profile.sandbox.seccomp;
    reaches_keys = true;
    if (profile.sandbox.seccomp_program) return *profile.sandbox.seccomp_program;
    if (name == "none") return std::vector<sock_filter>{};
    std::string file = name;
    if (name == "default") {
        file = program_prefix() + "/share/postern/profiles/seccomp/default.json";
    } else if (!name.starts_with('/')) {
        file = profile.folder + "/" + name;
    }
    POSTERN_ASSIGN(std::string text, read_file(file, kMaxSeccompBytes));
    auto parsed = parse_seccomp_profile(text, seccomp_conditions(spec.capabilities));
    if (!parsed) return propagate(std::move(parsed), file);
    reaches_keys = allows(*parsed, "keyctl") || allows(*parsed, "request_key") || allows(*parsed, "add_key");
    if (read != nullptr) read->push_back({file, std::move(text)});
    return compile_seccomp_filter(*parsed).map_error(
        [&](Error error) { return std::move(error).within(file); });
}

}  // namespace

Result<SandboxSpec> sandbox_from_profile(const Profile& profile, const std::vector<std::string>& environment,
                                         std::vector<ReadFile>* read) {
    const SandboxProfile& sandbox = profile.sandbox;
    const auto context = [&](std::string_view key) {
        return profile.name.empty() ? fmt::format("sandbox.{}", key)
                                    : fmt::format("profile {}: sandbox.{}", profile.name, key);
    };
    SandboxSpec spec;
    auto namespaces = namespaces_from_names(sandbox.namespaces);
    if (!namespaces) return propagate(std::move(namespaces), context("namespaces"));
    spec.namespaces = *namespaces;
    if (sandbox.root == "empty") {
        spec.root = {Root::Kind::Empty};
    } else if (sandbox.root != "host-ro") {
        spec.root = {Root::Kind::Path, sandbox.root};
    }
    for (size_t i = 0; i < sandbox.mounts.size(); ++i) {
        const MountEntry& entry = sandbox.mounts[i];
        auto type = mount_type_from_name(entry.type);
        if (!type) return propagate(std::move(type), context(fmt::format("mounts[{}]", i)));
        std::string source = entry.source;
        if (*type == Mount::Type::Bind && entry.fd < 0 && !source.starts_with('/'))
            source = fmt::format("{}/{}", profile.folder, source);
        spec.mounts.push_back({*type, source, entry.target, entry.options, entry.fd});
    }
    for (const std::string& name : sandbox.capabilities) {
        auto capability = capability_from_name(name);
        if (!capability) return propagate(std::move(capability), context("capabilities"));
        spec.capabilities.push_back(*capability);
    }
    auto program = seccomp_program(profile, spec, read, spec.new_keyring);
    if (!program) return propagate(std::move(program), context("seccomp"));
    if (!program->empty()) spec.seccomp = {std::move(*program)};
    spec.no_new_privs = sandbox.no_new_privs;
    spec.landlock = sandbox.landlock;
    if (spec.landlock.bind_tcp || spec.landlock.connect_tcp) {
        POSTERN_ASSIGN(auto ways_around, tcp_filter());
        // First: the profile's own may not let another one be installed.
        spec.seccomp.insert(spec.seccomp.begin(), std::move(ways_around));
    }
    for (const auto& [name, limits] : sandbox.rlimits) {
        auto resource = rlimit_from_name(name);
        if (!resource) return propagate(std::move(resource), context("rlimits"));
        spec.rlimits.push_back({*resource, limits.first, limits.second});
    }
    if (sandbox.cpu_limit) {
        if (sandbox.rlimits.contains("cpu"))
            return fail("{}: rlimits has \"cpu\", which limits the same; leave one of them out",
                        context("cpu_limit"));
        // The kernel counts whole seconds. A client that goes on after SIGXCPU is killed by the hard limit.
        spec.cpu_limit = std::chrono::ceil<std::chrono::seconds>(*sandbox.cpu_limit);
        const auto soft = static_cast<std::uint64_t>(spec.cpu_limit->count());
        spec.rlimits.push_back({RLIMIT_CPU, soft, soft + 1});
    }
    spec.uid = sandbox.uid;
    spec.gid = sandbox.gid;
    spec.subids = sandbox.subids;
    spec.uid_map = sandbox.uid_map;
    spec.gid_map = sandbox.gid_map;
    if (spec.namespaces.uts) spec.hostname = sandbox.hostname;
    spec.env = client_environment(sandbox.env_keep, sandbox.env_set, environment);
    spec.cwd = sandbox.cwd;
    spec.time_limit = sandbox.time_limit;
    spec.net_path = sandbox.netns;
    // Both at once is what somebody wants who names one to join: the default has a new one.
    if (!spec.net_path.empty()) spec.namespaces.net = false;
    spec.loopback_up = sandbox.loopback;
    spec.new_session = sandbox.new_session;
    spec.as_pid_1 = sandbox.client_is_init;
    spec.no_more_user_namespaces = sandbox.disable_userns;
    spec.monotonic_offset = sandbox.monotonic_offset;
    spec.boottime_offset = sandbox.boottime_offset;
    return spec;
}

}  // namespace postern
