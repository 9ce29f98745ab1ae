// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cerrno>

#include "broker-core/file.h"
#include "oci-hook/cdi_spec.h"
#include "oci-hook/configured_slices.h"
#include "oci-hook/container_state.h"
#include "oci-hook/hook_commands.h"
#include "oci-hook/hook_report.h"
#include "oci-hook/slice_request.h"

namespace postern {
namespace {

Status write_all(std::string_view text) {
    while (!text.empty()) {
        const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
        const int error = errno;
        if (written < 0 && error == EINTR) continue;
        if (written <= 0) return fail_errno(error, "writing config.json to stdout");
        text.remove_prefix(static_cast<size_t>(written));
    }
    return {};
}

/// `status`: of what kind an error is.
Status edit(const HookPlace& place, HookStatus& status) {
    POSTERN_ASSIGN(const std::string config, read_to_end(STDIN_FILENO, kMaxContainerJson));
    const auto check = [&](const SliceRequest& request) -> Status {
        if (request.by != Asked::ByImagePerhaps) return {};
        status = HookStatus::NoSuchSlice;
        POSTERN_ASSIGN(const std::vector<NamedSlice> slices, configured_slices(place.config));
        POSTERN_ASSIGN(const NamedSlice slice, find_slice(slices, request.name));
        status = HookStatus::Denied;
        return check_who_asks(request, slice);
    };
    POSTERN_ASSIGN(const std::string edited, precreate(config, place, check));
    return write_all(edited);
}

}  // namespace

int run_precreate(const std::vector<std::string>& words) {
    auto options = read_hook_options(words, HookSubject::Nothing);
    if (!options) return report_hook_error({HookStatus::Usage, std::move(options.error())});
    HookPlace place = own_hook_place();
    place.broker = options->broker;
    place.config = options->config;
    HookStatus status = HookStatus::BadState;
    auto edited = edit(place, status);
    if (!edited) return report_hook_error({status, std::move(edited.error())});
    return 0;
}

}  // namespace postern
