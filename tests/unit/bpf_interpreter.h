// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstring>
#include <stdexcept>
#include <vector>

/// Runs a classic BPF program as seccomp(2) does, written from the kernel's documentation
/// (networking/filter.rst) and not from what compiles the filters: what it says is compared with what the
/// profile says.
inline std::uint32_t run_bpf(const std::vector<sock_filter>& program, const seccomp_data& data) {
    std::uint32_t a = 0;
    for (std::size_t at = 0; at < program.size(); ++at) {
        const sock_filter& op = program[at];
        const auto jump = [&](bool taken) { at += taken ? op.jt : op.jf; };
        switch (op.code) {
            case BPF_LD | BPF_W | BPF_ABS:
                if (op.k % 4 != 0 || op.k + 4 > sizeof data)
                    throw std::runtime_error("load outside of seccomp_data");
                std::memcpy(&a, reinterpret_cast<const char*>(&data) + op.k, sizeof a);
                break;
            case BPF_ALU | BPF_AND | BPF_K:
                a &= op.k;
                break;
            case BPF_JMP | BPF_JA:
                at += op.k;
                break;
            case BPF_JMP | BPF_JEQ | BPF_K:
                jump(a == op.k);
                break;
            case BPF_JMP | BPF_JGT | BPF_K:
                jump(a > op.k);
                break;
            case BPF_JMP | BPF_JGE | BPF_K:
                jump(a >= op.k);
                break;
            case BPF_JMP | BPF_JSET | BPF_K:
                jump((a & op.k) != 0);
                break;
            case BPF_RET | BPF_K:
                return op.k;
            default:
                throw std::runtime_error("instruction not known");
        }
    }
    throw std::runtime_error("ran off the end");
}
