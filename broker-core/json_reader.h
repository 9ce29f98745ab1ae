// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/result.h"

namespace postern {

using Json = nlohmann::json;

/// Parses a document; a syntax error names line and column, and a key that stands twice in one object is an
/// error (the JSON library would silently take the last).
[[nodiscard]] Result<Json> parse_json(std::string_view text);

/// The candidate nearest to `word` by edit distance, for "did you mean".
[[nodiscard]] std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);

/// What a whole document's reading has found: the first error wins, later reads do nothing.
struct JsonReading {
    std::optional<Error> error;
    /// Missing required keys are no error: the document is one layer of several that are merged later.
    bool partial = false;
};

/// Reads one JSON object key by key. Every error says the path of the key ("device.windows[0].offset").
/// Reads are sticky: after the first error they return their default, so that a parser is a straight list
/// of reads. The keys that were asked for are the known keys; finish() refuses all others.
class ObjectReader {
  public:
    ObjectReader(const Json& value, std::string path, JsonReading& reading);

    /// nullptr where the key is absent (an error if `required`) or the reading has already failed.
    const Json* find(std::string_view key, bool required = false);

    std::string string(std::string_view key, bool required = false, std::string fallback = {});
    bool boolean(std::string_view key, bool fallback);
    /// A JSON number or a string such as "4KiB".
    std::optional<uint64_t> integer(std::string_view key, bool required = false);
    uint64_t integer_in(std::string_view key, uint64_t minimum, uint64_t maximum, uint64_t fallback);
    std::vector<std::string> strings(std::string_view key);

    /// The index of the value in `choices`; `fallback` where the key is absent.
    size_t choice(std::string_view key, std::initializer_list<std::string_view> choices, size_t fallback);

    /// Calls `read` for each element of the array `key`.
    void each(std::string_view key, const std::function<void(const Json&, const std::string& path)>& read);
    /// Calls `read` with a reader of the object `key` if it is there, and finishes that reader.
    void object(std::string_view key, const std::function<void(ObjectReader&)>& read, bool required = false);

    /// Refuses every key that was not asked for, naming the nearest known one.
    void finish();

    void set_error(std::string_view where, std::string message);
    [[nodiscard]] bool failed() const { return reading_.error.has_value(); }
    [[nodiscard]] std::string path_of(std::string_view key) const;
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] const Json& value() const { return value_; }
    [[nodiscard]] JsonReading& reading() { return reading_; }

  private:
    const Json& value_;
    std::string path_;
    JsonReading& reading_;
    std::vector<std::string> known_;
};

/// "an object", "a string", … as error messages say it.
[[nodiscard]] std::string_view json_type(const Json& value);

/// A JSON number or string as an integer.
[[nodiscard]] Result<uint64_t> json_integer(const Json& value);

}  // namespace postern
