// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/hostile/attempt.h"

namespace postern::hostile {

/// Full paths of what is in `folder`; empty if it cannot be read.
[[nodiscard]] std::vector<std::string> entries_of(const std::string& folder);

/// Lines of a text file; empty if it cannot be read.
[[nodiscard]] std::vector<std::string> lines_of(const std::string& path);

/// What is between the white space of a line.
[[nodiscard]] std::vector<std::string> words_of(const std::string& line);

/// All of `text` as a number; nothing if it is none.
[[nodiscard]] std::optional<uint64_t> number_of(std::string_view text, int base = 10);

/// A new empty folder in a place that can be written to, to be removed by the caller; empty and errno.
[[nodiscard]] std::string scratch_folder();

/// Tries each path: the first success counts, else the strongest answer (a refusal of what is there before
/// the absence of what is not). `absent` is the detail where there is nothing to try.
[[nodiscard]] Attempt try_each(std::span<const std::string> paths, const char* absent,
                               const std::function<Attempt(const std::string&)>& attempt);

/// Told of a path; whether that is enough.
using Visit = std::function<bool(const std::string&)>;

/// The same of whatever `search` comes upon, as it does: where the first is open nobody looks for more.
[[nodiscard]] Attempt try_found(const std::function<void(const Visit&)>& search, const char* absent,
                                const std::function<Attempt(const std::string&)>& attempt);

}  // namespace postern::hostile
