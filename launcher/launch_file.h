// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>
#include <string_view>

#include "broker-core/result.h"
#include "launcher/compiled_launch.h"

namespace postern {

/// What is larger is no file of ours.
inline constexpr off_t kMaxLaunchBytes = 16 << 20;

/// `body` with what open_sealed() finds damage by.
[[nodiscard]] std::string sealed(std::string_view body);
/// The body again, a part of `bytes`. nullopt: those are no bytes of sealed(), or not all of them.
[[nodiscard]] std::optional<std::string_view> open_sealed(std::string_view bytes);
/// 16 hexadecimal digits of a hash. It tells contents apart, not forgeries from what they look like.
[[nodiscard]] std::string digits_of(std::string_view bytes);

/// The whole of an open file of `size` bytes, if that is what it has.
[[nodiscard]] bool read_whole(int file, std::size_t size, std::string& text);

/// Whether `name` is one of a file of `postern profile compile`: it ends in ".launch".
[[nodiscard]] bool is_launch_file(std::string_view name);
/// Writes a file from which this build can run `launch` on this kernel: whole or not at all.
[[nodiscard]] Status write_launch_file(const std::string& path, const CompiledLaunch& launch);
/// Error: it is not there, it is not the caller's or root's own or others may write it, it is damaged, or
/// another build or kernel is to run it than the one that it was compiled by.
[[nodiscard]] Result<CompiledLaunch> read_launch_file(const std::string& path);

}  // namespace postern
