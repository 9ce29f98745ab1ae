// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <cstring>
#include <type_traits>

#include "broker-core/result.h"

namespace postern::cost {

/// What a child process found out, or why it could not, as it goes through a pipe.
template <typename Value>
struct Answer {
    static_assert(std::is_trivially_copyable_v<Value>);

    Value value{};
    bool good = false;
    char error[512] = {};

    explicit Answer() = default;
    explicit Answer(const Result<Value>& result) : good(result.has_value()) {
        if (result) value = *result;
        if (!result) result.error().message.copy(error, sizeof error - 1);
    }
};

template <typename Value>
void send_answer(int fd, const Result<Value>& result) {
    const Answer<Value> answer(result);
    // Nobody is left to tell if this fails; whoever waits sees the end of the pipe.
    (void)!::write(fd, &answer, sizeof answer);
}

template <typename Value>
[[nodiscard]] Result<Value> receive_answer(int fd) {
    Answer<Value> answer;
    if (::read(fd, &answer, sizeof answer) != sizeof answer)
        return fail("a child process ended without an answer");
    if (!answer.good) return fail("{}", answer.error);
    return answer.value;
}

}  // namespace postern::cost
