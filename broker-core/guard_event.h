// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "bpf/policy.h"
#include "broker-core/json_reader.h"

namespace postern {

/// What is known of a refusal besides the event itself.
struct EventContext {
    const postern_policy* policy = nullptr;  ///< of its grant; null: not known, or the file has none
    int64_t realtime_ahead = 0;              ///< see boot_clock.h
};

/// "command", "range", …: why a call was refused (enum postern_verdict), for programs.
[[nodiscard]] std::string_view verdict_name(int32_t verdict);
/// The same as a sentence.
[[nodiscard]] std::string_view verdict_words(int32_t verdict);

/// The refused call: "ioctl VFIO_DEVICE_SET_IRQS {index=msix start=0x1}", "mmap rw of 4096 bytes at
/// bar4+0x5000".
[[nodiscard]] std::string describe_call(const postern_event& event, const EventContext& context);

/// One line, without its end: when, which grant, who, which call, why, and how many before it were only
/// counted.
[[nodiscard]] std::string describe_event(const postern_event& event, const EventContext& context);
/// One object of `postern monitor --json`; docs/guard.md says what its members are.
[[nodiscard]] Json event_to_json(const postern_event& event, const EventContext& context);

}  // namespace postern
