// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "tests/hostile/attempt.h"
#include "tests/hostile/probe.h"
#include "tests/hostile/target.h"

namespace postern::hostile {

/// linux/vfio.h: every VFIO ioctl is _IO(';', 100 + n); its argument has no size in the number.
[[nodiscard]] constexpr unsigned long vfio_request(unsigned n) {
    return (static_cast<unsigned long>(';') << 8) | (100 + n);
}

/// An ioctl that only asks, with a valid argument of its own making.
struct Question {
    const char* name;
    unsigned long request;
    long (*ask)(int fd, unsigned long request);
};

/// GET_REGION_INFO, GET_IRQ_INFO, GET_INFO and FEATURE (a probe): harmless, and answered by every vfio-pci
/// device.
[[nodiscard]] std::span<const Question> questions();
/// One that the profile does not grant; nullptr if it grants them all.
[[nodiscard]] const Question* refused_question(const Target& target);
/// One that it does grant; nullptr if none.
[[nodiscard]] const Question* granted_question(const Target& target);

/// Asks the refused question on `fd`, which is some way to the same guarded file.
[[nodiscard]] Attempt ask_refused(const Target& target, int fd);
/// Asks the granted question on `fd`; where there is none, FIONREAD on a pipe shows that ioctl(2) works.
[[nodiscard]] Attempt ask_granted(const Target& target, int fd);

/// A page of the doorbell BAR in none of the grant's windows: before the window if there is room, else after.
[[nodiscard]] off_t foreign_page(const Target& target);
[[nodiscard]] bool overlaps_a_window(const Target& target, off_t device_offset, size_t length);
/// The same of windows that may be mapped, which they may by whole pages.
[[nodiscard]] bool overlaps_a_mapping(const Target& target, off_t device_offset, size_t length);

/// mmap(2) and munmap(2) again; `detail` says the offset.
[[nodiscard]] Attempt map(int fd, size_t length, int prot, int flags, off_t offset);
/// The same of a foreign page through `fd`.
[[nodiscard]] Attempt map_foreign(const Target& target, int fd);
/// The same of the first window, as the manifest says to.
[[nodiscard]] Attempt map_own(const Target& target);

/// A memfd of one page that holds "memfd" and then zeros, for controls; -1 and errno.
[[nodiscard]] int control_memfd();

[[nodiscard]] Control ioctl_control();
[[nodiscard]] Control mmap_control();

/// "0x3000".
[[nodiscard]] std::string hex(uint64_t value);

}  // namespace postern::hostile
