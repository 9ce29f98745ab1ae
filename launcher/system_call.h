// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace postern {

enum class SystemCallName { Here, Elsewhere, Unknown };

/// Whether `name` is a system call of x86-64, of another machine only, or of none; and its number.
std::pair<SystemCallName, int> find_system_call(const std::string& name);
/// Number of a system call on x86-64, also of those that the installed libseccomp is too old for.
std::optional<int> system_call_number(std::string_view name);

}  // namespace postern
