// SPDX-License-Identifier: Apache-2.0
#include "broker-core/device_info.h"

#include <linux/pci_regs.h>

namespace postern {
namespace {

/// Little-endian read; beyond the end reads as zero, as an absent capability would.
uint32_t read_le(std::string_view bytes, size_t offset, size_t width) {
    uint32_t value = 0;
    for (size_t i = 0; i < width && offset + i < bytes.size(); ++i) {
        value |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[offset + i])) << (8 * i);
    }
    return value;
}

}  // namespace

ConfigFacts parse_config_space(std::string_view config) {
    ConfigFacts facts;
    facts.intx = read_le(config, PCI_INTERRUPT_PIN, 1) != 0;
    if ((read_le(config, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST) == 0) return facts;
    size_t at = read_le(config, PCI_CAPABILITY_LIST, 1) & ~3U;
    // 48 capabilities of 4 bytes fill the space: more is a loop.
    for (int left = 48; left > 0 && at >= PCI_STD_HEADER_SIZEOF; --left) {
        switch (read_le(config, at, 1)) {
            case PCI_CAP_ID_MSI: {
                const uint32_t flags = read_le(config, at + PCI_MSI_FLAGS, 2);
                facts.msi_vectors = 1U << ((flags & PCI_MSI_FLAGS_QMASK) >> 1);
                break;
            }
            case PCI_CAP_ID_MSIX: {
                const uint32_t flags = read_le(config, at + PCI_MSIX_FLAGS, 2);
                const uint32_t table = read_le(config, at + PCI_MSIX_TABLE, 4);
                const uint32_t pba = read_le(config, at + PCI_MSIX_PBA, 4);
                facts.msix_vectors = (flags & PCI_MSIX_FLAGS_QSIZE) + 1;
                MsixLocation location;
                location.table_bar = table & PCI_MSIX_TABLE_BIR;
                location.table.begin = table & PCI_MSIX_TABLE_OFFSET;
                location.table.end =
                    location.table.begin + uint64_t{facts.msix_vectors} * PCI_MSIX_ENTRY_SIZE;
                location.pba_bar = pba & PCI_MSIX_PBA_BIR;
                location.pba.begin = pba & PCI_MSIX_PBA_OFFSET;
                location.pba.end = location.pba.begin + (uint64_t{facts.msix_vectors} + 63) / 64 * 8;
                facts.msix = location;
                break;
            }
            case PCI_CAP_ID_EXP:
                facts.function_level_reset =
                    (read_le(config, at + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR) != 0;
                break;
            default:
                break;
        }
        at = read_le(config, at + 1, 1) & ~3U;
    }
    return facts;
}

}  // namespace postern
