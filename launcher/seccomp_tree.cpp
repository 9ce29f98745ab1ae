// SPDX-License-Identifier: Apache-2.0
#include "launcher/seccomp_tree.h"

#include <linux/audit.h>
#include <linux/seccomp.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <span>

namespace postern {
namespace {

using Program = std::vector<sock_filter>;

/// A program that is written from its end: jumps of classic BPF go forward, so where they lead is known.
class BackwardProgram {
  public:
    /// Where an instruction stands, counted from the end.
    using Label = std::size_t;

    Label add(const sock_filter& instruction) {
        backward_.push_back(instruction);
        return backward_.size() - 1;
    }

    Label add(const Program& program) {
        backward_.insert(backward_.end(), program.rbegin(), program.rend());
        return backward_.size() - 1;
    }

    Label verdict(std::uint32_t value) {
        const auto [known, added] = verdicts_.try_emplace(value, 0);
        if (added || distance(known->second) > kReach) known->second = add(BPF_STMT(BPF_RET | BPF_K, value));
        return known->second;
    }

    Label jump(std::uint16_t comparison, std::uint32_t value, Label if_so, Label if_not) {
        if_so = within_reach(if_so);
        if_not = within_reach(if_not);
        return add(BPF_JUMP(static_cast<std::uint16_t>(BPF_JMP | comparison | BPF_K), value,
                            static_cast<std::uint8_t>(distance(if_so)),
                            static_cast<std::uint8_t>(distance(if_not))));
    }

    [[nodiscard]] Program forward() const { return {backward_.rbegin(), backward_.rend()}; }

  private:
    /// A conditional jump skips 255 instructions at most, and one more may come between for its other target.
    static constexpr std::size_t kReach = 254;

    /// How many instructions one that is added now has to skip.
    [[nodiscard]] std::size_t distance(Label label) const { return backward_.size() - label - 1; }

    Label within_reach(Label label) {
        if (distance(label) <= kReach) return label;
        return add(BPF_STMT(BPF_JMP | BPF_JA, static_cast<std::uint32_t>(distance(label))));
    }

    Program backward_;
    std::map<std::uint32_t, Label> verdicts_;
};

class Tree {
  public:
    explicit Tree(const std::vector<Program>& programs) {
        for (const Program& each : programs) programs_.push_back(program_.add(each));
    }

    BackwardProgram::Label add(std::span<const CallRange> ranges) {
        if (ranges.size() == 1) return leaf(ranges.front());
        if (ranges.size() == 3 && ranges[0].says_the_same(ranges[2]) &&
            ranges[2].first - ranges[1].first == 1) {
            const auto other = leaf(ranges[0]);
            const auto one = leaf(ranges[1]);
            return program_.jump(BPF_JEQ, ranges[1].first, one, other);
        }
        const std::size_t half = ranges.size() / 2;
        const auto upper = add(ranges.subspan(half));
        const auto lower = add(ranges.first(half));
        return program_.jump(BPF_JGE, ranges[half].first, upper, lower);
    }

    BackwardProgram& program() { return program_; }

  private:
    BackwardProgram::Label leaf(const CallRange& range) {
        return range.program < 0 ? program_.verdict(range.verdict)
                                 : programs_[static_cast<std::size_t>(range.program)];
    }

    BackwardProgram program_;
    std::vector<BackwardProgram::Label> programs_;
};

}  // namespace

std::vector<sock_filter> make_call_tree(const std::vector<CallRange>& ranges,
                                        const std::vector<std::vector<sock_filter>>& programs) {
    std::vector<CallRange> merged;
    for (const CallRange& range : ranges) {
        if (merged.empty() || !merged.back().says_the_same(range)) merged.push_back(range);
    }
    Tree tree(programs);
    tree.add(merged);
    BackwardProgram& program = tree.program();
    // The tree's root was added last, so both go on to it.
    const auto root = program.add(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
    const auto kill = program.verdict(SECCOMP_RET_KILL_PROCESS);
    program.jump(BPF_JEQ, AUDIT_ARCH_X86_64, root, kill);
    program.add(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)));
    return program.forward();
}

}  // namespace postern
