// SPDX-License-Identifier: Apache-2.0
#pragma once

// What installed headers may be too old to have. Source: include/uapi/linux/landlock.h of Linux 6.12.

#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

namespace postern::landlock {

constexpr std::uint64_t kExecute = 1U << 0;
constexpr std::uint64_t kWriteFile = 1U << 1;
constexpr std::uint64_t kReadFile = 1U << 2;
constexpr std::uint64_t kReadDir = 1U << 3;
constexpr std::uint64_t kRemoveAndMake = 0x1ff0;  ///< bits 4 (REMOVE_DIR) to 12 (MAKE_SYM)
constexpr std::uint64_t kRefer = 1U << 13;        ///< ABI 2
constexpr std::uint64_t kTruncate = 1U << 14;     ///< ABI 3
constexpr std::uint64_t kIoctlDev = 1U << 15;     ///< ABI 5
/// Those that a rule for a file may have; the others are for folders only.
constexpr std::uint64_t kOfFiles = kExecute | kWriteFile | kReadFile | kTruncate | kIoctlDev;

constexpr std::uint64_t kBindTcp = 1U << 0;  ///< ABI 4, with kConnectTcp
constexpr std::uint64_t kConnectTcp = 1U << 1;

constexpr std::uint64_t kScopeAbstractUnixSocket = 1U << 0;  ///< ABI 6, with kScopeSignal
constexpr std::uint64_t kScopeSignal = 1U << 1;

/// landlock_ruleset_attr. A kernel that knows less of it wants the rest to be 0.
struct RulesetAttr {
    std::uint64_t handled_access_fs;
    std::uint64_t handled_access_net;
    std::uint64_t scoped;
};
struct [[gnu::packed]] PathBeneathAttr {
    std::uint64_t allowed_access;
    std::int32_t parent_fd;
};
struct NetPortAttr {
    std::uint64_t allowed_access;
    std::uint64_t port;
};
constexpr int kRulePathBeneath = 1;
constexpr int kRuleNetPort = 2;

inline int create_ruleset(const RulesetAttr& attr) {
    return static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0));
}
/// LANDLOCK_CREATE_RULESET_VERSION: the ABI; -1 where there is none.
inline int abi() {
    return static_cast<int>(::syscall(SYS_landlock_create_ruleset, nullptr, std::size_t{0}, 1));
}
inline int add_rule(int ruleset, int type, const void* attr) {
    return static_cast<int>(::syscall(SYS_landlock_add_rule, ruleset, type, attr, 0));
}
inline int restrict_self(int ruleset) {
    return static_cast<int>(::syscall(SYS_landlock_restrict_self, ruleset, 0));
}

}  // namespace postern::landlock
