// SPDX-License-Identifier: Apache-2.0
#include "broker-core/keeper.h"

namespace postern {

Result<bool> quit_if_empty(Keeper& keeper) {
    POSTERN_ASSIGN(const std::vector<KeptEntry> entries, keeper.take_all());
    if (!entries.empty()) return false;
    POSTERN_TRY(keeper.quit());
    return true;
}

Status check_kept(std::string_view name, std::string_view text, size_t fds) {
    constexpr std::string_view kLetters =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/-";
    if (name.empty() || name.size() > kMaxKeptName ||
        name.find_first_not_of(kLetters) != std::string_view::npos) {
        return fail("kept entry \"{}\": a name is 1 to {} of [A-Za-z0-9._:/-]", name.substr(0, kMaxKeptName),
                    kMaxKeptName);
    }
    if (text.size() > kMaxKeptText) {
        return fail("kept entry {}: its text has {} bytes; {} are the limit", name, text.size(),
                    kMaxKeptText);
    }
    if (fds > kMaxKeptFds) {
        return fail("kept entry {}: it has {} fds; {} are the limit", name, fds, kMaxKeptFds);
    }
    return {};
}

Status NoKeeper::put(const std::string& name, std::string_view text, std::span<const int> fds) {
    return check_kept(name, text, fds.size());
}

Status NoKeeper::remove(const std::string& /*name*/) {
    return {};
}

Result<std::vector<KeptEntry>> NoKeeper::take_all() {
    return std::vector<KeptEntry>{};
}

}  // namespace postern
