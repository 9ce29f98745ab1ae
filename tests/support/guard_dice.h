// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <random>

#include "tests/support/native_fetch.h"

namespace postern::test {

/// Numbers that meet each other often enough for something to be allowed, and edges.
class Dice {
  public:
    explicit Dice(uint64_t seed) : random_(seed) {}
    uint64_t below(uint64_t limit) { return random_() % limit; }
    bool one_in(uint64_t n) { return below(n) == 0; }
    uint64_t place() {
        const uint64_t side = below(8);
        if (side < kExtremes) return extreme(side);
        if (side == 2) return below(0x20) * 0x1000 + (1ULL << 63);
        if (side == 3) return below(0x20000);
        return below(0x20) * 0x1000;
    }
    uint64_t length() {
        const uint64_t side = below(8);
        if (side < kExtremes) return extreme(side);
        if (side == 2) return below(0x8000);
        return (1 + below(4)) * 0x1000;
    }

  private:
    static constexpr uint64_t kExtremes = 2;
    /// Any number, or one from which a few pages more begin at 0 again.
    uint64_t extreme(uint64_t side) { return side == 0 ? random_() : 0 - below(0x3000); }

    std::mt19937_64 random_;
};

/// An argument block whose sealed part ends where memory ends, so that reading past it is a fault.
class BlockPage {
  public:
    BlockPage();
    BlockPage(const BlockPage&) = delete;
    BlockPage& operator=(const BlockPage&) = delete;
    ~BlockPage();
    /// Fills in `call.arg` and `call.sealed`, and puts small numbers where rules look for them.
    void fill(Dice& dice, postern_call& call);

  private:
    unsigned char* page_;
};

postern_policy random_policy(Dice& dice);
/// All but its argument block.
postern_call random_call(Dice& dice, const postern_policy& policy);
/// A request to narrow, sound or not.
uint64_t random_restriction(Dice& dice);

}  // namespace postern::test
