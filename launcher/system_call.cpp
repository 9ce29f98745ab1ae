// SPDX-License-Identifier: Apache-2.0
#include "launcher/system_call.h"

#include <seccomp.h>

#include "launcher/new_system_calls.h"

namespace postern {

std::pair<SystemCallName, int> find_system_call(const std::string& name) {
    const int number = ::seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, name.c_str());
    if (number >= 0) return {SystemCallName::Here, number};
    for (const NewSystemCall& call : kNewSystemCalls) {
        if (call.name == name) return {SystemCallName::Here, call.number};
    }
    return {number == __NR_SCMP_ERROR ? SystemCallName::Unknown : SystemCallName::Elsewhere, -1};
}

std::optional<int> system_call_number(std::string_view name) {
    const auto [kind, number] = find_system_call(std::string(name));
    if (kind != SystemCallName::Here) return std::nullopt;
    return number;
}

}  // namespace postern
