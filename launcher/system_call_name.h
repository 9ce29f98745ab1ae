// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace postern {

/// Ways into the kernel of an x86-64 machine, each with numbers of its own.
enum class SystemCallAbi { X86_64, I386, X32 };

/// Name of a system call; empty for a number that this build has no name for. Numbers of x32 are without the
/// bit that marks them (__X32_SYSCALL_BIT).
[[nodiscard]] std::string_view system_call_name(int number, SystemCallAbi abi = SystemCallAbi::X86_64);

}  // namespace postern
