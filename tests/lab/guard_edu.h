// SPDX-License-Identifier: Apache-2.0
// A real VFIO device for the guard's tests: QEMU's edu, bound to vfio-pci, whose address is in LAB_EDU.
#pragma once

#include <linux/vfio.h>

#include <string>

#include "tests/lab/guard_fixture.h"

namespace postern::test {

/// Where the configuration space begins in a device's file.
inline constexpr uint64_t kConfig = static_cast<uint64_t>(VFIO_PCI_CONFIG_REGION_INDEX) << 40;

/// `owner` and `guarded` are two files of the device; the test registers `guarded` itself.
class EduTest : public GuardTest {
  protected:
    void SetUp() override;
    void TearDown() override;

    /// Brings `bytes` to `iova` by the device's own DMA engine; at most 64 of them.
    void write_by_dma(uint64_t iova, const void* bytes, size_t size);

    std::string bdf_;
    UniqueFd container_;
    UniqueFd group_;

  private:
    void transfer(uint64_t source, uint64_t destination, uint64_t size, uint64_t command);

    volatile char* registers_ = nullptr;  ///< page 0 of BAR 0, of the owner's file
};

}  // namespace postern::test
