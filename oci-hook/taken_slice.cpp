// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/taken_slice.h"

#include <chrono>
#include <thread>

namespace postern {
namespace {

using Clock = std::chrono::steady_clock;

/// How long an end may take: the slice's teardown, and whoever was killed has to be gone.
constexpr std::chrono::seconds kPatienceToTake{10};
/// How long one that a file somewhere holds up is waited for: `crun run` in the foreground has the files of
/// its container, and ends a moment after it, and the broker looks every two seconds; anybody else may have
/// them for ever.
constexpr std::chrono::seconds kPatienceWithFiles{5};
constexpr std::chrono::milliseconds kBetweenTries{20};

Result<SliceUse> ask_use(const std::string& broker, const NamedSlice& slice) {
    BrokerRequest request;
    request.op = BrokerRequest::Op::Grants;
    POSTERN_ASSIGN(const BrokerClient::Answer answer, ask_broker(broker, request));
    if (answer.reply.refusal) return fail("{}", answer.reply.message);
    return use_of(slice, answer.reply.answer.value("grants", Json::array()));
}

}  // namespace

SliceUse use_of(const NamedSlice& slice, const Json& grants) {
    SliceUse use;
    for (const Json& each : grants) {
        if (!each.is_object() || each.value("device", "") != slice.bdf) continue;
        const unsigned number = each.value("slice", 0U);
        if (slice.slice && *slice.slice != number) continue;
        const bool held_up = each.contains("trouble");
        if (held_up) use.held_up = true;
        if (each.value("state", "") != "live" && !held_up) use.ending = true;
        if (!use.holders.empty()) use.holders += "; ";
        use.holders += fmt::format("slice {}: pid {} ({}) of uid {} since {}, grant {}{}", number,
                                   each.value("pid", 0), one_line(each.value("command", "")),
                                   each.value("uid", 0U), each.value("since", "?"), each.value("grant", "?"),
                                   held_up ? ", which ends: " + one_line(each.value("trouble", "")) : "");
    }
    return use;
}

tl::expected<BrokeredGrant, BrokerDenial> take_slice(const std::string& broker, const NamedSlice& slice) {
    BrokerRequest asked;
    asked.op = BrokerRequest::Op::Grant;
    asked.device = slice.bdf;
    asked.slice = slice.slice;
    asked.container = true;
    const auto begin = Clock::now();
    bool looked = false;
    while (true) {
        auto grant = ask_for_grant(broker, asked);
        if (grant || grant.error().refusal != BrokerRefusal::Busy) return grant;
        const auto use = ask_use(broker, slice);
        if (!use) return grant;
        const auto passed = Clock::now() - begin;
        if ((use->ending && passed < kPatienceToTake) || (use->held_up && passed < kPatienceWithFiles)) {
            std::this_thread::sleep_for(kBetweenTries);
        } else if (looked) {
            if (!use->holders.empty())
                grant.error().error = {fmt::format("{}: in use: {}", slice.bdf, use->holders), EBUSY};
            return grant;
        } else {
            // Whoever had it may have gone between the two questions.
            looked = true;
        }
    }
}

}  // namespace postern
