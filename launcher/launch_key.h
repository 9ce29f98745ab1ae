// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace postern {

/// What a kept launch may be taken for: everything that a compiled launch depends on but the content of the
/// files that it was read from.
struct LaunchKey {
    std::string text;  ///< this program, this kernel, the options, and what those are relative to
    std::vector<std::string> command;  ///< the client's, not part of the key
};

/// What this build of postern is, and the kernel: another must not use what this one has compiled, since
/// nothing else tells the layouts of their bytes, their default filters and what they decide apart. nullopt:
/// the programs do not lie beside each other as installed ones do, or were replaced since this one began.
[[nodiscard]] std::optional<std::string> build_identity();

/// `words` is the command line behind "postern", `build` a build_identity(). nullopt: not a `postern run`
/// that could be kept, because it has an option whose effect is not one on the sandbox alone, or because it
/// is not plain where the command begins.
[[nodiscard]] std::optional<LaunchKey> launch_key(const std::vector<std::string>& words,
                                                  const std::string& build);

/// A `postern run` of a file of `postern profile compile`.
struct LaunchFileRun {
    std::string file;
    bool quiet = false;
    std::vector<std::string> command;
};

/// nullopt: not one, or with options that the file leaves no room for.
[[nodiscard]] std::optional<LaunchFileRun> launch_file_run(const std::vector<std::string>& words);

}  // namespace postern
