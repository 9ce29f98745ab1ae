// SPDX-License-Identifier: Apache-2.0
#include "launcher/system_call.h"

#include <seccomp.h>

#include <cstdlib>

namespace postern {
namespace {

struct NewSystemCall {
    std::string_view name;
    int number;
};

/// arch/x86/entry/syscalls/syscall_64.tbl: what libseccomp 2.5.4 has no names for.
constexpr NewSystemCall kNewSystemCalls[] = {
    {"uretprobe", 335},         {"uprobe", 336},
    {"futex_waitv", 449},       {"set_mempolicy_home_node", 450},
    {"cachestat", 451},         {"fchmodat2", 452},
    {"map_shadow_stack", 453},  {"futex_wake", 454},
    {"futex_wait", 455},        {"futex_requeue", 456},
    {"statmount", 457},         {"listmount", 458},
    {"lsm_get_self_attr", 459}, {"lsm_set_self_attr", 460},
    {"lsm_list_modules", 461},  {"mseal", 462},
    {"setxattrat", 463},        {"getxattrat", 464},
    {"listxattrat", 465},       {"removexattrat", 466},
    {"open_tree_attr", 467},    {"file_getattr", 468},
    {"file_setattr", 469},      {"listns", 470},
};

}  // namespace

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

std::string system_call_name(int number) {
    char* known = ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, number);
    std::string name = known != nullptr ? known : "";
    std::free(known);
    if (!name.empty()) return name;
    for (const NewSystemCall& call : kNewSystemCalls) {
        if (call.number == number) return std::string(call.name);
    }
    return "";
}

}  // namespace postern
