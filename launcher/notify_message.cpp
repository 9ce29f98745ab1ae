// SPDX-License-Identifier: Apache-2.0
#include "launcher/notify_message.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

namespace postern {
namespace {

/// errno(3)'s own are below 134 and kernels return up to this.
constexpr std::uint64_t kMaxErrno = 4095;

bool is_one(std::string_view value) {
    return value == "1";
}

bool is_ping(std::string_view value) {
    return value == "1" || value == "trigger";
}

/// Digits alone, as the manager reads them: no sign, no unit.
bool is_number(std::string_view value, std::uint64_t limit) {
    constexpr std::size_t kMostDigits = 19;
    if (value.empty() || value.size() > kMostDigits) return false;
    std::uint64_t number = 0;
    for (const char digit : value) {
        if (digit < '0' || digit > '9') return false;
        number = number * 10 + static_cast<std::uint64_t>(digit - '0');
    }
    return number <= limit;
}

bool is_errno(std::string_view value) {
    return is_number(value, kMaxErrno);
}

bool is_time(std::string_view value) {
    return is_number(value, UINT64_MAX / 2);
}

/// How many bytes of `text` are one character in UTF-8; 0: it is none.
std::size_t character_length(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0U) != 0x80) return 0;
    }
    const unsigned second = byte(1);
    // Longer than needed, surrogates, beyond the last character, and C1 controls.
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
        (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f) ||
        (first == 0xc2 && second < 0xa0)) {
        return 0;
    }
    return length;
}

/// It is shown on terminals: no control characters.
bool is_status(std::string_view value) {
    if (value.size() > kMaxNotifyStatus) return false;
    while (!value.empty()) {
        const std::size_t length = character_length(value);
        if (length == 0 || value[0] == '\x7f' || (length == 1 && value[0] < ' ')) return false;
        value.remove_prefix(length);
    }
    return true;
}

struct Known {
    std::string_view name;
    bool (*is_good)(std::string_view value);
};

constexpr Known kKnown[] = {
    {"READY", is_one},
    {"RELOADING", is_one},
    {"STOPPING", is_one},
    {"WATCHDOG", is_ping},
    {"STATUS", is_status},
    {"ERRNO", is_errno},
    {"EXTEND_TIMEOUT_USEC", is_time},
};

}  // namespace

std::string filter_notify_message(std::string_view message) {
    if (message.size() > kMaxNotifyMessage) return {};
    // As systemd has it: one at the end is a C string's, another one is malformed.
    if (message.ends_with('\0')) message.remove_suffix(1);
    if (message.find('\0') != std::string_view::npos) return {};
    std::array<bool, std::size(kKnown)> seen = {};
    std::string passed;
    while (!message.empty()) {
        const std::string_view line = message.substr(0, message.find('\n'));
        message.remove_prefix(std::min(line.size() + 1, message.size()));
        const std::size_t equals = line.find('=');
        if (equals == std::string_view::npos) continue;
        const auto* const known = std::find_if(std::begin(kKnown), std::end(kKnown), [&](const Known& each) {
            return each.name == line.substr(0, equals);
        });
        if (known == std::end(kKnown)) continue;
        bool& again = seen.at(static_cast<std::size_t>(known - std::begin(kKnown)));
        if (again || !known->is_good(line.substr(equals + 1))) continue;
        again = true;
        if (!passed.empty()) passed += '\n';
        passed += line;
    }
    return passed;
}

}  // namespace postern
