// SPDX-License-Identifier: Apache-2.0
#include "broker-core/open_keeper.h"

#include "broker-core/holder_keeper.h"

namespace postern {

Result<std::unique_ptr<Keeper>> open_keeper(const std::string& kind, const std::string& folder) {
    if (kind == "none") return std::make_unique<NoKeeper>();
    POSTERN_ASSIGN(auto holder, HolderKeeper::connect_or_start(folder));
    return std::unique_ptr<Keeper>(std::move(holder));
}

UniqueFd passed_listener() {
    return {};
}

}  // namespace postern
