// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "broker-core/file.h"
#include "broker-core/guard.h"
#include "broker-core/library_prefix.h"
#include "broker-core/result.h"
#include "libpostern/call.h"
#include "libpostern/libpostern.h"
#include "libpostern/objects.h"

namespace postern::library {
namespace {

std::string& thread_error() {
    thread_local std::string text;
    return text;
}

bool holds_profiles(const std::string& prefix) {
    return ::access((prefix + "/share/postern/profiles").c_str(), F_OK) == 0;
}

/// Profiles and the default seccomp filter lie in the tree that the library was installed in, not in the
/// running program's: above the file that this function was loaded from (PREFIX/lib/TRIPLET/libpostern.so.0,
/// or a program, statically), else where the build was meant to go.
std::string find_prefix() {
    constexpr int kMostLevels = 3;
    Dl_info info{};
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): what dladdr(3) takes
    const bool is_known = ::dladdr(reinterpret_cast<const void*>(&libpostern_version), &info) != 0 &&
                          info.dli_fname != nullptr && std::strstr(info.dli_fname, ".so") != nullptr;
    std::array<char, PATH_MAX> real{};
    // Where the file is, whatever links lead to it, and whatever folder the process goes to later.
    std::string folder =
        is_known && ::realpath(info.dli_fname, real.data()) != nullptr ? real.data() : program_file();
    for (int level = 0; level < kMostLevels; ++level) {
        const size_t slash = folder.rfind('/');
        if (slash == std::string::npos || slash == 0) break;
        folder.resize(slash);
        if (holds_profiles(folder)) return folder;
    }
    return LIBPOSTERN_PREFIX;
}

void choose_prefix() {
    static std::once_flag once;
    std::call_once(once, [] {
        if (!holds_profiles(program_prefix())) set_program_prefix(find_prefix());
    });
}

}  // namespace

int keep_error(const Error& error) noexcept {
    return keep_error(error.errnum != 0 ? error.errnum : EINVAL, error.message.c_str());
}

int keep_error(int errnum, const char* text) noexcept {
    try {
        thread_error() = text;
    } catch (const std::exception&) {
        thread_error().clear();  // no memory for it; the number has to do
    }
    return -errnum;
}

std::mutex& cgroup_mutex() {
    static std::mutex mutex;
    return mutex;
}

void keep_first(Status& first, Status&& next) {
    if (first && !next) first = std::move(next);
}

Result<Guard*> guard_of(struct libpostern_context& context) {
    if (!context.guard) {
        if (::geteuid() != 0) return refuse(EPERM, "the guard in the kernel is root's to load; run as root");
        POSTERN_ASSIGN(Guard guard, Guard::acquire());
        context.guard.emplace(std::move(guard));
    }
    return &*context.guard;
}

void prepare_library() {
    choose_prefix();
}

}  // namespace postern::library

using postern::Status;
using postern::library::call;
using postern::library::call_in;
using postern::library::keep_first;
using postern::library::need;

extern "C" {

const char* libpostern_version(void) {
    return POSTERN_VERSION;
}

const char* libpostern_error(void) {
    return postern::library::thread_error().c_str();
}

int libpostern_new(struct libpostern_context** context) {
    return call([&]() -> Status {
        POSTERN_TRY(need(context, "context"));
        postern::library::prepare_library();
        auto made = std::make_unique<struct libpostern_context>();
        made->owner = ::getpid();
        *context = made.release();
        return {};
    });
}

int libpostern_free(struct libpostern_context* context) {
    if (context == nullptr) return 0;
    bool is_ours = false;
    const int result = call_in(context, "context", [&]() -> Status {
        is_ours = true;
        Status first;
        for (const auto& grant : context->grants) keep_first(first, postern::library::end_grant(*grant));
        context->grants.clear();
        for (const auto& device : context->devices)
            keep_first(first, postern::library::close_device(*device));
        context->devices.clear();
        if (context->guard) keep_first(first, context->guard->release());
        return first;
    });
    if (is_ours) delete context;
    return result;
}

}  // extern "C"
