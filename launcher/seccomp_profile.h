// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/result.h"
#include "launcher/system_call.h"

namespace postern {

/// What a seccomp rule does with a call.
struct SeccompAction {
    enum class Kind { Allow, Log, Errno, Trace, Trap, KillThread, KillProcess };
    Kind kind = Kind::Allow;
    std::uint16_t value = 0;  ///< errno of Errno, message of Trace

    bool operator==(const SeccompAction&) const = default;
};

/// One comparison of an argument register, 64 bits wide.
struct SeccompArgument {
    enum class Op { NotEqual, Less, LessEqual, Equal, GreaterEqual, Greater, MaskedEqual };
    unsigned index = 0;  ///< 0…5
    Op op = Op::Equal;
    std::uint64_t value = 0;      ///< the mask for MaskedEqual
    std::uint64_t value_two = 0;  ///< what the masked argument must be, for MaskedEqual
};

/// `action` for a call with this number whose arguments fulfil all of `arguments`.
struct SeccompRule {
    std::string name;
    int number = 0;
    SeccompAction action;
    std::vector<SeccompArgument> arguments;
};

/// A seccomp profile with everything that depends on the machine resolved: x86-64 numbers, conditions
/// evaluated.
struct SeccompProfile {
    SeccompAction default_action;
    std::vector<SeccompRule> rules;
    /// The highest number that the profile names at all. Calls above it did not exist for its author and get
    /// ENOSYS where the default would be another refusal, so that programs fall back.
    int newest_number = -1;                  // -1: it names none
    std::vector<std::string> unknown_names;  ///< skipped, as runc does
};

/// What conditions in a profile (includes, excludes) are evaluated against.
struct SeccompConditions {
    std::vector<std::string> capabilities = {};  ///< "CAP_SYS_ADMIN", those the client keeps
    unsigned kernel_major = 0;
    unsigned kernel_minor = 0;
};

/// Conditions for this machine's kernel (uname(2)) and the given capability numbers.
SeccompConditions seccomp_conditions(const std::vector<unsigned>& capabilities);

/// Reads the seccomp format of the OCI runtime spec with docker's and podman's additions (archMap, includes,
/// excludes, errno names). Only x86-64 is filtered for: 32-bit and x32 calls are killed whatever
/// `architectures` adds. Error: one line with the JSON path of what is wrong.
Result<SeccompProfile> parse_seccomp_profile(std::string_view json, const SeccompConditions& conditions);

}  // namespace postern
