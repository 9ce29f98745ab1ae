// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// While it is alive this thread is in another network namespace, and what it clones is born there. Why not
/// joined by the child: that has no rights any more outside of its own user namespace.
class BorrowedNetwork {
  public:
    BorrowedNetwork() = default;
    BorrowedNetwork(const BorrowedNetwork&) = delete;
    BorrowedNetwork& operator=(const BorrowedNetwork&) = delete;
    ~BorrowedNetwork();

    /// `path`: a file of nsfs; empty: the thread stays where it is. Once.
    [[nodiscard]] Status join(const std::string& path);

  private:
    UniqueFd own_;
};

}  // namespace postern
