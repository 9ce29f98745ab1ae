// SPDX-License-Identifier: Apache-2.0
// mmap(2) of everything in the device file that is not the client's window. VFIO region i starts at byte i
// << 40.
#include <fmt/format.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "tests/hostile/device_ops.h"
#include "tests/hostile/paths.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

constexpr off_t kOff = static_cast<off_t>(kPage);

/// Of the range [start, start + length) relative to the first window, in bytes of the device file.
Attempt map_range(const Target& target, off_t start_from_window, off_t end_from_window_end) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    const off_t start = own->device_offset() + start_from_window;
    const off_t end = own->device_offset() + static_cast<off_t>(own->length) + end_from_window_end;
    if (start < region_start(own->region)) return nothing("the window is at the start of its BAR");
    return map(target.device, static_cast<size_t>(end - start), own->prot(), MAP_SHARED, start);
}

/// A range that touches no window: without this a neighbouring window of the same grant could be what is
/// mapped.
Attempt map_outside(const Target& target, off_t start, size_t length) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    if (start < region_start(own->region)) return nothing("the window is at the start of its BAR");
    if (overlaps_a_mapping(target, start, length)) return nothing("there is another window of this grant");
    return map(target.device, length, own->prot(), MAP_SHARED, start);
}

Attempt map_before(const Target& target) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    return map_outside(target, own->device_offset() - kOff, kPage);
}

Attempt map_after(const Target& target) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    return map_outside(target, own->device_offset() + static_cast<off_t>(own->length), kPage);
}

/// The window of another slice: a stride away, which is the window's length where slices are packed.
Attempt map_other_slice(const Target& target) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    const off_t stride = static_cast<off_t>(own->length);
    return map_outside(target, own->device_offset() + (target.slice == 0 ? stride : -stride), own->length);
}

/// Every page of the window's BAR, up to 64, that is no window's.
Attempt map_every_page(const Target& target) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    unsigned tried = 0;
    int refusal = 0;
    for (off_t page = 0; page < 64 * kOff; page += kOff) {
        const off_t offset = region_start(own->region) + page;
        if (overlaps_a_mapping(target, offset, kPage)) continue;
        Attempt attempt = map(target.device, kPage, PROT_READ, MAP_SHARED, offset);
        ++tried;
        if (attempt.state == Attempt::State::Succeeded) return attempt;
        // One answer that is no refusal decides for all.
        if (refusal == 0 || (attempt.errnum != EPERM && attempt.errnum != EACCES)) refusal = attempt.errnum;
    }
    return failed(refusal, fmt::format("{} pages", tried));
}

Attempt map_region(const Target& target, unsigned region) {
    return map(target.device, kPage, PROT_READ, MAP_SHARED, region_start(region));
}

/// Every BAR but the window's; one that can be mapped is enough.
Attempt map_other_bars(const Target& target) {
    const Window* own = target.mapped();
    int refusal = 0;
    for (unsigned bar = 0; bar < 6; ++bar) {
        if (own != nullptr && bar == own->region) continue;
        Attempt attempt = map_region(target, bar);
        if (attempt.state == Attempt::State::Succeeded) return attempt;
        if (refusal == 0 || (attempt.errnum != EPERM && attempt.errnum != EACCES)) refusal = attempt.errnum;
    }
    return failed(refusal, "5 BARs");
}

Attempt map_own_shifted(const Target& target, off_t shift) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    return map(target.device, own->length, own->prot(), MAP_SHARED, own->device_offset() + shift);
}

Attempt map_own_with(const Target& target, int prot, int flags) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    return map(own->mmap_fd, own->length, prot, flags, own->mmap_offset);
}

Attempt map_read_only(const Target& target, int prot) {
    const Window* window = target.read_only();
    if (window == nullptr) return nothing("the profile has no read-only window");
    return map(window->mmap_fd, window->length, prot, MAP_SHARED, window->mmap_offset);
}

/// Whether the mapping at `address` may be executed, out of /proc/self/maps; nothing if it is not there.
std::optional<bool> is_executable(const void* address) {
    const std::string start = fmt::format("{:x}-", reinterpret_cast<uintptr_t>(address));
    for (const std::string& line : lines_of("/proc/self/maps")) {
        const std::vector<std::string> words = words_of(line);
        if (words.size() >= 2 && words[0].starts_with(start)) return words[1].find('x') != std::string::npos;
    }
    return std::nullopt;
}

/// personality(2): under READ_IMPLIES_EXEC the kernel adds PROT_EXEC after the caller asked for less.
Attempt map_read_implies_exec(const Target& target) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    if (personality(READ_IMPLIES_EXEC) < 0) return judged(-1, "personality");
    void* mapping = mmap(nullptr, own->length, own->prot(), MAP_SHARED, own->mmap_fd, own->mmap_offset);
    if (mapping == MAP_FAILED) return judged(-1, "mmap");
    const std::optional<bool> executable = is_executable(mapping);
    if (!executable) return impossible("/proc/self/maps does not show the window");
    return *executable ? succeeded("mapped, executable") : failed(EACCES, "mapped, but not executable");
}

Probe mmap_probe(std::string name, std::string what, std::function<Attempt(const Target&)> attempt,
                 std::vector<int> inherent = {}, std::string why = {}) {
    return {.name = std::move(name),
            .group = "mmap",
            .what = std::move(what),
            .attempt = std::move(attempt),
            .control = mmap_control(),
            .inherent = std::move(inherent),
            .inherent_why = std::move(why)};
}

}  // namespace

void add_mmap_probes(Probes& probes) {
    const auto add = [&probes](auto&&... fields) {
        probes.push_back(mmap_probe(std::forward<decltype(fields)>(fields)...));
    };
    const std::string no_region = "this device has no such region to map";

    add("mmap-before", "the page before the window", map_before);
    add("mmap-after", "the page after the window", map_after);
    add("mmap-across-start", "from the page before into the window",
        [](const Target& t) { return map_range(t, -kOff, 0); });
    add("mmap-across-end", "from the window into the page after",
        [](const Target& t) { return map_range(t, 0, kOff); });
    add("mmap-around", "a page before the window to a page after",
        [](const Target& t) { return map_range(t, -kOff, kOff); });
    add("mmap-a-byte-more", "the window and one byte", [](const Target& t) { return map_range(t, 0, 1); });
    add(
        "mmap-larger", "sixteen pages from the window's start",
        [](const Target& t) { return map_range(t, 0, 15 * kOff); }, std::vector{EINVAL},
        "this device's BAR ends before");
    add("mmap-other-slice", "another slice's doorbell", map_other_slice);
    add("mmap-bar-start", "the start of the doorbell BAR (common configuration)", [](const Target& t) {
        const Window* own = t.mapped();
        return map_outside(t, region_start(own == nullptr ? 0 : own->region), kPage);
    });
    add("mmap-every-page", "each other page of the doorbell BAR", map_every_page);
    add("mmap-other-bars", "the other BARs, one of them with the MSI-X table", map_other_bars,
        std::vector{EINVAL}, "this device has no other BAR");
    add(
        "mmap-msix-bar", "BAR 1, the MSI-X table of a virtio device",
        [](const Target& t) { return map_region(t, VFIO_PCI_BAR1_REGION_INDEX); }, std::vector{EINVAL},
        "this device has no BAR 1 to map");
    add(
        "mmap-rom", "the ROM region",
        [](const Target& t) { return map_region(t, VFIO_PCI_ROM_REGION_INDEX); }, std::vector{EINVAL},
        "vfio-pci maps no ROM");
    add(
        "mmap-config", "configuration space",
        [](const Target& t) { return map_region(t, VFIO_PCI_CONFIG_REGION_INDEX); }, std::vector{EINVAL},
        "vfio-pci does not map configuration space");
    add(
        "mmap-vga", "the VGA region",
        [](const Target& t) { return map_region(t, VFIO_PCI_VGA_REGION_INDEX); }, std::vector{EINVAL},
        no_region);
    add(
        "mmap-vendor-region", "the first vendor region",
        [](const Target& t) { return map_region(t, VFIO_PCI_NUM_REGIONS); }, std::vector{EINVAL}, no_region);
    add(
        "mmap-offset-4g", "the window's offset plus 4 GiB",
        [](const Target& t) { return map_own_shifted(t, off_t{1} << 32); }, std::vector{EINVAL},
        "it is past the end of the BAR");
    add(
        "mmap-offset-region-wrap", "the window's offset with bit 62 set",
        [](const Target& t) { return map_own_shifted(t, off_t{1} << 62); }, std::vector{EINVAL, EOVERFLOW},
        "it is past the last region");
    add(
        "mmap-exec", "the window, executable",
        [](const Target& t) { return map_own_with(t, PROT_READ | PROT_EXEC, MAP_SHARED); },
        std::vector{EPERM, EACCES}, "since Linux 6.17 the file system behind device files is noexec");
    add("mmap-read-implies-exec", "the window under personality READ_IMPLIES_EXEC", map_read_implies_exec,
        std::vector{EACCES}, "since Linux 6.17 the file system behind device files is noexec");
    add(
        "mmap-private", "the window, MAP_PRIVATE",
        [](const Target& t) {
            const Window* own = t.mapped();
            return map_own_with(t, own == nullptr ? 0 : own->prot(), MAP_PRIVATE);
        },
        std::vector{EINVAL}, "vfio-pci maps nothing privately");
    add(
        "mmap-private-foreign", "another page, MAP_PRIVATE",
        [](const Target& t) { return map(t.device, kPage, PROT_READ, MAP_PRIVATE, foreign_page(t)); },
        std::vector{EINVAL}, "vfio-pci maps nothing privately");
    add("mmap-validate-foreign", "another page, MAP_SHARED_VALIDATE", [](const Target& t) {
        return map(t.device, kPage, PROT_READ, MAP_SHARED_VALIDATE, foreign_page(t));
    });
    add("mmap-none-foreign", "another page, PROT_NONE (to be upgraded later)",
        [](const Target& t) { return map(t.device, kPage, PROT_NONE, MAP_SHARED, foreign_page(t)); });
    add("mmap-populate-foreign", "another page, MAP_POPULATE | MAP_LOCKED", [](const Target& t) {
        return map(t.device, kPage, PROT_READ, MAP_SHARED | MAP_POPULATE | MAP_LOCKED, foreign_page(t));
    });
    add("mmap-fixed-foreign", "another page, MAP_FIXED over the mapped window", [](const Target& t) {
        const Window* own = t.mapped();
        if (own == nullptr) return nothing("the profile has no window to map");
        void* mapping = mmap(nullptr, own->length, own->prot(), MAP_SHARED, own->mmap_fd, own->mmap_offset);
        if (mapping == MAP_FAILED) return preparation_failed("mmap of the window");
        const void* moved =
            mmap(mapping, kPage, PROT_READ, MAP_SHARED | MAP_FIXED, t.device, foreign_page(t));
        return judged(moved == MAP_FAILED ? -1 : 0);
    });
    add("mmap-write-read-only", "a read-only window, writable",
        [](const Target& t) { return map_read_only(t, PROT_READ | PROT_WRITE); });
    add("mmap-write-only-read-only", "a read-only window, PROT_WRITE alone",
        [](const Target& t) { return map_read_only(t, PROT_WRITE); });
}

}  // namespace postern::hostile
