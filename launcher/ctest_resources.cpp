// SPDX-License-Identifier: Apache-2.0
#include "launcher/ctest_resources.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "broker-core/pci.h"

namespace postern {
namespace {

constexpr std::string_view kType = "postern";
constexpr std::string_view kGroup = "CTEST_RESOURCE_GROUP_";

/// A decimal number without a sign, of at most `most`.
std::optional<unsigned> parse_number(std::string_view text, unsigned most) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size() || value > most)
        return std::nullopt;
    return value;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    for (size_t at = 0;;) {
        const size_t end = text.find(separator, at);
        parts.push_back(text.substr(at, end - at));
        if (end == std::string_view::npos) return parts;
        at = end + 1;
    }
}

/// The id in "id:0000_00_02_0_s1,slots:1".
Result<std::string_view> one_id(std::string_view allotted, const std::string& variable) {
    std::string_view id;
    for (const std::string_view part : split(allotted, ',')) {
        if (part.starts_with("id:")) {
            id = part.substr(3);
        } else if (!part.starts_with("slots:") || !parse_number(part.substr(6), 1)) {
            return fail(
                "{}: \"{}\" is not \"id:…,slots:1\": a slice has one slot; set the test's property "
                "RESOURCE_GROUPS to \"{}:1\"",
                variable, allotted, kType);
        }
    }
    if (id.empty()) return fail("{}: \"{}\" names no id", variable, allotted);
    return id;
}

}  // namespace

std::string ctest_id(const CtestSlice& slice) {
    std::string id = slice.device;
    std::replace_if(
        id.begin(), id.end(), [](char c) { return c == ':' || c == '.'; }, '_');
    return fmt::format("{}{}s{}", id, id.empty() ? "" : "_", slice.slice);
}

Result<CtestSlice> parse_ctest_id(std::string_view id) {
    const auto bad = [&] {
        return fail(
            "id \"{}\" is none of those that `postern pool --ctest-resources` writes, such as "
            "0000_00_02_0_s1",
            id);
    };
    const std::vector<std::string_view> parts = split(id, '_');
    CtestSlice found;
    const std::string_view last = parts.back();
    const auto slice = last.starts_with('s') ? parse_number(last.substr(1), 0xFFFF) : std::nullopt;
    if (!slice || (parts.size() != 1 && parts.size() != 5)) return bad();
    found.slice = *slice;
    if (parts.size() == 5) {
        const auto device = parse_bdf(fmt::format("{}:{}:{}.{}", parts[0], parts[1], parts[2], parts[3]));
        if (!device) return bad();
        found.device = *device;
    }
    return found;
}

Json ctest_resource_spec(const std::string& device, unsigned slices) {
    Json resources = Json::array();
    for (unsigned slice = 0; slice < slices; ++slice)
        resources.push_back({{"id", ctest_id({device, slice})}, {"slots", 1}});
    return {{"version", {{"major", 1}, {"minor", 0}}},
            {"local", Json::array({Json{{std::string(kType), std::move(resources)}}})}};
}

Result<CtestSlice> allotted_slice(
    const std::function<std::optional<std::string>(const std::string&)>& variable) {
    const std::string count_name = std::string(kGroup) + "COUNT";
    const auto count_text = variable(count_name);
    if (!count_text) {
        return fail(
            "--ctest: {} is not set: CTest sets it for tests with the property RESOURCE_GROUPS \"{}:1\", "
            "when it has --resource-spec-file FILE of `postern pool --ctest-resources FILE`",
            count_name, kType);
    }
    const auto count = parse_number(*count_text, 0xFFFF);
    if (!count) return fail("--ctest: {}: \"{}\" is not a number", count_name, *count_text);
    std::optional<CtestSlice> found;
    for (unsigned group = 0; group < *count; ++group) {
        const std::string name = fmt::format("{}{}", kGroup, group);
        const std::string types = variable(name).value_or("");
        const auto all = split(types, ',');
        if (std::find(all.begin(), all.end(), kType) == all.end()) continue;
        const std::string allotted_name = name + "_POSTERN";
        const auto allotted = variable(allotted_name);
        if (!allotted) return fail("--ctest: {} has \"{}\", and {} is not set", name, kType, allotted_name);
        for (const std::string_view each : split(*allotted, ';')) {
            if (found) {
                return fail(
                    "--ctest: CTest has allotted more than one slice ({}), and `postern run` takes one; set "
                    "RESOURCE_GROUPS to \"{}:1\"",
                    allotted_name, kType);
            }
            auto id = one_id(each, allotted_name);
            if (!id) return propagate(std::move(id), "--ctest");
            auto slice = parse_ctest_id(*id);
            if (!slice) return propagate(std::move(slice), "--ctest: " + allotted_name);
            found = std::move(*slice);
        }
    }
    if (!found) {
        return fail(
            "--ctest: CTest has allotted no resource of type \"{}\"; set the test's property RESOURCE_GROUPS "
            "to \"{}:1\"",
            kType, kType);
    }
    return *found;
}

}  // namespace postern
