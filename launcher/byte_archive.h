// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace postern {

/// Appends values to a string, byte for byte. What it writes is for this build alone: no layout is promised.
class ByteWriter {
  public:
    [[nodiscard]] std::string take() { return std::move(bytes_); }

    template <typename T>
    void one(const T& value) requires std::is_trivially_copyable_v<T> {
        bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    void one(std::string_view text) {
        one(text.size());
        bytes_.append(text);
    }
    void one(const std::string& text) { one(std::string_view(text)); }
    template <typename T>
    void one(const std::optional<T>& value) requires(!std::is_trivially_copyable_v<std::optional<T>>) {
        one(value.has_value());
        if (value) one(*value);
    }
    template <typename A, typename B>
    void one(const std::pair<A, B>& pair) requires(!std::is_trivially_copyable_v<std::pair<A, B>>) {
        one(pair.first);
        one(pair.second);
    }
    template <typename T>
    void one(const std::vector<T>& list) {
        one(list.size());
        for (const T& each : list) one(each);
    }
    template <typename K, typename V>
    void one(const std::map<K, V>& map) {
        one(map.size());
        for (const auto& each : map) one(each);
    }

  private:
    std::string bytes_;
};

/// The other way round. Sticky: once bytes are missing, good() is false and all further values are empty.
class ByteReader {
  public:
    explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}

    [[nodiscard]] bool good() const { return good_; }
    /// Everything was read, and nothing was missing.
    [[nodiscard]] bool finished() const { return good_ && bytes_.empty(); }

    template <typename T>
    void one(T& value) requires std::is_trivially_copyable_v<T> {
        if (const std::string_view raw = cut(sizeof value); !raw.empty())
            std::memcpy(&value, raw.data(), sizeof value);
    }
    /// A part of the bytes: they must outlive it.
    void one(std::string_view& text) { text = cut(size(1)); }
    void one(std::string& text) { text = std::string(cut(size(1))); }
    template <typename T>
    void one(std::optional<T>& value) requires(!std::is_trivially_copyable_v<std::optional<T>>) {
        bool has = false;
        one(has);
        value.reset();
        if (has) one(value.emplace());
    }
    template <typename A, typename B>
    void one(std::pair<A, B>& pair) requires(!std::is_trivially_copyable_v<std::pair<A, B>>) {
        one(pair.first);
        one(pair.second);
    }
    template <typename T>
    void one(std::vector<T>& list) requires std::is_trivially_copyable_v<T> {
        list.resize(size(sizeof(T)));
        if (const std::string_view raw = cut(list.size() * sizeof(T)); !raw.empty())
            std::memcpy(list.data(), raw.data(), raw.size());
    }
    template <typename T>
    void one(std::vector<T>& list) requires(!std::is_trivially_copyable_v<T>) {
        const std::size_t count = size(1);
        list.clear();
        for (std::size_t i = 0; i < count && good_; ++i) one(list.emplace_back());
    }
    template <typename K, typename V>
    void one(std::map<K, V>& map) {
        const std::size_t count = size(1);
        map.clear();
        for (std::size_t i = 0; i < count && good_; ++i) {
            std::pair<K, V> entry;
            one(entry);
            map.insert(std::move(entry));
        }
    }

  private:
    /// A number of things of at least `least` bytes each, which there must be bytes for.
    std::size_t size(std::size_t least) {
        std::size_t count = 0;
        one(count);
        if (count > bytes_.size() / least) good_ = false;
        return good_ ? count : 0;
    }
    std::string_view cut(std::size_t count) {
        if (!good_ || count > bytes_.size()) {
            good_ = false;
            return {};
        }
        const std::string_view head = bytes_.substr(0, count);
        bytes_.remove_prefix(count);
        return head;
    }

    std::string_view bytes_;
    bool good_ = true;
};

}  // namespace postern
