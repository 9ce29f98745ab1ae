// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// What a broker must find again after it died: a name, what it wrote about it, and open files.
struct KeptEntry {
    std::string name;
    std::string text;
    std::vector<UniqueFd> fds;
};

inline constexpr size_t kMaxKeptName = 120;
inline constexpr size_t kMaxKeptText = size_t{64} * 1024;
inline constexpr size_t kMaxKeptFds = 200;

/// Where a broker's files are kept while there is no broker. One broker at a time uses a keeper, from one
/// thread. Whatever moment it is killed at, its successor finds each entry as it was before or after the call
/// that was under way, never a mixture; once a call has returned it has happened.
class Keeper {
  public:
    Keeper() = default;
    Keeper(const Keeper&) = delete;
    Keeper& operator=(const Keeper&) = delete;
    virtual ~Keeper() = default;

    /// Keeps copies of `fds` (borrowed), replacing the entry of that name as a whole. An error leaves the
    /// entry as it was, unless the keeper itself failed: then it is as it was or as it was to be.
    [[nodiscard]] virtual Status put(const std::string& name, std::string_view text,
                                     std::span<const int> fds) = 0;
    /// No entry of that name is no error.
    [[nodiscard]] virtual Status remove(const std::string& name) = 0;
    /// Copies of all entries, in the order of their names; they stay kept.
    [[nodiscard]] virtual Result<std::vector<KeptEntry>> take_all() = 0;
    /// Nothing is kept any more, and whoever kept it ends.
    [[nodiscard]] virtual Status quit() { return {}; }
    /// Whether the same process finds it all again after execve(2).
    [[nodiscard]] virtual bool survives_exec() const { return true; }
    /// "holder", "systemd", "none": for people.
    [[nodiscard]] virtual const char* kind() const = 0;
};

/// Ends whoever keeps nothing. True if that was so.
[[nodiscard]] Result<bool> quit_if_empty(Keeper& keeper);

/// Whether these can be an entry: a name of 1 to 120 of [A-Za-z0-9._:/-], a text of at most 64 KiB, at most
/// 200 fds.
[[nodiscard]] Status check_kept(std::string_view name, std::string_view text, size_t fds);

/// Keeps nothing: the broker's end is the end of its grants.
class NoKeeper : public Keeper {
  public:
    [[nodiscard]] Status put(const std::string& name, std::string_view text,
                             std::span<const int> fds) override;
    [[nodiscard]] Status remove(const std::string& name) override;
    [[nodiscard]] Result<std::vector<KeptEntry>> take_all() override;
    [[nodiscard]] const char* kind() const override { return "none"; }
};

}  // namespace postern
