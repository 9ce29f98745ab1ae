// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// The entries that a holder holds, within bounds.
class HeldEntries {
  public:
    struct Entry {
        std::string text;
        std::vector<UniqueFd> fds;
    };
    using Entries = std::map<std::string, Entry, std::less<>>;

    /// Takes the fds; they are closed if it is refused: errnum ENOSPC.
    [[nodiscard]] Status put(std::string_view name, std::string_view text, std::vector<UniqueFd> fds);
    void remove(std::string_view name);
    /// The first one behind `name` in the order of names, or null.
    [[nodiscard]] const Entries::value_type* after(std::string_view name) const;

  private:
    Entries entries_;
    size_t bytes_ = 0;
};

}  // namespace postern
