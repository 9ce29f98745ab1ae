// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "broker-core/json_reader.h"
#include "broker-core/profile.h"
#include "broker-core/profile_reader.h"
#include "broker-core/result.h"
#include "libpostern/call.h"
#include "libpostern/libpostern.h"
#include "libpostern/objects.h"

namespace postern::library {
namespace {

Result<Profile> parse_profile(std::string_view text, const char* folder) {
    POSTERN_ASSIGN(const Json document, parse_json(text));
    if (document.is_object() && document.contains("include")) {
        return refuse(EINVAL, "\"include\" is for profiles in files; merge it, or load a file");
    }
    POSTERN_ASSIGN(Profile profile, read_profile(document, false));
    profile.name = "(text)";
    profile.folder = folder != nullptr ? folder : "/";
    POSTERN_TRY(check_profile(profile));
    return profile;
}

struct libpostern_profile* make_handle(Profile profile) {
    auto made = std::make_unique<struct libpostern_profile>();
    for (const std::string& line : weakenings(profile)) made->weakenings += line + "\n";
    made->profile = std::move(profile);
    return made.release();
}

}  // namespace
}  // namespace postern::library

using postern::Status;
using postern::library::call;
using postern::library::make_handle;
using postern::library::need;

extern "C" {

int libpostern_profile_load(struct libpostern_profile** profile, const char* name_or_file) {
    return call([&]() -> Status {
        POSTERN_TRY(need(profile, "profile"));
        POSTERN_TRY(need(name_or_file, "name_or_file"));
        postern::library::prepare_library();
        POSTERN_ASSIGN(auto loaded, postern::load_profile(name_or_file));
        *profile = make_handle(std::move(loaded.profile));
        return {};
    });
}

int libpostern_profile_parse(struct libpostern_profile** profile, const char* text, size_t length,
                             const char* folder) {
    return call([&]() -> Status {
        POSTERN_TRY(need(profile, "profile"));
        POSTERN_TRY(need(text, "text"));
        postern::library::prepare_library();
        auto parsed = postern::library::parse_profile({text, length}, folder);
        if (!parsed) return postern::propagate(std::move(parsed), "profile (text)");
        *profile = make_handle(std::move(*parsed));
        return {};
    });
}

unsigned libpostern_profile_slices(const struct libpostern_profile* profile) {
    return profile != nullptr ? profile->profile.slices : 0;
}

const char* libpostern_profile_weakenings(const struct libpostern_profile* profile) {
    return profile != nullptr ? profile->weakenings.c_str() : "";
}

void libpostern_profile_free(struct libpostern_profile* profile) {
    delete profile;
}

}  // extern "C"
