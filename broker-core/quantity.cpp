// SPDX-License-Identifier: Apache-2.0
#include "broker-core/quantity.h"

#include <array>
#include <charconv>
#include <limits>
#include <optional>

namespace postern {
namespace {

struct Unit {
    std::string_view suffix;
    uint64_t factor;
};

constexpr std::array<Unit, 6> kSizeUnits{
    {{"", 1}, {"B", 1}, {"KiB", 1ULL << 10}, {"MiB", 1ULL << 20}, {"GiB", 1ULL << 30}, {"TiB", 1ULL << 40}}};
constexpr std::array<Unit, 5> kTimeUnits{
    {{"", 1000}, {"ms", 1}, {"s", 1000}, {"min", 60'000}, {"h", 3'600'000}}};

template <size_t N>
std::optional<uint64_t> parse_with_units(std::string_view text, const std::array<Unit, N>& units) {
    int base = 10;
    if (text.starts_with("0x") || text.starts_with("0X")) {
        base = 16;
        text.remove_prefix(2);
    }
    uint64_t number = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number, base);
    if (code != std::errc{}) return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    for (const Unit& unit : units) {
        if (text != unit.suffix) continue;
        uint64_t product = 0;
        if (__builtin_mul_overflow(number, unit.factor, &product)) return std::nullopt;
        return product;
    }
    return std::nullopt;
}

}  // namespace

Result<uint64_t> parse_quantity(std::string_view text) {
    if (const auto value = parse_with_units(text, kSizeUnits)) return *value;
    return fail("\"{}\" is not an integer of 64 bits; write 4096, \"0x1000\", \"4KiB\" or \"2MiB\"", text);
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
    const auto value = parse_with_units(text, kTimeUnits);
    if (!value || *value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / 1'000'000)) {
        return fail("\"{}\" is not a duration; write \"250ms\", \"60s\", \"5min\" or \"1h\"", text);
    }
    return std::chrono::milliseconds(static_cast<int64_t>(*value));
}

std::string format_size(uint64_t bytes) {
    constexpr std::array<std::string_view, 4> kNames{"TiB", "GiB", "MiB", "KiB"};
    uint64_t factor = 1ULL << 40;
    for (const std::string_view name : kNames) {
        if (bytes != 0 && bytes % factor == 0) return fmt::format("{}{}", bytes / factor, name);
        factor >>= 10;
    }
    return fmt::format("{} bytes", bytes);
}

}  // namespace postern
