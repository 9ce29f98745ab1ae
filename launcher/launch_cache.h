// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/unique_fd.h"
#include "launcher/compiled_launch.h"

namespace postern {

/// Launches that were compiled before, a file each. Only the caller's own files count, in a folder of the
/// caller's that nobody else may write, whole, and made from what the key and the files that it was read from
/// still are, byte for byte. Whatever is not so is as if it was not there: then the launch is compiled again.
///
/// The folder: $POSTERN_CACHE (an absolute path; "off" or any other for none); else /run/postern-cache for
/// root and $XDG_RUNTIME_DIR/postern-cache for others, which a sandbox with the default root does not show
/// its client.
class LaunchCache {
  public:
    /// nullopt: there is no folder for it, or not a safe one.
    [[nodiscard]] static std::optional<LaunchCache> open();
    /// Of that folder, which must exist.
    [[nodiscard]] static std::optional<LaunchCache> open(const std::string& folder);

    [[nodiscard]] std::optional<CompiledLaunch> find(const std::string& key) const;
    /// Keeps `launch`, which was made from `read`. Where that fails nothing is kept, which is no error.
    void keep(const std::string& key, const std::vector<ReadFile>& read, const CompiledLaunch& launch) const;

  private:
    explicit LaunchCache(UniqueFd folder) : folder_(std::move(folder)) {}
    UniqueFd folder_;
};

}  // namespace postern
