// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/broker_client.h"
#include "broker-core/result.h"
#include "oci-hook/slice_name.h"

namespace postern {

/// A grant of `slice` for the container that this process makes, from the broker at the socket `broker`,
/// which must be served. A slice whose last grant is ending is waited for, for some seconds, fewer where
/// open files hold it up. Error: one that is in use is at once, and names who has it.
[[nodiscard]] tl::expected<BrokeredGrant, BrokerDenial> take_slice(const std::string& broker,
                                                                   const NamedSlice& slice);

/// What `grants`, a list of the broker's operation of that name, has of `slice`. Pure.
struct SliceUse {
    bool ending = false;   ///< some of it
    bool held_up = false;  ///< some of it: ended, but for files that somebody has open
    std::string holders;   ///< in words; empty: nobody whom this user may see
};
[[nodiscard]] SliceUse use_of(const NamedSlice& slice, const Json& grants);

}  // namespace postern
