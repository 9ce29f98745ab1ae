// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/guard_edu.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "broker-core/vfio.h"

namespace postern::test {
namespace {

constexpr uint16_t kMemoryAndBusMaster = 6;

// docs/specs/edu in QEMU's sources.
constexpr size_t kDmaSource = 0x80;
constexpr size_t kDmaDestination = 0x88;
constexpr size_t kDmaCount = 0x90;
constexpr size_t kDmaCommand = 0x98;
constexpr uint64_t kStart = 1;
constexpr uint64_t kFromDevice = 2;
constexpr uint64_t kDeviceBuffer = 0x40000;
/// Where the device fetches from what it is to write. Its DMA mask is 28 bits.
constexpr uint64_t kStagingIova = 0x0800'0000;

}  // namespace

void EduTest::SetUp() {
    const char* bdf = std::getenv("LAB_EDU");
    ASSERT_NE(nullptr, bdf) << "set LAB_EDU to the address of an edu device that vfio-pci has";
    bdf_ = bdf;
    GuardTest::SetUp();
    if (HasFatalFailure()) return;
    guarded_.reset();
    owner_.reset();
    const auto link = std::filesystem::read_symlink("/sys/bus/pci/devices/" + bdf_ + "/iommu_group");
    auto container = vfio::open_container();
    ASSERT_TRUE(ok(container));
    auto group = vfio::open_group(std::atoi(link.filename().c_str()));
    ASSERT_TRUE(ok(group));
    ASSERT_TRUE(ok(vfio::attach_group(container->get(), group->get())));
    auto owner = vfio::get_device(group->get(), bdf_);
    ASSERT_TRUE(ok(owner));
    auto guarded = vfio::get_device(group->get(), bdf_);
    ASSERT_TRUE(ok(guarded));
    container_ = std::move(*container);
    group_ = std::move(*group);
    owner_ = std::move(*owner);
    guarded_ = std::move(*guarded);
    // Without memory space MMIO faults, without bus mastering there is no DMA.
    const auto command = vfio::read_command(owner_.get(), kConfig);
    ASSERT_TRUE(ok(command));
    ASSERT_TRUE(ok(
        vfio::write_command(owner_.get(), kConfig, static_cast<uint16_t>(*command | kMemoryAndBusMaster))));
    void* registers = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, owner_.get(), 0);
    ASSERT_NE(MAP_FAILED, registers);
    registers_ = static_cast<volatile char*>(registers);
}

void EduTest::TearDown() {
    if (registers_ != nullptr) ::munmap(const_cast<char*>(registers_), kPage);
    registers_ = nullptr;
    guarded_.reset();
    owner_.reset();
    group_.reset();
    container_.reset();
    GuardTest::TearDown();
}

void EduTest::transfer(uint64_t source, uint64_t destination, uint64_t size, uint64_t command) {
    const auto at = [this](size_t offset) {
        return reinterpret_cast<volatile uint64_t*>(registers_ + offset);
    };
    *at(kDmaSource) = source;
    *at(kDmaDestination) = destination;
    *at(kDmaCount) = size;
    *at(kDmaCommand) = kStart | command;
    EXPECT_TRUE(eventually([&] { return (*at(kDmaCommand) & kStart) == 0; }));
}

void EduTest::write_by_dma(uint64_t iova, const void* bytes, size_t size) {
    void* staging = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(MAP_FAILED, staging);
    std::memcpy(staging, bytes, size);
    ASSERT_TRUE(ok(vfio::map_dma(container_.get(), staging, kPage, kStagingIova, true, true)));
    transfer(kStagingIova, kDeviceBuffer, size, 0);
    transfer(kDeviceBuffer, iova, size, kFromDevice);
    EXPECT_TRUE(ok(vfio::unmap_dma(container_.get(), kStagingIova, kPage)));
    ::munmap(staging, kPage);
}

}  // namespace postern::test
