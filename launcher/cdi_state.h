// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "broker-core/requirements.h"
#include "broker-core/result.h"
#include "oci-hook/cdi_spec.h"

namespace postern {

/// Where podman looks for specifications of CDI devices; the latter win.
inline constexpr const char* kCdiFolders[] = {"/etc/cdi", "/run/cdi"};
/// What packaging/systemd keeps up to date.
inline constexpr const char* kCdiFile = "/etc/cdi/postern.json";
/// Bytes; a longer one is not read.
inline constexpr size_t kMaxCdiFile = 16 << 20;

/// A file of those folders that is postern's: by its kind, or by its name where it cannot be read.
struct CdiFile {
    std::string path;
    Result<Json> spec;
};
[[nodiscard]] std::vector<CdiFile> find_cdi_files(std::span<const char* const> folders);

/// The place whose hooks those files name, if there is one: that of this postern, with their broker and
/// configuration. Pure.
[[nodiscard]] HookPlace cdi_place(const std::vector<CdiFile>& files, HookPlace own);

/// What should be there: the specification of this postern and the present configuration. Null: no device is
/// configured.
[[nodiscard]] Result<Json> expected_cdi_spec(const HookPlace& place);

/// In what `found` differs from `expected`, in words; empty where it does not. Pure.
[[nodiscard]] std::string cdi_difference(const Json& expected, const Json& found);

/// The line of `postern check`: whether containers find the slices that are configured. `expected` is of
/// `place`; `hook_is_there`: the program that the specification names. Pure.
[[nodiscard]] Requirement check_cdi(const std::vector<CdiFile>& files, const Result<Json>& expected,
                                    bool hook_is_there, const HookPlace& place);

}  // namespace postern
