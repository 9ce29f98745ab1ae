// SPDX-License-Identifier: Apache-2.0
#include "broker-core/holder/held_entries.h"

#include <cerrno>
#include <utility>

#include "broker-core/keeper.h"

namespace postern {
namespace {

constexpr size_t kMaxEntries = 4096;
constexpr size_t kMaxBytes = size_t{16} * 1024 * 1024;

}  // namespace

Status HeldEntries::put(std::string_view name, std::string_view text, std::vector<UniqueFd> fds) {
    POSTERN_TRY(check_kept(name, text, fds.size()));
    const auto old = entries_.find(name);
    if (old == entries_.end() && entries_.size() >= kMaxEntries) {
        return Failure(Error{fmt::format("{} entries are kept, which is the limit", kMaxEntries), ENOSPC});
    }
    const size_t bytes = bytes_ + text.size() - (old != entries_.end() ? old->second.text.size() : 0);
    if (bytes > kMaxBytes) {
        return Failure(
            Error{fmt::format("the entries' texts have {} bytes, which is the limit", kMaxBytes), ENOSPC});
    }
    Entry entry{std::string(text), std::move(fds)};
    if (old != entries_.end()) {
        std::swap(old->second, entry);
    } else {
        entries_.emplace(name, std::move(entry));
    }
    bytes_ = bytes;
    return {};
}

void HeldEntries::remove(std::string_view name) {
    const auto found = entries_.find(name);
    if (found == entries_.end()) return;
    bytes_ -= found->second.text.size();
    entries_.erase(found);
}

const HeldEntries::Entries::value_type* HeldEntries::after(std::string_view name) const {
    const auto next = entries_.upper_bound(name);
    return next != entries_.end() ? &*next : nullptr;
}

}  // namespace postern
