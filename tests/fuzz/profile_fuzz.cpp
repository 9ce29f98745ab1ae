// SPDX-License-Identifier: Apache-2.0
// A profile of arbitrary bytes is read and planned or refused; what is accepted keeps its promises.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "broker-core/plan.h"
#include "broker-core/profile_reader.h"
#include "launcher/explain.h"

namespace {

postern::DeviceInfo a_device() {
    postern::DeviceInfo info;
    info.bdf = "0000:00:02.0";
    info.id = {0x1af4, 0x1042, 0, 0};
    for (size_t i = 0; i < 6; ++i) info.regions[i] = {0x10000, uint64_t{i} << 40, true, true, {{0, 0x10000}}};
    info.regions[7] = {4096, 7ULL << 40, true, true, {}};
    for (auto& irq : info.irqs) irq = {8, true};
    info.msix = postern::MsixLocation{1, {0, 128}, 1, {0x800, 0x808}};
    info.can_reset = true;
    return info;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto document = postern::parse_json({reinterpret_cast<const char*>(data), size});
    if (!document) return 0;
    const auto profile = postern::read_profile(*document, false);
    if (!profile || !postern::check_profile(*profile)) return 0;
    if (profile->slices <= 64) (void)postern::explain_profile(*profile, {}, 80);
    const auto plan = postern::plan_device(*profile, a_device());
    if (!plan) return 0;
    for (const postern::SlicePlan& slice : plan->slices) {
        for (const postern::PlannedWindow& window : slice.windows) {
            const bool paged = window.by_mmap || window.by_dmabuf;
            const postern::Range exact{window.offset, window.offset + window.length};
            const postern::Range reach = paged ? exact.pages() : exact;
            const uint64_t size_of_region = window.region < 6 ? 0x10000 : 4096;
            const bool on_msix = window.region == 1 && reach.overlaps({0, 128});
            if (window.length == 0 || reach.end > size_of_region || (paged && window.offset % 4096 != 0) ||
                on_msix)
                std::abort();
        }
    }
    return 0;
}
