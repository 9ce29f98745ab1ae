// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

namespace postern::hostile {

/// What one attempt came to, as the process that made it saw it.
struct Attempt {
    enum class State {
        Succeeded,   ///< it did what it should not be able to do
        Failed,      ///< the call said no, with `errnum`
        Impossible,  ///< could not even be tried here, e.g. no memory: tells nothing
        Nothing,     ///< this profile or machine has nothing of the kind to try
    };
    State state = State::Impossible;
    int errnum = 0;
    std::string detail = {};
};

[[nodiscard]] inline Attempt succeeded(std::string detail = {}) {
    return {Attempt::State::Succeeded, 0, std::move(detail)};
}
[[nodiscard]] inline Attempt failed(int errnum, std::string detail = {}) {
    return {Attempt::State::Failed, errnum, std::move(detail)};
}
[[nodiscard]] inline Attempt impossible(std::string why, int errnum = 0) {
    return {Attempt::State::Impossible, errnum, std::move(why)};
}
[[nodiscard]] inline Attempt nothing(std::string why) {
    return {Attempt::State::Nothing, 0, std::move(why)};
}

/// Judges what a system call returned; `errno` must still be its own.
[[nodiscard]] Attempt judged(long returned, const char* step = "");

/// As judged(), for an attempt that is several calls: the errno of an unsuccessful preparation (a pipe, a
/// memfd) must not pass for a refusal.
[[nodiscard]] Attempt preparation_failed(const char* step);

}  // namespace postern::hostile
