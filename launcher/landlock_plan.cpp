// SPDX-License-Identifier: Apache-2.0
#include "launcher/landlock_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "launcher/landlock_uapi.h"

namespace postern {
namespace {

using namespace landlock;

constexpr std::uint64_t kRead = kReadFile | kReadDir;
constexpr std::uint64_t kWrite = kWriteFile | kRemoveAndMake | kRefer | kTruncate;

std::uint64_t known_fs(int abi) {
    std::uint64_t known = 0;
    if (abi >= 1) known |= kExecute | kWriteFile | kRead | kRemoveAndMake;
    if (abi >= 2) known |= kRefer;
    if (abi >= 3) known |= kTruncate;
    if (abi >= 5) known |= kIoctlDev;
    return known;
}

struct PathGroup {
    std::string_view key;
    std::optional<std::vector<std::string>> LandlockRules::*paths;
    std::uint64_t handled;
    std::uint64_t allowed;  ///< at its paths
    int abi;                ///< that knows all of it
};
constexpr PathGroup kPathGroups[] = {
    {"read", &LandlockRules::read, kRead, kRead, 1},
    {"write", &LandlockRules::write, kWrite, kWrite | kRead, 3},
    {"execute", &LandlockRules::execute, kExecute, kExecute | kRead, 1},
    {"ioctl", &LandlockRules::ioctl, kIoctlDev, kIoctlDev, 5},
};

struct PortGroup {
    std::string_view key;
    std::optional<std::vector<std::uint16_t>> LandlockRules::*ports;
    std::uint64_t access;
};
constexpr PortGroup kPortGroups[] = {
    {"bind_tcp", &LandlockRules::bind_tcp, kBindTcp},
    {"connect_tcp", &LandlockRules::connect_tcp, kConnectTcp},
};
constexpr int kTcpAbi = 4;
constexpr int kScopeAbi = 6;

/// Linux that brought each ABI, from 1 on.
constexpr std::array<std::string_view, kScopeAbi> kLinux = {"5.13", "5.19", "6.2", "6.7", "6.10", "6.12"};

struct Gap {
    std::string_view key;
    int abi;
};

std::vector<Gap> find_gaps(const LandlockRules& rules, int abi) {
    std::vector<Gap> gaps;
    for (const PathGroup& group : kPathGroups) {
        if (rules.*group.paths && abi < group.abi) gaps.push_back({group.key, group.abi});
    }
    for (const PortGroup& group : kPortGroups) {
        if (rules.*group.ports && abi < kTcpAbi) gaps.push_back({group.key, kTcpAbi});
    }
    if (rules.has_scopes() && abi < kScopeAbi) gaps.push_back({"scopes", kScopeAbi});
    return gaps;
}

std::string have(int abi) {
    return abi < 1 ? "this kernel has no Landlock, or it is switched off (lsm=)"
                   : fmt::format("this kernel has ABI {}", abi);
}

}  // namespace

Result<LandlockPlan> make_landlock_plan(const LandlockRules& rules, int abi) {
    if (rules.require) {
        for (const Gap& gap : find_gaps(rules, abi)) {
            return fail(
                "landlock: \"{}\" takes Landlock's ABI {} (Linux {}), and {}; leave it out, or \"require\"",
                gap.key, gap.abi, kLinux[static_cast<std::size_t>(gap.abi - 1)], have(abi));
        }
    }
    LandlockPlan plan;
    const std::uint64_t known = known_fs(abi);
    for (const PathGroup& group : kPathGroups) {
        if (rules.*group.paths) plan.handled_fs |= group.handled & known;
    }
    for (const PathGroup& group : kPathGroups) {
        if (!(rules.*group.paths)) continue;
        for (const std::string& path : *(rules.*group.paths)) {
            if (const std::uint64_t access = group.allowed & plan.handled_fs; access != 0)
                plan.paths.push_back({path, access});
        }
    }
    // Of all rights this one alone is refused unless it is granted: without it no file could be moved from
    // folder to folder any more.
    if (plan.handled_fs != 0 && !rules.write && (known & kRefer) != 0) {
        plan.handled_fs |= kRefer;
        plan.paths.push_back({"/", kRefer});
    }
    for (const PortGroup& group : kPortGroups) {
        if (!(rules.*group.ports) || abi < kTcpAbi) continue;
        plan.handled_net |= group.access;
        for (const std::uint16_t port : *(rules.*group.ports)) plan.ports.push_back({port, group.access});
    }
    if (abi >= kScopeAbi) {
        if (rules.scope_sockets) plan.scoped |= kScopeAbstractUnixSocket;
        if (rules.scope_signals) plan.scoped |= kScopeSignal;
    }
    return plan;
}

std::vector<std::string> landlock_gaps(const LandlockRules& rules, int abi) {
    std::vector<std::string> lines;
    for (const Gap& gap : find_gaps(rules, abi)) {
        if (gap.key == "scopes" || rules.require) continue;
        const bool in_part = gap.key == "write" && abi >= 1;
        lines.push_back(
            fmt::format("sandbox.landlock.{} is {}: that takes Landlock's ABI {} (Linux {}), and {}", gap.key,
                        in_part ? "not enforced for truncate(2)" : "not enforced", gap.abi,
                        kLinux[static_cast<std::size_t>(gap.abi - 1)], have(abi)));
    }
    return lines;
}

std::string describe(const LandlockRules& rules) {
    std::vector<std::string> parts;
    for (const PathGroup& group : kPathGroups) {
        if (const auto& paths = rules.*group.paths)
            parts.push_back(fmt::format(
                "{} {}", group.key, paths->empty() ? "nothing" : fmt::format("{}", fmt::join(*paths, " "))));
    }
    for (const PortGroup& group : kPortGroups) {
        if (const auto& ports = rules.*group.ports)
            parts.push_back(fmt::format(
                "{} {}", group.key, ports->empty() ? "nothing" : fmt::format("{}", fmt::join(*ports, " "))));
    }
    if (rules.scope_sockets && rules.scope_signals) {
        parts.emplace_back("abstract sockets and signals stay inside");
    } else if (rules.has_scopes()) {
        parts.emplace_back(rules.scope_sockets ? "abstract sockets stay inside" : "signals stay inside");
    }
    if (parts.empty()) return "none";
    return fmt::format("{}{}", fmt::join(parts, "; "), rules.require ? "" : "; where the kernel can");
}

}  // namespace postern
