// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <tl/expected.hpp>

#include "broker-core/result.h"
#include "launcher/sandbox.h"
#include "launcher/sandbox_spec.h"

namespace postern {

/// Where a pool's clients run: on slices of a device, or in sandboxes that are just numbered. Which one a
/// client gets is the source's choice.
class SliceSource {
  public:
    SliceSource() = default;
    SliceSource(const SliceSource&) = delete;
    SliceSource& operator=(const SliceSource&) = delete;
    virtual ~SliceSource() = default;

    struct Started {
        unsigned slice = 0;
        RunningClient client;
        int cgroup_fd = -1;  ///< borrowed until end(); -1: none of its own
    };
    struct Refused {
        LaunchError why;                ///< 125: the slice is at fault and no longer in service
        std::optional<unsigned> slice;  ///< nullopt: it came to none
    };
    /// Starts the client of `spec`, with POSTERN_SLICE in its environment, on a slice that is free. nullopt:
    /// none is at the moment; ask again when freed_fd() is readable or one of one's own has ended. After an
    /// error nothing is to be ended.
    [[nodiscard]] virtual tl::expected<std::optional<Started>, Refused> start(SandboxSpec spec) = 0;
    /// The client of `slice` is gone: cleans the slice, for it to be given again. Error: it is no longer in
    /// service.
    [[nodiscard]] virtual Status end(unsigned slice) = 0;

    /// Called when there is time, with what every client's spec will be but for its command, environment and
    /// time limit: does one piece of what the next start() would have to do, or of what end() has put off.
    /// Whether there may be more.
    [[nodiscard]] virtual bool get_ahead(const SandboxSpec& /*spec*/) { return false; }

    /// Slices in service, free or not: how many clients can run side by side. 0: none will ever start.
    [[nodiscard]] virtual unsigned in_service() const = 0;
    /// Readable when others may have freed a slice; borrowed, -1: nobody else has any.
    [[nodiscard]] virtual int freed_fd() const { return -1; }
    /// Resets the device, with all of its setup. No client may run.
    [[nodiscard]] virtual Status reset() = 0;
    /// All clients are gone, and no other will come. Returns the first error.
    [[nodiscard]] virtual Status close() = 0;
};

}  // namespace postern
