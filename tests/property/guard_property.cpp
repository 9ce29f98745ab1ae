// SPDX-License-Identifier: Apache-2.0
// guard-property [ROUNDS] [SEED]: random policies and calls; each must be decided as the model says, and no
// request to narrow a policy may allow anything. Status 0 if all was well; the seed is printed, and repeats
// the run.

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tests/support/guard_dice.h"
#include "tests/support/guard_model.h"

namespace postern::test {
namespace {

struct Counts {
    uint64_t calls = 0;
    uint64_t allowed[8] = {};
    uint64_t with_rules = 0;
    uint64_t with_ranges = 0;  ///< of these
    uint64_t refused_by_rules = 0;
    uint64_t narrowed = 0;
    uint64_t lost = 0;  ///< allowed calls that a narrowing took away
};

/// Is every bit of `after` a right that `before` had too?
bool only_narrower(const postern_policy& before, postern_policy after) {
    for (uint32_t i = 0; i < POSTERN_MAX_IOCTLS; i++) {
        if (after.ioctls[i].flags != before.ioctls[i].flags && after.ioctls[i].flags != 0) return false;
        after.ioctls[i].flags = before.ioctls[i].flags;
    }
    for (uint32_t i = 0; i < POSTERN_MAX_WINDOWS; i++) {
        if ((after.windows[i].flags & ~before.windows[i].flags) != 0) return false;
        after.windows[i].flags = before.windows[i].flags;
    }
    if (after.forward != before.forward && after.forward != POSTERN_FORWARD_NEVER) return false;
    after.forward = before.forward;
    return std::memcmp(&before, &after, sizeof after) == 0;
}

const char* check(Dice& dice, BlockPage& block, Counts& counts) {
    postern_policy policy = random_policy(dice);
    postern_call call = random_call(dice, policy);
    block.fill(dice, call);
    // A field is 8 bytes wide at most: with that, each is fetched by itself.
    longest_fetch = dice.one_in(4) ? 8 : UINT32_MAX;
    const int verdict = postern_decide(&policy, &call);
    const bool allowed = verdict == POSTERN_ALLOW;
    counts.calls++;
    counts.allowed[call.hook] += allowed ? 1 : 0;
    counts.refused_by_rules += verdict == POSTERN_DENY_ARGUMENT || verdict == POSTERN_DENY_UNSEALED ? 1 : 0;
    const postern_ioctl_entry* rules = nullptr;
    if (allowed && call.hook == POSTERN_HOOK_IOCTL &&
        postern_decide_ioctl(&policy, call.task, call.nr, call.cmd, &rules) == POSTERN_ALLOW &&
        rules != nullptr) {
        counts.with_rules++;
        const auto* begin = policy.rules + rules->first_rule;
        counts.with_ranges += std::any_of(begin, begin + rules->n_rules, [](const postern_rule& rule) {
            return (rule.flags & POSTERN_RULE_RANGE) != 0;
        });
    }
    if (verdict > 0) return "a verdict that is neither allowed nor refused";
    if (model_allows(policy, call) != allowed) return "the model disagrees";
    if (dice.one_in(16)) {
        // Nobody promises a policy in good order: out of order it may refuse too much, and never allow more.
        postern_policy shuffled = policy;
        std::swap(shuffled.ioctls[dice.below(4)], shuffled.ioctls[dice.below(POSTERN_MAX_IOCTLS)]);
        if (postern_decide(&shuffled, &call) == POSTERN_ALLOW && !allowed) return "disorder allows a call";
    }
    if (!dice.one_in(4)) return nullptr;

    const postern_policy before = policy;
    const int answer = postern_restrict(&policy, random_restriction(dice));
    if (answer == POSTERN_BAD_RESTRICTION) {
        return std::memcmp(&before, &policy, sizeof policy) == 0 ? nullptr
                                                                 : "a refused request changed something";
    }
    if (answer != POSTERN_RESTRICTED) return "an answer that is none";
    counts.narrowed++;
    if (!only_narrower(before, policy)) return "a request widened the policy";
    const bool still = postern_decide(&policy, &call) == POSTERN_ALLOW;
    if (still && !allowed) return "a request allowed a call";
    if (still != model_allows(policy, call)) return "the model disagrees after a request";
    counts.lost += allowed && !still ? 1 : 0;
    return nullptr;
}

}  // namespace
}  // namespace postern::test

int main(int argc, char** argv) {
    using namespace postern::test;
    const uint64_t rounds = argc > 1 ? std::strtoull(argv[1], nullptr, 0) : 10'000'000;
    const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : std::random_device{}();
    std::printf("guard-property: %" PRIu64 " policies and calls, seed %" PRIu64 "\n", rounds, seed);
    Dice dice(seed);
    BlockPage block;
    Counts counts;
    for (uint64_t i = 0; i < rounds; i++) {
        if (const char* wrong = check(dice, block, counts); wrong != nullptr) {
            std::printf("guard-property: round %" PRIu64 ": %s; repeat with: guard-property %" PRIu64
                        " %" PRIu64 "\n",
                        i, wrong, i + 1, seed);
            return 1;
        }
    }
    std::printf(
        "allowed: ioctl %" PRIu64 " (%" PRIu64 " of them by rules, %" PRIu64
        " with ranges; rules refused %" PRIu64 "), mmap %" PRIu64 ", mprotect %" PRIu64 ", access %" PRIu64
        ", receive %" PRIu64 "; narrowed %" PRIu64 " times, which took %" PRIu64 " calls away\n",
        counts.allowed[1], counts.with_rules, counts.with_ranges, counts.refused_by_rules, counts.allowed[3],
        counts.allowed[4], counts.allowed[5], counts.allowed[6], counts.narrowed, counts.lost);
    // The dice are worth something only if they throw enough of each.
    const uint64_t enough = rounds / 3000;
    for (const uint64_t seen : {counts.allowed[1], counts.with_rules, counts.with_ranges,
                                counts.refused_by_rules, counts.allowed[3], counts.allowed[4],
                                counts.allowed[5], counts.allowed[6], counts.narrowed, counts.lost}) {
        if (seen >= enough) continue;
        std::printf("guard-property: fewer than %" PRIu64 " calls of one sort: the dice are loaded\n",
                    enough);
        return 1;
    }
    return counts.allowed[POSTERN_HOOK_IOCTL_COMPAT] == 0 ? 0 : 1;
}
