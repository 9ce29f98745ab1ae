// SPDX-License-Identifier: Apache-2.0
#include "broker-core/ioctl_rule.h"

#include <algorithm>
#include <bit>
#include <charconv>

#include "broker-core/iommufd_uapi.h"

namespace postern {
namespace {

/// Why no rule on this ioctl's argument can be enforced; empty where one can.
std::string_view why_no_rules(const IoctlEntry& entry) {
    switch (entry.argument) {
        case Argument::None:
            return "it takes no argument";
        case Argument::Number:
            return "its argument is no struct with fields";
        case Argument::Answer:
            return "it writes its answer into the argument block, which has to be sealed for a rule to hold, "
                   "so that "
                   "the client would never get an answer";
        case Argument::Block:
        case Argument::BlockTwice:
            break;
    }
    return entry.fields.empty() ? "postern knows no fields of its argument" : "";
}

uint64_t largest(uint8_t width) {
    return width >= 8 ? ~0ULL : (1ULL << (8 * width)) - 1;
}

/// Reads the values of one rule. Values are integers, names that the table knows, or { base, stride }.
class ValueReader {
  public:
    ValueReader(ObjectReader& reader, const IoctlField& field) : reader_(reader), field_(field) {}

    /// Nothing where the key is absent or the value is no value.
    std::optional<Stepped> read(std::string_view key) {
        const Json* value = reader_.find(key);
        if (value == nullptr) return std::nullopt;
        return read(*value, reader_.path_of(key));
    }

    std::optional<Stepped> read(const Json& value, const std::string& path) {
        if (value.is_object()) {
            ObjectReader inner(value, path, reader_.reading());
            Stepped stepped;
            stepped.base = inner.integer("base", true).value_or(0);
            stepped.stride = inner.integer("stride", true).value_or(0);
            inner.finish();
            return check(stepped, path);
        }
        if (value.is_string()) {
            for (const FieldValue& known : field_.values) {
                if (value == known.name) return Stepped{known.value, 0};
            }
        }
        const auto number = json_integer(value);
        if (number) return check({*number, 0}, path);
        if (value.is_string() && !field_.values.empty()) {
            std::vector<std::string_view> names;
            for (const FieldValue& known : field_.values) names.push_back(known.name);
            reader_.set_error(path, fmt::format("{} is no value of {}; known are {}, or a number",
                                                value.dump(), field_.name, fmt::join(names, ", ")));
        } else {
            reader_.set_error(path, number.error().message);
        }
        return std::nullopt;
    }

  private:
    std::optional<Stepped> check(Stepped value, const std::string& path) {
        if (value.base <= largest(field_.width)) return value;
        reader_.set_error(path, fmt::format("{:#x} does not fit the field {}, which has {} bytes", value.base,
                                            field_.name, field_.width));
        return std::nullopt;
    }

    ObjectReader& reader_;
    const IoctlField& field_;
};

FieldRule read_field_rule(const Json& value, const std::string& path, JsonReading& reading,
                          const IoctlEntry& entry) {
    ObjectReader reader(value, path, reading);
    FieldRule rule;
    rule.field = reader.string("field", true);
    if (reader.failed()) return rule;
    const auto field = std::find_if(entry.fields.begin(), entry.fields.end(),
                                    [&](const IoctlField& each) { return each.name == rule.field; });
    if (field == entry.fields.end()) {
        std::vector<std::string_view> names;
        for (const IoctlField& each : entry.fields) names.push_back(each.name);
        reader.set_error(reader.path_of("field"),
                         fmt::format("\"{}\" is no field of {}; its fields are {}", rule.field, entry.name,
                                     fmt::join(names, ", ")));
        return rule;
    }
    rule.offset = field->offset;
    rule.width = field->width;

    ValueReader values(reader, *field);
    const auto equals = values.read("equals");
    const auto minimum = values.read("min");
    const auto maximum = values.read("max");
    std::vector<ValueRange> listed;
    reader.each("in", [&](const Json& element, const std::string& where) {
        if (const auto each = values.read(element, where)) listed.push_back({*each, *each});
    });
    rule.mask = reader.integer("mask");
    const bool has_in = reader.find("in") != nullptr;
    reader.finish();
    if (reader.failed()) return rule;

    const bool has_range = minimum || maximum;
    if ((equals ? 1 : 0) + (has_in ? 1 : 0) + (has_range ? 1 : 0) > 1) {
        reader.set_error(path,
                         "says more than one of \"equals\", \"in\" and \"min\"/\"max\"; one rule, one test");
    } else if (has_in && listed.empty()) {
        reader.set_error(reader.path_of("in"), "is empty: no call would fit");
    } else if (rule.mask && *rule.mask > largest(rule.width)) {
        reader.set_error(reader.path_of("mask"),
                         fmt::format("{:#x} does not fit the field {}, which has {} bytes", *rule.mask,
                                     rule.field, rule.width));
    } else if (equals) {
        rule.ranges = {{*equals, *equals}};
    } else if (has_in) {
        rule.ranges = std::move(listed);
    } else if (has_range) {
        rule.ranges = {{minimum.value_or(Stepped{}), maximum.value_or(Stepped{largest(rule.width), 0})}};
        if (rule.ranges[0].first.base > rule.ranges[0].last.base)
            reader.set_error(path, fmt::format("\"min\" {:#x} is above \"max\" {:#x}",
                                               rule.ranges[0].first.base, rule.ranges[0].last.base));
    } else if (rule.mask) {
        // Alone it says which bits may be set.
        rule.mask = largest(rule.width) & ~*rule.mask;
        rule.ranges = {{Stepped{}, Stepped{}}};
    } else {
        reader.set_error(
            path, "says nothing of the field; use \"equals\", \"in\", \"min\" and \"max\", or \"mask\"");
    }
    return rule;
}

/// "0xae00": what an ioctl of a file that postern knows nothing about is called by.
std::optional<uint32_t> command_number(std::string_view text) {
    if (!text.starts_with("0x")) return std::nullopt;
    uint32_t number = 0;
    const auto [end, error] = std::from_chars(text.data() + 2, text.data() + text.size(), number, 16);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return number;
}

std::string value_in_words(const Stepped& value) {
    return value.stride == 0 ? fmt::format("{:#x}", value.base)
                             : fmt::format("{:#x} + slice × {:#x}", value.base, value.stride);
}

bool is_one_value(const ValueRange& range) {
    return range.first.base == range.last.base && range.first.stride == range.last.stride;
}

std::string in_words(const ValueRange& range) {
    if (is_one_value(range)) return value_in_words(range.first);
    return fmt::format("{} to {}", value_in_words(range.first), value_in_words(range.last));
}

}  // namespace

IoctlRule read_ioctl(const Json& value, const std::string& path, JsonReading& reading,
                     std::optional<IoctlFile> file) {
    IoctlRule rule;
    std::string name_path = path;
    const Json* args = nullptr;
    std::optional<ObjectReader> reader;
    if (value.is_string()) {
        rule.name = value.get<std::string>();
    } else {
        reader.emplace(value, path, reading);
        rule.name = reader->string("name", true);
        name_path = reader->path_of("name");
        args = reader->find("args");
        reader->finish();
    }
    if (reading.error) return rule;

    const IoctlEntry* entry = file ? find_ioctl(*file, rule.name) : find_ioctl(rule.name);
    if (entry != nullptr) {
        rule.number = entry->number;
    } else if (const auto number = command_number(rule.name); number && !file) {
        rule.number = *number;
    } else {
        std::vector<std::string_view> names;
        for (const IoctlEntry& known : known_ioctls()) {
            if (!file || known.file == *file) names.push_back(known.name);
        }
        reading.error =
            Error{fmt::format("{}: \"{}\" is no {} that postern knows; did you mean {}?{}", name_path,
                              rule.name, file ? "VFIO device ioctl" : "ioctl", nearest(rule.name, names),
                              file ? "" : " A number such as \"0xae00\" does as well"),
                  0};
        return rule;
    }
    if (args == nullptr) return rule;
    const std::string_view why = entry != nullptr ? why_no_rules(*entry) : "postern does not know its fields";
    if (args->is_array() && args->empty()) return rule;
    if (!why.empty()) {
        reader->set_error(reader->path_of("args"),
                          fmt::format("no rule on {} can be enforced: {}; leave \"args\" or the ioctl out",
                                      rule.name, why));
        return rule;
    }
    rule.block_size = entry->block_size;
    rule.size_at = entry->size_at;
    reader->each("args", [&](const Json& element, const std::string& where) {
        rule.args.push_back(read_field_rule(element, where, reading, *entry));
    });
    return rule;
}

namespace {

/// The smallest number not below `least` in which no bit outside of `mask` is set.
std::optional<uint64_t> smallest_within(uint64_t mask, uint64_t least) {
    const uint64_t outside = least & ~mask;
    if (outside == 0) return least;
    // Bits from the highest one outside downwards are given up for the lowest bit above that is still free.
    for (auto bit = static_cast<unsigned>(std::bit_width(outside)); bit < 64; ++bit) {
        const uint64_t one = 1ULL << bit;
        if ((mask & one) != 0 && (least & one) == 0) return (least & ~(one - 1)) | one;
    }
    return std::nullopt;
}

/// Whether value & mask can be in [first, last].
bool can_match(uint64_t mask, uint64_t first, uint64_t last) {
    const auto smallest = smallest_within(mask, first);
    return smallest && *smallest <= last;
}

/// Values of the last slice are the largest, if none of them wraps on the way there.
Status check_range(const ValueRange& range, const FieldRule& field, unsigned slices) {
    for (const Stepped& value : {range.first, range.last}) {
        const uint64_t room = largest(field.width) - value.base;
        if (value.stride != 0 && room / value.stride < slices - 1) {
            return fail(
                "base {:#x}, stride {:#x}: the value of slice {} does not fit the field {}, which has {} "
                "bytes",
                value.base, value.stride, room / value.stride + 1, field.field, field.width);
        }
    }
    for (unsigned slice = 0; slice < slices; ++slice) {
        if (range.first.at(slice) > range.last.at(slice)) {
            return fail("\"min\" {:#x} of slice {} is above its \"max\" {:#x}", range.first.at(slice), slice,
                        range.last.at(slice));
        }
        const uint64_t mask = field.mask.value_or(~0ULL);
        if (!can_match(mask, range.first.at(slice), range.last.at(slice))) {
            return fail(
                "no value & \"mask\" {:#x} is {} (slice {}), so that no call would ever fit; the mask has to "
                "have the bits of what it is compared with",
                mask, in_words(range), slice);
        }
    }
    return {};
}

/// Whether a value in which `bit` is set may pass. A range of values that reaches so far counts as one.
bool lets_through(const FieldRule& rule, uint64_t bit, unsigned slices) {
    if ((rule.mask.value_or(~0ULL) & bit) == 0) return true;
    for (const ValueRange& range : rule.ranges) {
        for (unsigned slice = 0; slice < slices; ++slice) {
            const uint64_t last = range.last.at(slice);
            const bool without = is_one_value(range) ? (last & bit) == 0 : last < bit;
            if (!without) return true;
        }
    }
    return false;
}

/// The one way to a block that seals do not close: iommufd pins a memfd's pages for the device without
/// looking at its seals (iopt_alloc_file_pages() in drivers/iommu/iommufd). Mapped by address
/// (VFIO_IOMMU_MAP_DMA, IOMMU_IOAS_MAP) they could only be read, as the mapping of a block is not writable;
/// pinned before sealing they keep the seal away.
bool makes_device_write_blocks(const IoctlRule& rule, unsigned slices) {
    constexpr uint32_t kIoasMapFile = uapi::iommufd_io(15);
    constexpr uint64_t kWriteable = 2;  // IOMMU_IOAS_MAP_WRITEABLE; IOMMU_IOAS_COPY cannot add it
    if (rule.number != kIoasMapFile) return false;
    return std::none_of(rule.args.begin(), rule.args.end(), [&](const FieldRule& each) {
        return each.field == "flags" && !lets_through(each, kWriteable, slices);
    });
}

}  // namespace

Status check_blocks_stay_sealed(const std::vector<IoctlList>& lists, unsigned slices) {
    const IoctlRule* ruled = nullptr;
    for (const IoctlList& list : lists) {
        for (const IoctlRule& each : *list.ioctls) {
            if (ruled == nullptr && !each.args.empty()) ruled = &each;
        }
    }
    if (ruled == nullptr) return {};
    for (const IoctlList& list : lists) {
        for (size_t i = 0; i < list.ioctls->size(); ++i) {
            const IoctlRule& each = (*list.ioctls)[i];
            if (!makes_device_write_blocks(each, slices)) continue;
            return fail(
                "{}.ioctls[{}]: {} maps memfds for the device to write to, sealed ones as well, so that the "
                "rules on {} could be deceived; add {{ \"field\": \"flags\", \"mask\": \"0x5\" }} to its "
                "\"args\", or leave it or all \"args\" out",
                list.path, i, each.name, ruled->name);
        }
    }
    return {};
}

Status check_ioctls(const std::vector<IoctlRule>& ioctls, unsigned slices) {
    size_t tests = 0;
    for (size_t i = 0; i < ioctls.size(); ++i) {
        for (size_t j = 0; j < ioctls[i].args.size(); ++j) {
            for (const ValueRange& range : ioctls[i].args[j].ranges) {
                auto fits = check_range(range, ioctls[i].args[j], slices);
                if (!fits) return propagate(std::move(fits), fmt::format("ioctls[{}].args[{}]", i, j));
                ++tests;
            }
        }
    }
    if (tests <= POSTERN_MAX_RULES) return {};
    return fail("ioctls: {} tests of arguments (each value of \"in\" is one); the guard holds {}", tests,
                POSTERN_MAX_RULES);
}

const IoctlEntry* find_ioctl(const IoctlRule& rule) {
    if (const IoctlEntry* named = find_ioctl(std::string_view(rule.name)); named != nullptr) return named;
    const IoctlEntry* found = nullptr;
    for (const IoctlEntry& entry : known_ioctls()) {
        if (entry.number == rule.number && (found == nullptr || !entry.danger.empty())) found = &entry;
    }
    return found;
}

GuardIoctl for_guard(const IoctlRule& rule, unsigned slice) {
    GuardIoctl made;
    made.number = rule.number;
    if (rule.args.empty()) return made;
    made.block_size = rule.block_size;
    made.size_at = rule.size_at.value_or(static_cast<uint16_t>(POSTERN_SIZE_FIXED));
    Alternative& alternative = made.alternatives.emplace_back();
    for (const FieldRule& field : rule.args) {
        FieldTest& test = alternative.emplace_back();
        test.offset = field.offset;
        test.width = field.width;
        test.mask = field.mask.value_or(~0ULL);
        for (const ValueRange& range : field.ranges)
            test.ranges.emplace_back(range.first.at(slice), range.last.at(slice));
    }
    return made;
}

Json for_manifest(const IoctlRule& rule, unsigned slice) {
    if (rule.args.empty()) return rule.name;
    Json args = Json::array();
    for (const FieldRule& field : rule.args) {
        Json each{{"field", field.field}, {"offset", field.offset}, {"width", field.width}};
        if (field.mask) each["mask"] = *field.mask;
        if (field.ranges.size() > 1) {
            each["in"] = Json::array();
            for (const ValueRange& range : field.ranges) each["in"].push_back(range.first.at(slice));
        } else if (is_one_value(field.ranges[0])) {
            each["equals"] = field.ranges[0].first.at(slice);
        } else {
            each["min"] = field.ranges[0].first.at(slice);
            each["max"] = field.ranges[0].last.at(slice);
        }
        args.push_back(std::move(each));
    }
    return {{"name", rule.name}, {"number", rule.number}, {"args", std::move(args)}};
}

std::string in_words(const IoctlRule& rule) {
    std::vector<std::string> words;
    for (const FieldRule& field : rule.args) {
        const std::string name =
            field.mask ? fmt::format("({} & {:#x})", field.field, *field.mask) : field.field;
        std::vector<std::string> values;
        for (const ValueRange& range : field.ranges) values.push_back(in_words(range));
        words.push_back(fmt::format("{} is {}", name, fmt::join(values, " or ")));
    }
    return fmt::format("{}", fmt::join(words, ", "));
}

}  // namespace postern
