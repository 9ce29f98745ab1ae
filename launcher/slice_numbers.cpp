// SPDX-License-Identifier: Apache-2.0
#include "launcher/slice_numbers.h"

#include <algorithm>

namespace postern {

std::optional<unsigned> SliceNumbers::take() {
    const auto free = std::find(states_.begin(), states_.end(), State::Free);
    if (free == states_.end()) return std::nullopt;
    *free = State::Taken;
    return static_cast<unsigned>(free - states_.begin());
}

unsigned SliceNumbers::in_service() const {
    const auto retired = std::count(states_.begin(), states_.end(), State::Retired);
    return static_cast<unsigned>(states_.size()) - static_cast<unsigned>(retired);
}

std::vector<unsigned> SliceNumbers::taken() const {
    std::vector<unsigned> found;
    for (unsigned slice = 0; slice < states_.size(); ++slice) {
        if (states_[slice] == State::Taken) found.push_back(slice);
    }
    return found;
}

}  // namespace postern
