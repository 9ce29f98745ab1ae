// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace postern {

/// Why something was refused or failed: one line, built from the inside out. `message` starts with the
/// innermost fact; every layer on the way up may put its context ("device.windows[0]") in front.
struct Error {
    std::string message;
    int errnum = 0;  ///< errno of the system call behind it, 0 if none

    /// Puts "context: " in front.
    Error&& within(std::string_view context) && {
        message = fmt::format("{}: {}", context, message);
        return std::move(*this);
    }
};

/// The one error idiom of the project: library code returns it, main() prints it, once.
template <typename T>
using Result = tl::expected<T, Error>;

using Status = Result<void>;

using Failure = tl::unexpected<Error>;

/// An error that no system call is behind.
template <typename... Args>
[[nodiscard]] Failure fail(fmt::format_string<Args...> format, Args&&... args) {
    return Failure(Error{fmt::format(format, std::forward<Args>(args)...), 0});
}

/// strerror(3) is safe among threads in glibc, since 2.32, and in musl.
[[nodiscard]] inline std::string errno_text(int errnum) {
    return ::strerror(errnum);
}

/// An error of a system call. `errnum` is passed by the caller, who saved it right after the call: building
/// the message must not be able to change it. The text of errno is appended.
template <typename... Args>
[[nodiscard]] Failure fail_errno(int errnum, fmt::format_string<Args...> format, Args&&... args) {
    return Failure(Error{
        fmt::format("{}: {}", fmt::format(format, std::forward<Args>(args)...), errno_text(errnum)), errnum});
}

/// Moves the error of `result` out for a return, with context in front.
template <typename T>
[[nodiscard]] Failure propagate(Result<T>&& result, std::string_view context) {
    return Failure(std::move(result.error()).within(context));
}

template <typename T>
[[nodiscard]] Failure propagate(Result<T>&& result) {
    return Failure(std::move(result.error()));
}

}  // namespace postern

/// Returns the error of a Status or Result expression from the calling function, else goes on.
#define POSTERN_TRY(expression)                                               \
    do {                                                                      \
        if (auto postern_try_result = (expression); !postern_try_result) {    \
            return ::postern::Failure(std::move(postern_try_result.error())); \
        }                                                                     \
    } while (false)

#define POSTERN_CONCAT_(a, b) a##b
#define POSTERN_CONCAT(a, b) POSTERN_CONCAT_(a, b)

/// POSTERN_ASSIGN(auto fd, open_group(7)): declares `fd` from a Result, or returns its error.
#define POSTERN_ASSIGN_(temporary, declaration, ...)                         \
    auto temporary = (__VA_ARGS__);                                          \
    if (!temporary) return ::postern::Failure(std::move(temporary.error())); \
    declaration = std::move(*temporary)
#define POSTERN_ASSIGN(declaration, ...) \
    POSTERN_ASSIGN_(POSTERN_CONCAT(postern_result_, __LINE__), declaration, __VA_ARGS__)
