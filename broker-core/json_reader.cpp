// SPDX-License-Identifier: Apache-2.0
#include "broker-core/json_reader.h"

#include <algorithm>
#include <numeric>

#include "broker-core/quantity.h"

namespace postern {
namespace {

/// Deep nesting is refused before the library's recursive destructor and our merge can run out of stack.
constexpr int kMaxDepth = 32;

size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 1; i <= a.size(); ++i) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            const size_t above = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0U : 1U)});
            diagonal = above;
        }
    }
    return row.back();
}

/// "line 3, column 9" of a byte position.
std::string position(std::string_view text, size_t byte) {
    const std::string_view before = text.substr(0, std::min(byte > 0 ? byte - 1 : 0, text.size()));
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t newline = before.rfind('\n');
    const size_t column = newline == std::string_view::npos ? before.size() + 1 : before.size() - newline;
    return fmt::format("line {}, column {}", line, column);
}

}  // namespace

Result<Json> parse_json(std::string_view text) {
    std::vector<std::set<std::string>> keys;  // of the objects that are open
    std::string duplicate;
    bool too_deep = false;
    const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
        if (depth > kMaxDepth) too_deep = true;
        if (event == Json::parse_event_t::object_start) keys.emplace_back();
        if (event == Json::parse_event_t::object_end) keys.pop_back();
        if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second &&
            duplicate.empty()) {
            duplicate = parsed.get<std::string>();
        }
        return !too_deep;
    };
    try {
        Json document = Json::parse(text.begin(), text.end(), watch);
        if (too_deep) return fail("the JSON is nested more than {} levels deep", kMaxDepth);
        if (!duplicate.empty()) return fail("the key \"{}\" stands twice in one object", duplicate);
        return document;
    } catch (const Json::parse_error& error) {
        // The library's text is "[json.exception.parse_error.101] parse error at line 1, column 2: syntax …".
        std::string_view what = error.what();
        if (const size_t detail = what.find(": "); detail != std::string_view::npos) {
            what.remove_prefix(detail + 2);
        }
        return fail("JSON syntax error at {}: {}", position(text, error.byte), what);
    } catch (const Json::exception& error) {
        return fail("not a JSON document: {}", error.what());
    }
}

std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates) {
    std::string_view best;
    size_t best_distance = SIZE_MAX;
    for (const std::string_view candidate : candidates) {
        const size_t distance = edit_distance(word, candidate);
        if (distance < best_distance) {
            best_distance = distance;
            best = candidate;
        }
    }
    return best;
}

std::string_view json_type(const Json& value) {
    switch (value.type()) {
        case Json::value_t::null:
            return "null";
        case Json::value_t::object:
            return "an object";
        case Json::value_t::array:
            return "an array";
        case Json::value_t::string:
            return "a string";
        case Json::value_t::boolean:
            return "a boolean";
        case Json::value_t::number_integer:
            return "a negative number";
        case Json::value_t::number_unsigned:
            return "an integer";
        case Json::value_t::number_float:
            return "a fraction";
        case Json::value_t::binary:
        case Json::value_t::discarded:
            break;
    }
    return "something else";
}

Result<uint64_t> json_integer(const Json& value) {
    // Parsed numbers are unsigned; those that our own code wrote may be signed and positive.
    if (value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0))
        return value.get<uint64_t>();
    if (value.is_string()) return parse_quantity(value.get_ref<const std::string&>());
    return fail("must be an integer or a string such as \"0x1000\" or \"4KiB\", and is {}", json_type(value));
}

ObjectReader::ObjectReader(const Json& value, std::string path, JsonReading& reading)
    : value_(value), path_(std::move(path)), reading_(reading) {
    if (!value_.is_object()) {
        set_error(path_, fmt::format("must be an object, and is {}", json_type(value_)));
    }
}

std::string ObjectReader::path_of(std::string_view key) const {
    return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

void ObjectReader::set_error(std::string_view where, std::string message) {
    if (reading_.error) return;
    reading_.error = Error{where.empty() ? std::move(message) : fmt::format("{}: {}", where, message), 0};
}

const Json* ObjectReader::find(std::string_view key, bool required) {
    known_.emplace_back(key);
    if (failed()) return nullptr;
    const auto found = value_.find(key);
    if (found != value_.end()) return &*found;
    if (required && !reading_.partial) set_error(path_, fmt::format("the key \"{}\" is missing", key));
    return nullptr;
}

std::string ObjectReader::string(std::string_view key, bool required, std::string fallback) {
    const Json* value = find(key, required);
    if (value == nullptr) return fallback;
    if (!value->is_string()) {
        set_error(path_of(key), fmt::format("must be a string, and is {}", json_type(*value)));
        return fallback;
    }
    auto text = value->get<std::string>();
    // Names and paths end up as C strings: a NUL in one would make two texts of it.
    if (text.find('\0') != std::string::npos) set_error(path_of(key), "must not hold a NUL character");
    return text;
}

bool ObjectReader::boolean(std::string_view key, bool fallback) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) {
        set_error(path_of(key), fmt::format("must be true or false, and is {}", json_type(*value)));
        return fallback;
    }
    return value->get<bool>();
}

std::optional<uint64_t> ObjectReader::integer(std::string_view key, bool required) {
    const Json* value = find(key, required);
    if (value == nullptr) return std::nullopt;
    const auto number = json_integer(*value);
    if (!number) {
        set_error(path_of(key), number.error().message);
        return std::nullopt;
    }
    return *number;
}

uint64_t ObjectReader::integer_in(std::string_view key, uint64_t minimum, uint64_t maximum,
                                  uint64_t fallback) {
    const auto number = integer(key);
    if (!number) return fallback;
    if (*number < minimum || *number > maximum) {
        set_error(path_of(key), fmt::format("{} is out of range; use {} to {}", *number, minimum, maximum));
        return fallback;
    }
    return *number;
}

std::vector<std::string> ObjectReader::strings(std::string_view key) {
    std::vector<std::string> result;
    each(key, [&](const Json& element, const std::string& where) {
        if (!element.is_string()) {
            set_error(where, fmt::format("must be a string, and is {}", json_type(element)));
        } else if (element.get_ref<const std::string&>().find('\0') != std::string::npos) {
            set_error(where, "must not hold a NUL character");
        } else {
            result.push_back(element.get<std::string>());
        }
    });
    return result;
}

size_t ObjectReader::choice(std::string_view key, std::initializer_list<std::string_view> choices,
                            size_t fallback) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (value->is_string()) {
        const auto found = std::find(choices.begin(), choices.end(), value->get_ref<const std::string&>());
        if (found != choices.end()) return static_cast<size_t>(found - choices.begin());
    }
    set_error(path_of(key), fmt::format("{} is not one of \"{}\"",
                                        value->is_string() ? value->dump() : std::string(json_type(*value)),
                                        fmt::join(choices, "\", \"")));
    return fallback;
}

void ObjectReader::each(std::string_view key,
                        const std::function<void(const Json&, const std::string& path)>& read) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_array()) {
        set_error(path_of(key), fmt::format("must be an array, and is {}", json_type(*value)));
        return;
    }
    for (size_t i = 0; i < value->size() && !failed(); ++i) {
        read((*value)[i], fmt::format("{}[{}]", path_of(key), i));
    }
}

void ObjectReader::object(std::string_view key, const std::function<void(ObjectReader&)>& read,
                          bool required) {
    const Json* value = find(key, required);
    if (value == nullptr) return;
    ObjectReader reader(*value, path_of(key), reading_);
    if (failed()) return;
    read(reader);
    reader.finish();
}

void ObjectReader::finish() {
    if (failed()) return;
    const std::vector<std::string_view> candidates(known_.begin(), known_.end());
    for (const auto& [key, unused] : value_.items()) {
        if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
        set_error(path_of(key), fmt::format("unknown key; did you mean \"{}\"?", nearest(key, candidates)));
        return;
    }
}

}  // namespace postern
