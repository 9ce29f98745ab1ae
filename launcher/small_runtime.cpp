// SPDX-License-Identifier: Apache-2.0
// The C++ library's compiled half, as far as bin/postern uses it. That program is linked with musl, whose
// start asks the processor nothing and touches few pages; Debian has no compiled C++ library for musl.
// libc++'s headers know it, and leave to the library what is here. Their declarations (ABI version 1, which
// does not change) are what these definitions are checked against; what is missing fails the link.
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <ctime>
#include <new>
#include <string>

#include <fmt/format.h>

#include "launcher/report.h"

namespace {

/// A launch needs some ten kilobytes, and hands them out here without asking the kernel for pages piece by
/// piece. What is given back here stays: a launcher that runs for long takes from malloc(3) by then.
constexpr std::size_t kArenaSize = 48 * 1024;
alignas(std::max_align_t) std::array<std::byte, kArenaSize> arena;
std::size_t arena_used = 0;

void* allocate(std::size_t size) {
    constexpr std::size_t kAlign = alignof(std::max_align_t);
    if (size <= kArenaSize - arena_used) {
        void* piece = arena.data() + arena_used;
        arena_used = std::min(kArenaSize,
                              (arena_used + std::max<std::size_t>(size, 1) + kAlign - 1) / kAlign * kAlign);
        return piece;
    }
    if (void* piece = std::malloc(size)) return piece;
    constexpr std::string_view kMessage = "postern: out of memory\n";
    (void)!::write(STDERR_FILENO, kMessage.data(), kMessage.size());
    ::_exit(postern::kLaunchFailed);
}

void release(void* piece) {
    const auto* const at = static_cast<std::byte*>(piece);
    if (at < arena.data() || at >= arena.data() + arena.size()) std::free(piece);
}

timespec now(clockid_t clock) {
    timespec time = {};
    ::clock_gettime(clock, &time);
    return time;
}

}  // namespace

void* operator new(std::size_t size) {
    return allocate(size);
}
void* operator new[](std::size_t size) {
    return allocate(size);
}
void operator delete(void* piece) noexcept {
    release(piece);
}
void operator delete[](void* piece) noexcept {
    release(piece);
}
void operator delete(void* piece, std::size_t) noexcept {
    release(piece);
}
void operator delete[](void* piece, std::size_t) noexcept {
    release(piece);
}

extern "C" {
void* __dso_handle = nullptr;
void __cxa_pure_virtual() {
    std::abort();
}
}

namespace std {
[[noreturn]] void terminate() noexcept {
    std::abort();
}
}  // namespace std

_LIBCPP_BEGIN_NAMESPACE_STD

string to_string(int value) {
    return fmt::to_string(value);
}
string to_string(unsigned value) {
    return fmt::to_string(value);
}
string to_string(long value) {
    return fmt::to_string(value);
}
string to_string(unsigned long value) {
    return fmt::to_string(value);
}

chrono::steady_clock::time_point chrono::steady_clock::now() noexcept {
    const timespec time = ::now(CLOCK_MONOTONIC);
    return time_point(seconds(time.tv_sec) + nanoseconds(time.tv_nsec));
}

chrono::system_clock::time_point chrono::system_clock::now() noexcept {
    const timespec time = ::now(CLOCK_REALTIME);
    return time_point(duration_cast<duration>(seconds(time.tv_sec) + nanoseconds(time.tv_nsec)));
}

_LIBCPP_END_NAMESPACE_STD
