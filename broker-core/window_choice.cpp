// SPDX-License-Identifier: Apache-2.0
#include "broker-core/window_choice.h"

#include <algorithm>
#include <string_view>

namespace postern {
namespace {

uint64_t length_of(const PlannedWindow& window) {
    return Range{window.offset, window.offset + window.length}.pages().size();
}

/// What one who has it could do beyond the window; empty: nothing.
std::string_view excess(const PlannedWindow& window, const DmabufFacts& facts) {
    if (facts.size != length_of(window)) return "has another size than the window";
    if (!facts.maps_window) return "can be mapped, but not as the window may be";
    if (facts.maps_longer) return "can be mapped beyond its end";
    if (facts.grows) return "has mappings that mremap(2) makes longer than the window";
    if (facts.can_be_written && !window.access.write) return "can be written, and the window only read";
    return {};
}

}  // namespace

Result<DmabufUse> choose_dmabuf(const PlannedWindow& window, const std::optional<DmabufFacts>& facts) {
    if (!facts) return DmabufUse::None;
    if (!facts->maps && facts->size == length_of(window)) return DmabufUse::Import;
    const std::string_view beyond = excess(window, *facts);
    if (beyond.empty()) return DmabufUse::Map;
    if (window.by_mmap) return DmabufUse::None;
    return fail("window \"{}\": its dma-buf {}, so that it cannot be handed out", window.name, beyond);
}

bool needs_device_fd(const std::vector<IoctlRule>& ioctls, const std::vector<PlannedWindow>& windows,
                     const std::vector<DmabufUse>& uses) {
    if (windows.empty() || !ioctls.empty()) return true;
    const bool read = std::any_of(windows.begin(), windows.end(),
                                  [](const PlannedWindow& window) { return window.by_pread; });
    return read || std::any_of(uses.begin(), uses.end(), [](DmabufUse use) { return use != DmabufUse::Map; });
}

bool dmabufs_may_do(const DeviceProfile& profile) {
    return profile.ioctls.empty() && !profile.windows.empty() &&
           std::all_of(profile.windows.begin(), profile.windows.end(),
                       [](const Window& window) { return window.by_dmabuf && !window.by_pread; });
}

}  // namespace postern
