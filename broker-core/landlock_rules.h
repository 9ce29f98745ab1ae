// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace postern {

/// What Landlock is to keep a client from, see landlock(7). A list that is absent restricts nothing; an empty
/// one allows nothing of its kind.
struct LandlockRules {
    // Paths inside: what is at and below them. What may be executed or written may be read, too.
    std::optional<std::vector<std::string>> read = std::nullopt;
    std::optional<std::vector<std::string>> write = std::nullopt;
    std::optional<std::vector<std::string>> execute = std::nullopt;
    std::optional<std::vector<std::string>> ioctl = std::nullopt;  ///< of devices
    std::optional<std::vector<std::uint16_t>> bind_tcp = std::nullopt;
    std::optional<std::vector<std::uint16_t>> connect_tcp = std::nullopt;
    bool scope_sockets = true;  ///< no abstract unix sockets of those outside
    bool scope_signals = true;  ///< no signals to those outside
    /// What the kernel cannot enforce is an error, and not left out.
    bool require = false;

    [[nodiscard]] bool has_scopes() const { return scope_sockets || scope_signals; }
    /// More than the scopes that everybody has who does not say otherwise.
    [[nodiscard]] bool is_asked_for() const {
        return read || write || execute || ioctl || bind_tcp || connect_tcp || require;
    }
    bool operator==(const LandlockRules&) const = default;
};

inline LandlockRules no_landlock() {
    LandlockRules none;
    none.scope_sockets = none.scope_signals = false;
    return none;
}

}  // namespace postern
