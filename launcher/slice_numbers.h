// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

namespace postern {

/// Which of the slices 0, 1, 2, … are free, taken, or out of service. Pure.
class SliceNumbers {
  public:
    explicit SliceNumbers(unsigned count) : states_(count, State::Free) {}

    /// The lowest free one.
    [[nodiscard]] std::optional<unsigned> take();
    void give_back(unsigned slice) { states_.at(slice) = State::Free; }
    void retire(unsigned slice) { states_.at(slice) = State::Retired; }
    [[nodiscard]] unsigned in_service() const;
    [[nodiscard]] std::vector<unsigned> taken() const;

  private:
    enum class State : unsigned char { Free, Taken, Retired };
    std::vector<State> states_;
};

}  // namespace postern
