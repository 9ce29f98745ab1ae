// SPDX-License-Identifier: Apache-2.0
#include "launcher/sandbox_flags.h"

#include <fcntl.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <climits>
#include <filesystem>
#include <type_traits>

#include "broker-core/json_reader.h"
#include "broker-core/quantity.h"
#include "launcher/raw_filter.h"
#include "launcher/sandbox_spec.h"

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

Status set_clock(SandboxProfile& sandbox, int64_t& offset, const std::string& text) {
    const auto value = parse_quantity(text);
    if (!value || *value > (uint64_t{1} << 33)) return fail("\"{}\" is no number of seconds", text);
    offset = static_cast<int64_t>(*value);
    if (std::find(sandbox.namespaces.begin(), sandbox.namespaces.end(), "time") == sandbox.namespaces.end())
        sandbox.namespaces.emplace_back("time");
    return {};
}

/// The number of an open file of the caller's.
Result<int> parse_fd(const std::string& text) {
    const auto value = parse_quantity(text);
    if (!value || *value > INT_MAX) return fail("\"{}\" is no file descriptor", text);
    const auto fd = static_cast<int>(*value);
    if (::fcntl(fd, F_GETFD) < 0) return fail("fd {} is not open; give the number of an open file", fd);
    return fd;
}

/// Mount's option for the mode that was given before, with `usual` where none was.
std::string taken_mode(PendingFlags& pending, const char* usual) {
    const std::string mode = pending.mode.value_or(usual);
    pending.mode.reset();
    return "mode=" + mode;
}

Status add_from_fd(SandboxProfile& sandbox, const std::string& type, const Words& words, Words options) {
    POSTERN_ASSIGN(const int fd, parse_fd(words[0]));
    POSTERN_TRY(add_mount(sandbox, type, "", words[1], std::move(options)));
    sandbox.mounts.back().fd = fd;
    return {};
}

/// The folder or file itself is bound, whatever its path leads to by then.
Status bind_fd(SandboxProfile& sandbox, const Words& words, const std::string& access) {
    POSTERN_ASSIGN(const int fd, parse_fd(words[0]));
    std::error_code code;
    const auto path = std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", fd), code);
    if (code || !path.is_absolute()) return fail("fd {} is not of a file with a path", fd);
    POSTERN_TRY(add_mount(sandbox, "bind", path.string(), words[1], {access}));
    sandbox.mounts.back().fd = fd;
    return {};
}

Status tmpfs(SandboxProfile& sandbox, PendingFlags& pending, const Words& words) {
    Words options;
    if (pending.mode) options.push_back(taken_mode(pending, ""));
    if (pending.size) options.push_back("size=" + *pending.size);
    pending.size.reset();
    return add_mount(sandbox, "tmpfs", "", words[0], std::move(options));
}

Status overlay(SandboxProfile& sandbox, PendingFlags& pending, const std::string& target, Words options,
               size_t least) {
    if (pending.layers.size() < least)
        return fail("needs at least {} --overlay-src before it, has {}", least, pending.layers.size());
    options.push_back(lower_layers_option(pending.layers));
    pending.layers.clear();
    return add_mount(sandbox, "overlay", "", target, std::move(options));
}

template <typename Flag>
void add_overlay_flags(const Flag& flag) {
    flag("--overlay-src", 1, "SRC", "a lower folder of the overlay that follows, above those before it",
         [](SandboxProfile&, PendingFlags& pending, const Words& words) -> Status {
             pending.layers.push_back(absolute(words[0]));
             return {};
         });
    flag("--overlay", 3, "RWSRC WORKDIR DEST", "overlay on DEST that writes to RWSRC",
         [](SandboxProfile& sandbox, PendingFlags& pending, const Words& words) {
             return overlay(sandbox, pending, words[2],
                            {"upperdir=" + absolute(words[0]), "workdir=" + absolute(words[1])}, 1);
         });
    flag("--tmp-overlay", 1, "DEST", "overlay on DEST that forgets what is written",
         [](SandboxProfile& sandbox, PendingFlags& pending, const Words& words) {
             return overlay(sandbox, pending, words[0], {"scratch"}, 1);
         });
    flag("--ro-overlay", 1, "DEST", "overlay on DEST, read-only",
         [](SandboxProfile& sandbox, PendingFlags& pending, const Words& words) {
             return overlay(sandbox, pending, words[0], {}, 2);
         });
}

/// bubblewrap's other ways to fill the tree.
template <typename Flag>
void add_file_flags(const Flag& flag) {
    const auto bind_if_there = [](const Words& options) {
        return [=](SandboxProfile& sandbox, const Words& words) {
            return add_mount(sandbox, "bind", words[0], words[1], options);
        };
    };
    flag("--ro-bind-try", 2, "SRC DEST", "as --ro-bind, if SRC is there", bind_if_there({"ro", "optional"}));
    flag("--bind-try", 2, "SRC DEST", "as --bind, if SRC is there", bind_if_there({"rw", "optional"}));
    flag("--dev-bind-try", 2, "SRC DEST", "as --dev-bind, if SRC is there",
         bind_if_there({"rw", "dev", "optional"}));
    flag("--ro-bind-fd", 2, "FD DEST", "bind an open file or folder, read-only",
         [](SandboxProfile& sandbox, const Words& words) { return bind_fd(sandbox, words, "ro"); });
    flag("--bind-fd", 2, "FD DEST", "bind an open file or folder, writable",
         [](SandboxProfile& sandbox, const Words& words) { return bind_fd(sandbox, words, "rw"); });
    flag("--mqueue", 1, "DEST", "mount POSIX message queues",
         [](SandboxProfile& sandbox, const Words& words) {
             return add_mount(sandbox, "mqueue", "", words[0], {});
         });
    flag("--perms", 1, "OCTAL", "mode of what the next flag makes: --dir, --tmpfs, --file, --bind-data",
         [](SandboxProfile&, PendingFlags& pending, const Words& words) -> Status {
             pending.mode = words[0];
             return {};
         });
    flag("--size", 1, "BYTES", "size of the next --tmpfs",
         [](SandboxProfile&, PendingFlags& pending, const Words& words) -> Status {
             const auto size = parse_quantity(words[0]);
             if (!size || *size == 0) return fail("\"{}\" is no size", words[0]);
             pending.size = std::to_string(*size);
             return {};
         });
    flag("--dir", 1, "DEST", "make a folder",
         [](SandboxProfile& sandbox, PendingFlags& pending, const Words& words) {
             return add_mount(sandbox, "dir", "", words[0], {taken_mode(pending, "0755")});
         });
    flag("--symlink", 2, "SRC DEST", "make a symbolic link at DEST to SRC",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             POSTERN_TRY(add_mount(sandbox, "symlink", "", words[1], {}));
             sandbox.mounts.back().source = words[0];
             return {};
         });
    flag("--file", 2, "FD DEST", "make a file with what FD has",
         [](SandboxProfile& sandbox, PendingFlags& pending, const Words& words) {
             return add_from_fd(sandbox, "file", words, {taken_mode(pending, "0666")});
         });
    flag("--bind-data", 2, "FD DEST", "the same, bound on DEST, writable",
         [](SandboxProfile& sandbox, PendingFlags& pending, const Words& words) {
             return add_from_fd(sandbox, "data", words, {taken_mode(pending, "0600")});
         });
    flag("--ro-bind-data", 2, "FD DEST", "the same, bound on DEST, read-only",
         [](SandboxProfile& sandbox, PendingFlags& pending, const Words& words) {
             return add_from_fd(sandbox, "data", words, {taken_mode(pending, "0600"), "ro"});
         });
    flag("--chmod", 2, "OCTAL PATH", "change the mode of what is there",
         [](SandboxProfile& sandbox, const Words& words) {
             return add_mount(sandbox, "chmod", "", words[1], {"mode=" + words[0]});
         });
    flag("--remount-ro", 1, "DEST", "make a mount read-only, not those below",
         [](SandboxProfile& sandbox, const Words& words) {
             return add_mount(sandbox, "ro", "", words[0], {});
         });
}

/// Most flags mean nothing to those behind them.
template <typename Change>
Status call(const Change& change, SandboxProfile& sandbox, PendingFlags& pending, const Words& words) {
    if constexpr (std::is_invocable_v<Change, SandboxProfile&, PendingFlags&, const Words&>) {
        return change(sandbox, pending, words);
    } else {
        return change(sandbox, words);
    }
}

std::string lower_case(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return text;
}

/// Each adds to a list, and makes one of none.
template <typename Flag>
void add_landlock_flags(const Flag& flag) {
    const auto path = [](std::optional<Words> LandlockRules::*list) {
        return [list](SandboxProfile& sandbox, const Words& words) -> Status {
            if (!words[0].starts_with('/'))
                return fail("\"{}\" is not an absolute path inside the sandbox", words[0]);
            auto& paths = sandbox.landlock.*list;
            if (!paths) paths.emplace();
            paths->push_back(words[0]);
            return {};
        };
    };
    const auto port = [](std::optional<std::vector<uint16_t>> LandlockRules::*list) {
        return [list](SandboxProfile& sandbox, const Words& words) -> Status {
            const auto value = parse_quantity(words[0]);
            if (!value || *value > UINT16_MAX) return fail("\"{}\" is no port", words[0]);
            auto& ports = sandbox.landlock.*list;
            if (!ports) ports.emplace();
            ports->push_back(static_cast<uint16_t>(*value));
            return {};
        };
    };
    flag("--landlock-read", 1, "PATH", "by Landlock, only this and what is below can be read",
         path(&LandlockRules::read));
    flag("--landlock-write", 1, "PATH", "only this can be changed", path(&LandlockRules::write));
    flag("--landlock-execute", 1, "PATH", "only this can be executed", path(&LandlockRules::execute));
    flag("--landlock-ioctl", 1, "PATH", "only devices here take ioctls", path(&LandlockRules::ioctl));
    flag("--landlock-bind-tcp", 1, "PORT", "TCP sockets can be bound to this port only",
         port(&LandlockRules::bind_tcp));
    flag("--landlock-connect-tcp", 1, "PORT", "TCP connections can go to this port only",
         port(&LandlockRules::connect_tcp));
}

}  // namespace

void SandboxFlags::add_to(CLI::App& command) {
    // Each flag may stand several times; its words come in multiples of `count`.
    const auto flag = [&](const std::string& name, int count, const std::string& words,
                          const std::string& help, const auto& change) {
        command
            .add_option_function<Words>(
                name,
                [this, name, count, change](const Words& all) {
                    for (size_t i = 0; i + static_cast<size_t>(count) <= all.size();
                         i += static_cast<size_t>(count)) {
                        const auto begin = all.begin() + static_cast<std::ptrdiff_t>(i);
                        const Words some(begin, begin + count);
                        changes_.push_back(
                            [name, change, some](SandboxProfile& sandbox, PendingFlags& pending) -> Status {
                                if (auto changed = call(change, sandbox, pending, some); !changed)
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
    const auto toggle = [&](const std::string& name, const std::string& help, const auto& change) {
        command
            .add_flag_callback(
                name,
                [this, change] {
                    changes_.push_back([change](SandboxProfile& sandbox, PendingFlags&) -> Status {
                        change(sandbox);
                        return {};
                    });
                },
                help)
            // In its turn: what is said behind it stays.
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
    flag("--tmpfs", 1, "DEST", "mount a fresh tmpfs", &tmpfs);
    flag("--proc", 1, "DEST", "mount the sandbox's /proc", bare_mount("proc"));
    flag("--dev", 1, "DEST", "mount a minimal /dev", bare_mount("dev"));
    add_file_flags(flag);
    add_overlay_flags(flag);
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
    flag("--cap-drop", 1, "CAP", "keep it no more; ALL: none",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             const std::string name = lower_case(words[0]);
             if (name == "all") {
                 sandbox.capabilities.clear();
                 return {};
             }
             POSTERN_ASSIGN(const unsigned dropped, capability_from_name(name));
             std::erase_if(sandbox.capabilities, [&](const std::string& kept) {
                 const auto number = capability_from_name(kept);
                 return number && *number == dropped;
             });
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
             sandbox.seccomp_program.reset();
             return {};
         });
    flag("--seccomp", 1, "FD", "the program for seccomp(2) that is read from FD, in place of a profile",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             POSTERN_ASSIGN(const int fd, parse_fd(words[0]));
             POSTERN_ASSIGN(sandbox.seccomp_program, read_raw_filter(fd));
             return {};
         });
    flag("--rlimit", 1, "NAME=SOFT:HARD", "resource limit",
         [](SandboxProfile& sandbox, const Words& words) { return set_rlimit(sandbox, words[0]); });
    const auto duration = [](std::optional<std::chrono::milliseconds> SandboxProfile::*member) {
        return [member](SandboxProfile& sandbox, const Words& words) -> Status {
            POSTERN_ASSIGN(const auto limit, parse_duration(words[0]));
            if (limit.count() == 0) return fail("must not be 0");
            sandbox.*member = limit;
            return {};
        };
    };
    flag("--time-limit", 1, "TIME", "kill the client after this time, status 124",
         duration(&SandboxProfile::time_limit));
    flag("--cpu-limit", 1, "TIME", "kill each process that has used so much CPU time; the client: status 124",
         duration(&SandboxProfile::cpu_limit));
    flag("--netns", 1, "FILE", "join this network namespace, e.g. /run/netns/NAME",
         [](SandboxProfile& sandbox, const Words& words) -> Status {
             sandbox.netns = absolute(words[0]);
             return {};
         });
    flag("--monotonic", 1, "SECONDS", "a time namespace, whose monotonic clock is so far ahead",
         [](SandboxProfile& sandbox, const Words& words) {
             return set_clock(sandbox, sandbox.monotonic_offset, words[0]);
         });
    flag("--boottime", 1, "SECONDS", "a time namespace, whose clock since boot is so far ahead",
         [](SandboxProfile& sandbox, const Words& words) {
             return set_clock(sandbox, sandbox.boottime_offset, words[0]);
         });
    const auto plain = [&](const std::string& name, const std::string& help, bool SandboxProfile::*member,
                           bool value) {
        toggle(name, help, [member, value](SandboxProfile& sandbox) { sandbox.*member = value; });
    };
    add_landlock_flags(flag);
    toggle("--landlock-require", "fail where the kernel's Landlock lacks what is asked for",
           [](SandboxProfile& sandbox) { sandbox.landlock.require = true; });
    plain("--loopback", "set the loopback interface up", &SandboxProfile::loopback, true);
    plain("--as-pid-1", "the client is pid 1, with no init that reaps", &SandboxProfile::client_is_init,
          true);
    plain("--disable-userns", "no user namespaces inside", &SandboxProfile::disable_userns, true);
    plain("--subids", "the caller's subordinate ids, too (/etc/subuid, /etc/subgid)", &SandboxProfile::subids,
          true);
    plain("--new-session", "a session of its own, as without this flag", &SandboxProfile::new_session, true);
    plain("--share-session", "stay in the caller's session, with its terminal", &SandboxProfile::new_session,
          false);
    toggle("--die-with-parent", "the client dies with postern, as without this flag", [](SandboxProfile&) {});
    const auto unshare = [](SandboxProfile& sandbox, const std::string& name) {
        std::erase(sandbox.namespaces, name);
        sandbox.namespaces.push_back(name);
    };
    const std::vector<std::string> kinds{"user", "pid", "net", "ipc", "uts", "cgroup"};
    toggle("--unshare-all", "an own namespace of each kind but time, as without flags",
           [=](SandboxProfile& sandbox) {
               for (const std::string& name : kinds) unshare(sandbox, name);
           });
    for (const std::string& name : kinds)
        toggle("--unshare-" + name, fmt::format("an own {} namespace", name),
               [=](SandboxProfile& sandbox) { unshare(sandbox, name); });
    for (const auto& [name, what] :
         {std::pair{"net", "network"}, std::pair{"pid", "process ids"}, std::pair{"ipc", "System V IPC"},
          std::pair{"uts", "host name"}, std::pair{"cgroup", "cgroup view"}}) {
        toggle(fmt::format("--share-{}", name), fmt::format("share the host's {}", what),
               [shared = std::string(name)](SandboxProfile& sandbox) {
                   std::erase(sandbox.namespaces, shared);
               });
    }
    toggle("--clearenv", "pass no environment", [](SandboxProfile& sandbox) {
        sandbox.env_set.clear();
        sandbox.env_keep.clear();
    });
}

Status SandboxFlags::apply(SandboxProfile& sandbox) const {
    PendingFlags pending;
    for (const Change& change : changes_) POSTERN_TRY(change(sandbox, pending));
    if (pending.mode) return fail("--perms: no --dir, --tmpfs, --file or --bind-data follows it");
    if (pending.size) return fail("--size: no --tmpfs follows it");
    if (!pending.layers.empty())
        return fail("--overlay-src: no --overlay, --tmp-overlay or --ro-overlay follows it");
    return {};
}

}  // namespace postern
