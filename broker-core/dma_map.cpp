// SPDX-License-Identifier: Apache-2.0
#include "broker-core/dma_map.h"

#include <cstddef>

#include "broker-core/iommufd_uapi.h"

namespace postern {
namespace {

using namespace uapi;

FieldTest equals(uint16_t offset, uint64_t value) {
    return {.offset = offset, .width = 4, .ranges = {{value, value}}};
}

/// Of a range that begins at one field and has its length in another.
FieldTest inside(uint16_t iova, uint16_t length, const PlannedDmaMap& part) {
    return {
        .offset = iova, .width = 8, .ranges = {{part.iova, part.iova + part.size - 1}}, .length_at = length};
}

/// Without FIXED_IOVA the kernel would choose the address, in another client's part perhaps.
FieldTest how(uint16_t flags, const Access& access) {
    const uint32_t free = (access.read ? kIoasMapReadable : 0U) | (access.write ? kIoasMapWriteable : 0U);
    return {.offset = flags,
            .width = 4,
            .mask = ~static_cast<uint64_t>(free),
            .ranges = {{kIoasMapFixedIova, kIoasMapFixedIova}}};
}

/// The structs differ, and name their fields alike.
template <typename Map>
Alternative mapping(const PlannedDmaMap& part, uint32_t ioas, const Access& access) {
    return {equals(offsetof(Map, size), sizeof(Map)), how(offsetof(Map, flags), access),
            equals(offsetof(Map, ioas_id), ioas), inside(offsetof(Map, iova), offsetof(Map, length), part)};
}

GuardIoctl ruled(uint32_t number, uint16_t block_size, Alternative rule) {
    return {.number = number, .alternatives = {std::move(rule)}, .block_size = block_size, .size_at = 0};
}

}  // namespace

// Not IOMMU_IOAS_IOVA_RANGES: the kernel writes its answer into the caller's memory while it holds the lock
// of the address space, so that a page of the caller's which never comes (a file of its own FUSE,
// userfaultfd) would stop all others of that address space, the owner included, where no signal ends it.
std::vector<GuardIoctl> dma_map_ioctls(const PlannedDmaMap& part, uint32_t ioas) {
    using Unmap = IommuIoasUnmap;
    // Of a file the device only reads: the kernel looks neither at a memfd's seals nor at how a dma-buf was
    // opened, and the device would write into the client's sealed blocks.
    const Access of_file{.read = part.access.read, .write = false};
    return {
        ruled(kIommuIoasMap, sizeof(IommuIoasMap), mapping<IommuIoasMap>(part, ioas, part.access)),
        ruled(kIommuIoasMapFile, sizeof(IommuIoasMapFile), mapping<IommuIoasMapFile>(part, ioas, of_file)),
        ruled(kIommuIoasUnmap, sizeof(Unmap),
              {equals(offsetof(Unmap, size), sizeof(Unmap)), equals(offsetof(Unmap, ioas_id), ioas),
               inside(offsetof(Unmap, iova), offsetof(Unmap, length), part)})};
}

}  // namespace postern
