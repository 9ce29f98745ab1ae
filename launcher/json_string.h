// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace postern {

/// `text` as a string of JSON, in quotes. A path may hold what is not UTF-8: each sequence that is not
/// becomes U+FFFD, so that it does not cost the whole message. As nlohmann/json writes it, whose writer needs
/// a compiled C++ library; a test compares the two.
[[nodiscard]] std::string json_string(std::string_view text);

}  // namespace postern
