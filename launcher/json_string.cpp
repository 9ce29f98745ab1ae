// SPDX-License-Identifier: Apache-2.0
#include "launcher/json_string.h"

#include <fmt/format.h>

#include "launcher/utf8.h"

namespace postern {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

void append_escaped(std::string& to, char c) {
    switch (c) {
        case '"':
            to += "\\\"";
            break;
        case '\\':
            to += "\\\\";
            break;
        case '\b':
            to += "\\b";
            break;
        case '\f':
            to += "\\f";
            break;
        case '\n':
            to += "\\n";
            break;
        case '\r':
            to += "\\r";
            break;
        case '\t':
            to += "\\t";
            break;
        default:
            if (static_cast<unsigned char>(c) < 0x20) {
                to += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
            } else {
                to += c;
            }
    }
}

}  // namespace

std::string json_string(std::string_view text) {
    std::string json = "\"";
    while (!text.empty()) {
        std::size_t bad = 0;
        const std::size_t length = utf8_sequence(text, bad);
        if (length == 1) {
            append_escaped(json, text.front());
        } else {
            json += length == 0 ? kReplacement : text.substr(0, length);
        }
        text.remove_prefix(length == 0 ? bad : length);
    }
    return json + "\"";
}

}  // namespace postern
