// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern::cost {

/// A PCI device owned through VFIO, of which any number of struct files can be had.
class VfioDevice {
  public:
    /// Binds it to vfio-pci if it is not.
    [[nodiscard]] static Result<VfioDevice> open(const std::string& bdf);

    /// Another struct file of it.
    [[nodiscard]] Result<UniqueFd> another_file() const;

    [[nodiscard]] int group() const { return group_.get(); }
    [[nodiscard]] int container() const { return container_.get(); }

  private:
    VfioDevice(std::string bdf, UniqueFd container, UniqueFd group)
        : bdf_(std::move(bdf)), container_(std::move(container)), group_(std::move(group)) {}

    std::string bdf_;
    UniqueFd container_;
    UniqueFd group_;
};

}  // namespace postern::cost
