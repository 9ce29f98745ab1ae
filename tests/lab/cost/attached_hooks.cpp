// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cost/attached_hooks.h"

#include <chrono>
#include <sstream>
#include <thread>

#include "broker-core/file.h"

namespace postern::cost {

Result<size_t> attached_hooks() {
    // Documentation/trace/ftrace.rst: every function whose entry is patched to call something.
    POSTERN_ASSIGN(const std::string functions, read_file("/sys/kernel/tracing/enabled_functions", 1U << 20));
    std::istringstream lines(functions);
    size_t count = 0;
    for (std::string line; std::getline(lines, line);) count += line.starts_with("bpf_lsm_") ? 1 : 0;
    return count;
}

Status check_attached(size_t count) {
    POSTERN_ASSIGN(const size_t found, attached_hooks());
    if (found >= count) return {};
    return fail("BPF programs are attached to {} LSM hooks; {} should be", found, count);
}

Status wait_until_none_is_attached() {
    size_t count = 0;
    for (int i = 0; i < 1000; i++) {
        POSTERN_ASSIGN(count, attached_hooks());
        if (count == 0) return {};
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return fail(
        "BPF programs are attached to {} LSM hooks where none should be; is something else using them?",
        count);
}

}  // namespace postern::cost
