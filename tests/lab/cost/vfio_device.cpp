// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cost/vfio_device.h"

#include "broker-core/binding.h"
#include "broker-core/pci.h"
#include "broker-core/vfio.h"

namespace postern::cost {

Result<VfioDevice> VfioDevice::open(const std::string& bdf) {
    POSTERN_TRY(bind_device(bdf));
    POSTERN_ASSIGN(const PciDevice pci, read_pci_device(bdf));
    POSTERN_TRY(check_ownable(pci));
    POSTERN_ASSIGN(UniqueFd container, vfio::open_container());
    POSTERN_ASSIGN(UniqueFd group, vfio::open_group(pci.iommu_group.value_or(-1)));
    POSTERN_TRY(vfio::attach_group(container.get(), group.get()));
    return VfioDevice(bdf, std::move(container), std::move(group));
}

Result<UniqueFd> VfioDevice::another_file() const {
    return vfio::get_device(group_.get(), bdf_);
}

}  // namespace postern::cost
