// SPDX-License-Identifier: Apache-2.0
#include "broker-core/live_grant.h"

#include <algorithm>
#include <cstring>

namespace postern {
namespace {

template <size_t Size>
std::string text_of(const char (&field)[Size]) {
    return {field, ::strnlen(field, Size)};
}

}  // namespace

std::vector<LiveGrant> live_grants(const GuardPins::Policies& files) {
    std::vector<LiveGrant> grants;
    for (const auto& [key, policy] : files) {
        const std::string id = text_of(policy.grant);
        auto grant =
            std::find_if(grants.begin(), grants.end(), [&](const LiveGrant& each) { return each.id == id; });
        if (grant == grants.end()) {
            grant = grants.insert(grant, LiveGrant{id,
                                                   text_of(policy.device),
                                                   text_of(policy.profile),
                                                   policy.slice,
                                                   static_cast<pid_t>(policy.launcher),
                                                   policy.since,
                                                   policy.sandbox_cgroup,
                                                   0,
                                                   true,
                                                   {}});
        }
        if (policy.since < grant->since) {
            grant->since = policy.since;
            // A grant of several files is called by its first, the device where there is one.
            grant->device = text_of(policy.device);
        }
        grant->refused += policy.denied;
        grant->revoked = grant->revoked && (policy.flags & POSTERN_POLICY_REVOKED) != 0;
        grant->files.push_back(key);
    }
    std::stable_sort(grants.begin(), grants.end(),
                     [](const LiveGrant& a, const LiveGrant& b) { return a.since < b.since; });
    return grants;
}

}  // namespace postern
