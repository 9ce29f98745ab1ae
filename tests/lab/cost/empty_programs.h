// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "broker-core/result.h"

struct empty_bpf;

namespace postern::cost {

/// The programs of empty.bpf.c, attached as long as this lives.
class EmptyPrograms {
  public:
    static constexpr size_t kCount = 3;

    [[nodiscard]] static Result<EmptyPrograms> attach();

  private:
    struct Destroy {
        void operator()(empty_bpf* programs) const;
    };
    using Handle = std::unique_ptr<empty_bpf, Destroy>;

    explicit EmptyPrograms(Handle programs) : programs_(std::move(programs)) {}

    Handle programs_;
};

}  // namespace postern::cost
