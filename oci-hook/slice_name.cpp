// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/slice_name.h"

#include <algorithm>

#include "broker-core/broker_message.h"

namespace postern {
namespace {

constexpr size_t kMaxName = 63;

bool is_letter_or_digit(char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
           (letter >= '0' && letter <= '9');
}

}  // namespace

SlicedDevice sliced_device(const BrokerDevice& device, unsigned slices) {
    return {device.name, device.bdf, slices, device.trusts_annotations};
}

bool is_slice_name(std::string_view name) {
    constexpr std::string_view kOthers = "_.:-";
    return !name.empty() && name.size() <= kMaxName && is_letter_or_digit(name.front()) &&
           is_letter_or_digit(name.back()) && std::all_of(name.begin(), name.end(), [&](char letter) {
               return is_letter_or_digit(letter) || kOthers.find(letter) != std::string_view::npos;
           });
}

Result<std::vector<NamedSlice>> name_slices(std::span<const SlicedDevice> devices) {
    std::vector<NamedSlice> names;
    for (const SlicedDevice& device : devices) {
        names.push_back({device.name, device.bdf, std::nullopt, device.trusts_annotations});
        for (unsigned slice = 0; slice < device.slices; ++slice)
            names.push_back(
                {fmt::format("{}.{}", device.name, slice), device.bdf, slice, device.trusts_annotations});
        // The longest of them, too.
        if (!is_slice_name(device.name) || !is_slice_name(names.back().name)) {
            return fail(
                "{}.json: \"{}\" cannot be the name of a slice, which has letters, digits and _.:-, at most "
                "{}, and a letter or digit at both ends; rename the file",
                one_line(device.name), one_line(is_slice_name(device.name) ? names.back().name : device.name),
                kMaxName);
        }
    }
    std::vector<const NamedSlice*> sorted;
    sorted.reserve(names.size());
    for (const NamedSlice& each : names) sorted.push_back(&each);
    const auto before = [](const NamedSlice* a, const NamedSlice* b) { return a->name < b->name; };
    std::stable_sort(sorted.begin(), sorted.end(), before);
    const auto twice =
        std::adjacent_find(sorted.begin(), sorted.end(),
                           [](const NamedSlice* a, const NamedSlice* b) { return a->name == b->name; });
    if (twice != sorted.end()) {
        return fail("{}: is a name of {} and of {}; rename the file of one of them", (*twice)->name,
                    (*twice)->bdf, twice[1]->bdf);
    }
    return names;
}

Result<NamedSlice> find_slice(std::span<const NamedSlice> names, std::string_view name) {
    const auto found =
        std::find_if(names.begin(), names.end(), [&](const NamedSlice& each) { return each.name == name; });
    if (found != names.end()) return *found;
    if (names.empty()) {
        return fail("there is no slice \"{}\": no device is configured in {}", one_line(name), kBrokerConfig);
    }
    std::vector<std::string_view> known;
    known.reserve(names.size());
    for (const NamedSlice& each : names) known.push_back(each.name);
    return fail("there is no slice \"{}\"; did you mean \"{}\"?", one_line(name), nearest(name, known));
}

}  // namespace postern
