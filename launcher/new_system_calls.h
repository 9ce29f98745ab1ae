// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace postern {

struct NewSystemCall {
    std::string_view name;
    int number;
};

/// arch/x86/entry/syscalls/syscall_64.tbl: what libseccomp 2.5.4 has no names for.
inline constexpr NewSystemCall kNewSystemCalls[] = {
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

}  // namespace postern
