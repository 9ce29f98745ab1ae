// SPDX-License-Identifier: Apache-2.0
#include "launcher/sandbox_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "broker-core/json_reader.h"
#include "broker-core/quantity.h"

namespace postern {
namespace {

using Words = std::vector<std::string>;

std::string absolute(const std::string& path) {
    std::error_code code;
    return std::filesystem::absolute(path, code).lexically_normal().string();
}

Status add_mount(SandboxProfile& sandbox, std::string type, const std::string& source,
                 const std::string& target, Words options) {
    if (!target.starts_with('/')) return fail("\"{}\" is not an absolute path inside the sandbox", target);
    sandbox.mounts.push_back(
        {std::move(type), source.empty() ? source : absolute(source), target, std::move(options)});
    return {};
}

Status set_id(uint32_t& id, const std::string& text) {
    const auto value = parse_quantity(text);
    if (!value || *value > 0xfffffffe) return fail("\"{}\" is no id", text);
    id = static_cast<uint32_t>(*value);
    return {};
}

Status set_rlimit(SandboxProfile& sandbox, const std::string& text) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos) return fail("\"{}\": write NAME=SOFT:HARD, e.g. nofile=64:64", text);
    const std::string value = text.substr(equals + 1);
    const size_t colon = value.find(':');
    const auto soft = parse_quantity(value.substr(0, colon));
    const auto hard = colon == std::string::npos ? soft : parse_quantity(value.substr(colon + 1));
    if (!soft || !hard || *soft > *hard)
        return fail("\"{}\": write NAME=SOFT:HARD with SOFT not above HARD", text);
    sandbox.rlimits[text.substr(0, equals)] = {*soft, *hard};
    return {};
}

}  // namespace

void SandboxFlags::add_to(CLI::App& command) {
    // Each flag may stand several times; its words come in multiples of `count`.
    const auto flag = [&](const std::string& name, int count, const std::string& words,
                          const std::string& help,
                          const std::function<Status(SandboxProfile&, const Words&)>& change) {
        command
            .add_option_function<Words>(
                name,
                [this, name, count, change](const Words& all) {
                    for (size_t i = 0; i + static_cast<size_t>(count) <= all.size();
                         i += static_cast<size_t>(count)) {
                        const auto begin = all.begin() + static_cast<std::ptrdiff_t>(i);
                        const Words some(begin, begin + count);
                        changes_.push_back([name, change, some](SandboxProfile& sandbox) -> Status {
                            if (auto changed = change(sandbox, some); !changed)
                                return propagate(std::move(changed), name);
                            return {};
                        });
                    }
                },
                help)
            ->type_name(words)
            ->type_size(count)
            // From this bound on CLI11 takes `count` words at a time and no more: what follows may be the
            // command.
            ->expected(1, 1 << 25)
            ->allow_extra_args(false)
            ->trigger_on_parse()
            ->group("Sandbox");
    };
    const auto bind = [](const std::string& option, bool device) {
        return [=](SandboxProfile& sandbox, const Words& words) {
            Words options{option};
            if (device) options.emplace_back("dev");
            return add_mount(sandbox, "bind", words[0], words[1], std::move(options));
        };
    };
    const auto bare_mount = [](const std::string& type) {
        return [=](SandboxProfile& sandbox, const Words& words) {
            return add_mount(sandbox, type, "", words[0], {});
        };
    };
    flag("--ro-bind", 2, "SRC DEST", "bind a file or folder of the host, read-only", bind("ro", false));
    flag("--bind", 2, "SRC DEST", "bind a file or folder of the host, writable", bind("rw", false));
    flag("--dev-bind", 2, "SRC DEST", "bind with device nodes usable", bind("rw", true));
    flag("--tmpfs", 1, "DEST", "mount a fresh tmpfs", bare_mount("tmpfs"));
    flag("--proc", 1, "DEST", "mount the sandbox's /proc", bare_mount("proc"));
    flag("--dev", 1, "DEST", "mount a minimal /dev", bare_mount("dev"));
    flag("--setenv", 2, "NAME VALUE", "set an environment variable",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             if (words[0].empty() || words[0].find('=') != std::string::npos)
                 return fail("\"{}\" is no name", words[0]);
             sandbox.env_set[words[0]] = words[1];
             return {};
         });
    flag("--unsetenv", 1, "NAME", "take an environment variable away",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             sandbox.env_set.erase(words[0]);
             std::erase(sandbox.env_keep, words[0]);
             return {};
         });
    flag("--keepenv", 1, "NAME", "pass a variable of the caller on",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             sandbox.env_keep.push_back(words[0]);
             return {};
         });
    flag("--chdir", 1, "DIR", "working folder inside",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             if (!words[0].starts_with('/'))
                 return fail("\"{}\" is not an absolute path inside the sandbox", words[0]);
             sandbox.cwd = words[0];
             return {};
         });
    flag("--hostname", 1, "NAME", "host name inside",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             if (words[0].empty() || words[0].size() > 64) return fail("must have 1 to 64 characters");
             sandbox.hostname = words[0];
             return {};
         });
    flag("--uid", 1, "UID", "user id inside",
         [](SandboxProfile& sandbox, const Words& words) { return set_id(sandbox.uid, words[0]); });
    flag("--gid", 1, "GID", "group id inside",
         [](SandboxProfile& sandbox, const Words& words) { return set_id(sandbox.gid, words[0]); });
    flag("--cap-add", 1, "CAP", "keep a capability",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             sandbox.capabilities.push_back(words[0]);
             return {};
         });
    flag("--root", 1, "host-ro|empty|DIR", "what / is inside",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             sandbox.root = words[0] == "host-ro" || words[0] == "empty" ? words[0] : absolute(words[0]);
             return {};
         });
    flag("--seccomp-profile", 1, "default|none|FILE", "OCI seccomp profile",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             sandbox.seccomp = words[0] == "default" || words[0] == "none" ? words[0] : absolute(words[0]);
             return {};
         });
    flag("--rlimit", 1, "NAME=SOFT:HARD", "resource limit",
         [](SandboxProfile& sandbox, const Words& words) { return set_rlimit(sandbox, words[0]); });
    flag("--time-limit", 1, "TIME", "kill the client after this time, status 124",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             POSTERN_ASSIGN(const auto limit, parse_duration(words[0]));
             if (limit.count() == 0) return fail("must not be 0");
             sandbox.time_limit = limit;
             return {};
         });
    const auto share = [&](const std::string& name, const std::string& what) {
        command
            .add_flag_callback(
                "--share-" + name,
                [this, name] {
                    changes_.push_back([name](SandboxProfile& sandbox) -> Status {
                        std::erase(sandbox.namespaces, name);
                        return {};
                    });
                },
                "share the host's " + what)
            ->group("Sandbox");
    };
    share("net", "network");
    share("pid", "process ids");
    share("ipc", "System V IPC");
    share("uts", "host name");
    share("cgroup", "cgroup view");
    command
        .add_flag_callback(
            "--clearenv",
            [this] {
                changes_.push_back([](SandboxProfile& sandbox) -> Status {
                    sandbox.env_set.clear();
                    sandbox.env_keep.clear();
                    return {};
                });
            },
            "pass no environment")
        // In its turn: what is set behind it stays.
        ->trigger_on_parse()
        ->group("Sandbox");
}

Status SandboxFlags::apply(SandboxProfile& sandbox) const {
    for (const Change& change : changes_) POSTERN_TRY(change(sandbox));
    return {};
}

}  // namespace postern
