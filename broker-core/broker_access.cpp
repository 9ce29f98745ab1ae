// SPDX-License-Identifier: Apache-2.0
#include "broker-core/broker_access.h"

#include <fmt/format.h>

#include <algorithm>

namespace postern {
namespace {

template <typename T>
bool holds(const std::vector<T>& list, const T& value) {
    return std::find(list.begin(), list.end(), value) != list.end();
}

bool is_about(const SliceRule& rule, const Caller& caller) {
    return rule.everyone || holds(rule.users, caller.uid) || holds(rule.groups, caller.gid) ||
           std::any_of(caller.groups.begin(), caller.groups.end(),
                       [&](gid_t group) { return holds(rule.groups, group); });
}

}  // namespace

bool may_use(const BrokerDevice& device, const Caller& caller) {
    return caller.uid == 0 || std::any_of(device.allow.begin(), device.allow.end(),
                                          [&](const SliceRule& rule) { return is_about(rule, caller); });
}

SliceChoice choose_slice(const BrokerDevice& device, unsigned slices, const Caller& caller,
                         std::optional<unsigned> wanted, std::span<const TakenSlice> taken) {
    const std::string whose = fmt::format("device {} ({})", device.bdf, device.name);
    if (!may_use(device, caller)) {
        return {SliceChoice::Kind::Denied, 0,
                fmt::format("{}: uid {} may not use it; an administrator allows it in {}/{}.json", whose,
                            caller.uid, kBrokerConfig, device.name)};
    }
    if (wanted && *wanted >= slices) {
        return {SliceChoice::Kind::Denied, 0,
                fmt::format("{}: there is no slice {}; they are 0 to {}", whose, *wanted, slices - 1)};
    }
    const auto own = static_cast<unsigned>(std::count_if(
        taken.begin(), taken.end(), [&](const TakenSlice& each) { return each.uid == caller.uid; }));
    bool any = false;
    bool at_limit = false;
    unsigned limit = 0;
    for (unsigned slice = wanted.value_or(0); slice < (wanted ? *wanted + 1 : slices); ++slice) {
        bool may = caller.uid == 0;
        bool may_more = caller.uid == 0;
        for (const SliceRule& rule : device.allow) {
            if (!is_about(rule, caller) || (rule.slices && !holds(*rule.slices, slice))) continue;
            may = true;
            if (!rule.most || own < *rule.most)
                may_more = true;
            else
                limit = std::max(limit, *rule.most);
        }
        any = any || may;
        if (may && !may_more) at_limit = true;
        if (!may_more) continue;
        const bool is_taken = std::any_of(taken.begin(), taken.end(),
                                          [&](const TakenSlice& each) { return each.slice == slice; });
        if (!is_taken) return {SliceChoice::Kind::Free, slice, {}};
        at_limit = false;
    }
    if (!any) {
        return {SliceChoice::Kind::Denied, 0,
                wanted ? fmt::format("{}: uid {} may not have slice {}", whose, caller.uid, *wanted)
                       : fmt::format("{}: uid {} may have none of its {} slices", whose, caller.uid, slices)};
    }
    if (at_limit) {
        return {SliceChoice::Kind::Busy, 0,
                fmt::format("{}: uid {} has {} slices already, as many as it may have at once ({})", whose,
                            caller.uid, own, limit)};
    }
    return {SliceChoice::Kind::Busy, 0,
            wanted ? fmt::format("{}: slice {} is in use", whose, *wanted)
                   : fmt::format("{}: no slice is free", whose)};
}

}  // namespace postern
