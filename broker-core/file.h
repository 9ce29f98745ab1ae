// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// The whole of a file of at most `limit` bytes; a larger one, a folder or an unreadable one is an error that
/// names it.
[[nodiscard]] Result<std::string> read_file(const std::string& path, size_t limit);

/// What can be read from `fd` (borrowed) up to its end, `limit` bytes at most; EFBIG if there is more.
[[nodiscard]] Result<std::string> read_to_end(int fd, size_t limit);

/// A file that something was made from, with what it held then.
struct ReadFile {
    std::string path;
    std::string text;
};

/// One write(2) to an existing file, as sysfs and procfs want it.
[[nodiscard]] Status write_file(const std::string& path, std::string_view text);

/// A file with `text` and mode 0644 in the place of what `path` is now. It has another name until it is
/// whole: who is killed here, or reads it now, has the old one.
[[nodiscard]] Status replace_file(const std::string& path, std::string_view text);

/// Makes a folder with exactly `mode`, whatever the umask. One that is there is no error, and stays as it is:
/// whose it is, and what it is, is for the caller to look at.
[[nodiscard]] Status make_folder(const std::string& path, mode_t mode);

/// What a folder holds, without "." and "..", in no order; nothing if it cannot be read.
[[nodiscard]] std::vector<std::string> names_in(const std::string& folder);

/// The file of the running program, as /proc/self/exe names it; empty where that cannot be read.
[[nodiscard]] const std::string& program_file();

/// The folder that the running program's tree begins at: "/usr" of "/usr/bin/postern" and of
/// "/usr/libexec/postern/postern-full", and the build folder of "build/bin/postern", so that both look alike.
[[nodiscard]] const std::string& program_prefix();

enum class MemfdUse { Data, Program };

/// A memfd that holds `text` and can never change again (F_SEAL_WRITE, _SHRINK, _GROW, _SEAL), opened for
/// reading, at offset 0. A program's can be executed, also where vm.memfd_noexec forbids it by default
/// (memfd_create(2)).
[[nodiscard]] Result<UniqueFd> sealed_memfd(const char* name, std::string_view text,
                                            MemfdUse use = MemfdUse::Data);

/// 16 hexadecimal digits from getrandom(2).
[[nodiscard]] std::string random_id();

}  // namespace postern
