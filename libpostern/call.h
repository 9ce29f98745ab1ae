// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <cerrno>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "broker-core/result.h"
#include "libpostern/objects.h"

// The frame of every function of the C API: arguments checked, the lock held, no exception let out, the error
// kept.

namespace postern::library {

/// Keeps the thread's error and turns it into the number that is returned: -errno, -EINVAL where no system
/// call is behind it.
int keep_error(const Error& error) noexcept;
/// The same for a plain text.
int keep_error(int errnum, const char* text) noexcept;

/// A refusal with an errno of ours.
template <typename... Args>
[[nodiscard]] Failure refuse(int errnum, fmt::format_string<Args...> format, Args&&... args) {
    return Failure(Error{"libpostern: " + fmt::format(format, std::forward<Args>(args)...), errnum});
}

/// Calls `body`, which gives a Status or a Result<int>.
template <typename Body>
int call(const Body& body) noexcept {
    try {
        auto result = body();
        if (!result) return keep_error(result.error());
        if constexpr (std::is_same_v<decltype(result), Result<int>>) {
            return *result;
        } else {
            return 0;
        }
    } catch (const std::bad_alloc&) {
        return keep_error(ENOMEM, "libpostern: out of memory");
    } catch (const std::exception& error) {
        return keep_error(EINVAL, error.what());
    }
}

/// The same with the lock of `context`, in the process that made it.
template <typename Body>
int call_in(struct libpostern_context* context, const char* what, const Body& body) noexcept {
    if (context == nullptr) return keep_error(EINVAL, fmt::format("libpostern: {} is NULL", what).c_str());
    return call([&]() -> decltype(body()) {
        if (context->owner != ::getpid()) {
            return refuse(
                EINVAL,
                "the context is process {}'s and this is {}: a forked child may exec or exit, no more",
                context->owner, ::getpid());
        }
        const std::lock_guard<std::recursive_mutex> lock(context->mutex);
        return body();
    });
}

/// The same for a device or a grant.
template <typename Object, typename Body>
int call_on(Object* object, const char* what, const Body& body) noexcept {
    return call_in(object != nullptr ? object->context : nullptr, what, body);
}

/// Refuses a parameter that is NULL.
[[nodiscard]] inline Status need(const void* pointer, const char* name) {
    if (pointer != nullptr) return {};
    return refuse(EINVAL, "{} is NULL", name);
}

}  // namespace postern::library
