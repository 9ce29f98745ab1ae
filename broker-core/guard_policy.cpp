// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_policy.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace postern {
namespace {

/// loff_t is signed: no file has an offset beyond.
constexpr uint64_t kMaxOffset = std::numeric_limits<int64_t>::max();
constexpr uint64_t kAtNoPlace = ~uint64_t{POSTERN_PAGE_SIZE - 1};

Result<postern_range> encode(const GuardWindow& window) {
    if (window.length == 0) return fail("is empty");
    if (window.offset > kMaxOffset || window.length > kMaxOffset - window.offset) {
        return fail("offset {:#x}, length {:#x} runs past the largest file offset", window.offset,
                    window.length);
    }
    if (!window.read && !window.write) return fail("allows neither reading nor writing");
    if (!window.mmap && !window.pread) return fail("allows neither mmap nor pread");

    postern_range encoded{};
    encoded.offset = window.offset;
    encoded.length = window.length;
    // What cannot be mapped is found by no search for mappings.
    encoded.vma_offset = window.mmap ? window.vma_offset : kAtNoPlace;
    encoded.flags = (window.read ? POSTERN_WINDOW_READ : 0) | (window.write ? POSTERN_WINDOW_WRITE : 0) |
                    (window.mmap ? POSTERN_WINDOW_MMAP : 0) | (window.pread ? POSTERN_WINDOW_PREAD : 0);
    return encoded;
}

/// Rules go behind those that are there; the policy's alternatives of one ioctl stand in a row.
Status add_rules(const std::vector<Alternative>& alternatives, std::vector<postern_rule>& rules) {
    for (const Alternative& alternative : alternatives) {
        bool first = true;
        for (const FieldTest& test : alternative) {
            if (test.ranges.empty()) return fail("a test that nothing fits");
            for (size_t i = 0; i < test.ranges.size(); ++i) {
                postern_rule rule{};
                rule.mask = test.mask;
                rule.min = test.ranges[i].first;
                rule.max = test.ranges[i].second;
                rule.offset = test.offset;
                rule.width = test.width;
                if (test.length_at) {
                    rule.flags |= POSTERN_RULE_RANGE;
                    rule.length_at = *test.length_at;
                }
                if (first) rule.flags |= POSTERN_RULE_FIRST;
                if (i + 1 < test.ranges.size()) rule.flags |= POSTERN_RULE_OR;
                first = false;
                rules.push_back(rule);
            }
        }
        if (first) return fail("an alternative without a test");
    }
    return {};
}

/// The ioctls and their rules. Several entries of one number become one: a guard that stopped at the first
/// would never come to the second.
Status encode_ioctls(const FilePolicy& policy, postern_policy& encoded) {
    std::vector<GuardIoctl> merged;
    for (const GuardIoctl& each : policy.ioctls) {
        const auto known = std::find_if(merged.begin(), merged.end(),
                                        [&](const GuardIoctl& other) { return other.number == each.number; });
        if (known == merged.end()) {
            merged.push_back(each);
        } else if (each.alternatives.empty() || known->alternatives.empty()) {
            known->alternatives.clear();
        } else {
            known->alternatives.insert(known->alternatives.end(), each.alternatives.begin(),
                                       each.alternatives.end());
        }
    }
    if (merged.size() > POSTERN_MAX_IOCTLS)
        return fail("{} ioctls; the guard holds {}", merged.size(), POSTERN_MAX_IOCTLS);

    // The guard searches by halves.
    std::sort(merged.begin(), merged.end(),
              [](const GuardIoctl& a, const GuardIoctl& b) { return a.number < b.number; });
    for (postern_ioctl_entry& unused : encoded.ioctls) unused.cmd = ~0U;

    std::vector<postern_rule> rules;
    for (const GuardIoctl& each : merged) {
        postern_ioctl_entry& listed = encoded.ioctls[encoded.n_ioctls++];
        listed.cmd = each.number;
        listed.flags = POSTERN_IOCTL_ALLOWED;
        if (each.alternatives.empty()) continue;
        listed.flags = POSTERN_IOCTL_RULED;
        const size_t first = rules.size();
        if (auto added = add_rules(each.alternatives, rules); !added)
            return propagate(std::move(added), fmt::format("ioctl {:#x}", each.number));
        if (rules.size() > POSTERN_MAX_RULES) {
            return fail(
                "{} or more tests of ioctl arguments (each value of \"in\" is one); the guard holds {}",
                rules.size(), POSTERN_MAX_RULES);
        }
        listed.first_rule = static_cast<uint16_t>(first);
        listed.n_rules = static_cast<uint16_t>(rules.size() - first);
        listed.block_size = each.block_size;
        listed.size_at = each.size_at;
    }
    std::copy(rules.begin(), rules.end(), encoded.rules);
    return {};
}

template <size_t Size>
void copy_text(const std::string& text, char (&into)[Size]) {
    std::copy_n(text.begin(), std::min(text.size(), Size - 1), into);
}

uint32_t encode(Forward forward) {
    switch (forward) {
        case Forward::Sandbox:
            return POSTERN_FORWARD_SANDBOX;
        case Forward::Anyone:
            return POSTERN_FORWARD_ANYONE;
        case Forward::Never:
            break;
    }
    return POSTERN_FORWARD_NEVER;
}

}  // namespace

Result<postern_policy> encode(const FilePolicy& policy) {
    if (policy.grant.empty() || policy.grant.size() >= POSTERN_GRANT_SIZE) {
        return fail("policy: grant id \"{}\" has {} characters; it takes 1 to {}", policy.grant,
                    policy.grant.size(), POSTERN_GRANT_SIZE - 1);
    }
    if (policy.windows.size() > POSTERN_MAX_WINDOWS) {
        return fail("policy of {}: {} windows; the guard holds {}", policy.grant, policy.windows.size(),
                    POSTERN_MAX_WINDOWS);
    }
    const bool has_sandbox = policy.sandbox_cgroup_id != 0;
    if (has_sandbox && (policy.cgroup_level == 0 || policy.cgroup_level > POSTERN_MAX_CGROUP_LEVEL)) {
        return fail("policy of {}: the sandbox's cgroup is at level {}; the guard looks at levels 1 to {}",
                    policy.grant, policy.cgroup_level, POSTERN_MAX_CGROUP_LEVEL);
    }
    if (policy.forward == Forward::Sandbox && !has_sandbox) {
        return fail("policy of {}: forward is \"sandbox\" and there is no sandbox", policy.grant);
    }

    postern_policy encoded{};
    std::copy(policy.grant.begin(), policy.grant.end(), encoded.grant);
    encoded.sandbox_cgroup = policy.sandbox_cgroup_id;
    encoded.cgroup_level = policy.cgroup_level;
    encoded.forward = encode(policy.forward);
    encoded.flags = (policy.exclusive ? POSTERN_POLICY_EXCLUSIVE : 0) |
                    (policy.only_way && has_sandbox ? POSTERN_POLICY_ONLY_WAY : 0);
    copy_text(policy.device, encoded.device);
    copy_text(policy.profile, encoded.profile);
    encoded.slice = policy.slice;
    encoded.file = policy.file;
    if (auto ioctls = encode_ioctls(policy, encoded); !ioctls)
        return propagate(std::move(ioctls), fmt::format("policy of {}", policy.grant));
    for (const GuardWindow& window : policy.windows) {
        auto each = encode(window);
        if (!each) {
            return propagate(std::move(each),
                             fmt::format("policy of {}: window {}", policy.grant, encoded.n_windows));
        }
        encoded.windows[encoded.n_windows++] = *each;
    }
    return encoded;
}

bool allows_the_same(const postern_policy& there, const postern_policy& asked) {
    const auto same = [](const auto& a, const auto& b) { return std::memcmp(&a, &b, sizeof a) == 0; };
    return (there.flags & POSTERN_POLICY_REVOKED) == 0 && there.n_windows == asked.n_windows &&
           there.n_ioctls == asked.n_ioctls && same(there.windows, asked.windows) &&
           same(there.ioctls, asked.ioctls) && same(there.rules, asked.rules);
}

}  // namespace postern
