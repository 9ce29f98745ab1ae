// SPDX-License-Identifier: Apache-2.0
#include "launcher/explain.h"

#include <algorithm>
#include <vector>

#include "broker-core/ioctl_table.h"
#include "broker-core/quantity.h"
#include "broker-core/window_choice.h"

namespace postern {
namespace {

struct Piece {
    Range range;  ///< whole pages where the window is reached by pages
    unsigned slice;
    const Window* window;
};

std::vector<Piece> pieces_of(const Profile& profile, uint32_t region) {
    std::vector<Piece> pieces;
    for (const Window& window : profile.device->windows) {
        if (window.region != region) continue;
        for (unsigned slice = 0; slice < profile.slices; ++slice) {
            const uint64_t begin = window.offset.at(slice);
            const Range exact{begin, begin + window.length};
            pieces.push_back({window.by_pages() ? exact.pages() : exact, slice, &window});
        }
    }
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece& a, const Piece& b) { return a.range.begin < b.range.begin; });
    return pieces;
}

/// A digit for slices 0 to 9, letters for those after, '#' beyond.
char mark(unsigned slice) {
    if (slice < 10) return static_cast<char>('0' + slice);
    return slice < 36 ? static_cast<char>('a' + slice - 10) : '#';
}

/// The bar: each cell stands for size / cells bytes; '.' is not granted, '*' is several slices' at once.
std::string draw(const std::vector<Piece>& pieces, Range shown, unsigned cells) {
    std::string bar(cells, '.');
    const auto cell_of = [&](uint64_t byte) {
        return static_cast<unsigned>(static_cast<long double>(byte - shown.begin) * cells /
                                     static_cast<long double>(shown.size()));
    };
    for (const Piece& piece : pieces) {
        const unsigned first = std::min(cell_of(piece.range.begin), cells - 1);
        const unsigned last = std::clamp(cell_of(piece.range.end - 1), first, cells - 1);
        for (unsigned cell = first; cell <= last; ++cell) {
            char& drawn = bar[cell];
            drawn = drawn == '.' || drawn == mark(piece.slice) ? mark(piece.slice) : '*';
        }
    }
    return bar;
}

std::string methods(const Window& window) {
    std::vector<std::string> ways;
    if (window.by_mmap) ways.emplace_back("mmap");
    if (window.by_dmabuf) ways.emplace_back("dma-buf");
    if (window.by_pread) ways.emplace_back(window.access.write ? "pread and pwrite" : "pread");
    return fmt::format("{}", fmt::join(ways, ", "));
}

std::string verbs(const Access& access) {
    if (access.read && access.write) return "read and write";
    return access.read ? "only read" : "only write";
}

std::string verbs(const Window& window) {
    return window.reads_although_write_only() ? "write (and on x86 read)" : verbs(window.access);
}

std::string stepped(const Stepped& value, unsigned slices) {
    if (value.stride == 0 || slices == 1) return fmt::format("{:#x}", value.base);
    return fmt::format("{:#x} + slice × {:#x}", value.base, value.stride);
}

/// The bar between its ends, and how to read it.
void add_drawing(const std::vector<Piece>& pieces, Range shown, unsigned columns, std::string& text) {
    // A page is a whole number of characters or a character a whole number of pages: no window shares one
    // with its neighbour only because of rounding.
    const uint64_t pages = std::max<uint64_t>(shown.pages().size() / kPageSize, 1);
    const uint64_t pages_per_cell = (pages + columns - 1) / columns;
    const uint64_t drawn_pages = (pages + pages_per_cell - 1) / pages_per_cell * pages_per_cell;
    const auto cells =
        static_cast<unsigned>(pages_per_cell > 1 ? drawn_pages / pages_per_cell : pages * (columns / pages));
    shown.end = shown.begin + drawn_pages * kPageSize;
    const std::string left = fmt::format("{:#x}", shown.begin);
    const std::string right = fmt::format("{:#x}", shown.end);
    const std::string gap(cells + 2 - std::min<size_t>(cells + 1, left.size() + right.size()), ' ');
    text += fmt::format("  [{}]\n  {}{}{}\n", draw(pieces, shown, cells), left, gap, right);
    text +=
        fmt::format("  a character is {}; a digit is the slice that has it, '.' nobody, '*' several slices\n",
                    pages_per_cell > 1 || cells == pages ? format_size(pages_per_cell * kPageSize)
                                                         : fmt::format("1/{} of a page", cells / pages));
}

void explain_regions(const Profile& profile, const BarSizes& bars, unsigned columns, std::string& text) {
    for (uint32_t region = 0; region < 9; ++region) {
        const std::vector<Piece> pieces = pieces_of(profile, region);
        if (pieces.empty()) continue;
        uint64_t end = 0;
        for (const Piece& piece : pieces) end = std::max(end, piece.range.end);
        const bool known = region < bars.size() && bars[region] != 0;
        const uint64_t size = known ? std::max(bars[region], end) : end;
        const unsigned cells = std::max(columns, 60U) - 4;
        text +=
            fmt::format("{}, {}\n", region_name(region),
                        known ? format_size(size)
                              : fmt::format("drawn up to its last window, {} (--device BDF draws all of it)",
                                            format_size(size)));
        add_drawing(pieces, {0, size}, cells, text);
        // A window narrower than a character would only show as a dot's width: once more, from nearer.
        const Range granted{page_floor(pieces.front().range.begin), page_ceil(end)};
        uint64_t narrowest = size;
        for (const Piece& piece : pieces) narrowest = std::min(narrowest, piece.range.size());
        if (narrowest < size / cells && granted.size() < size) {
            text += "  from nearer:\n";
            add_drawing(pieces, granted, cells, text);
        }
        for (const Piece& piece : pieces) {
            text +=
                fmt::format("    {:#08x} … {:#08x}  slice {}  {:<12} {}\n", piece.range.begin,
                            piece.range.end, piece.slice, piece.window->name, piece.window->access.text());
        }
        text += '\n';
    }
}

std::string explain_ioctls(const std::vector<IoctlRule>& ioctls) {
    std::string text;
    for (const IoctlRule& rule : ioctls) {
        const IoctlEntry* entry = find_ioctl(rule);
        const std::string rules = in_words(rule);
        text += fmt::format("  - {} ({}){}{}\n", entry != nullptr ? entry->words : "call", rule.name,
                            rules.empty() ? "" : ", only where ", rules);
    }
    return text;
}

std::string explain_forward(const char* what, Forward forward) {
    constexpr const char* kTo[] = {"only inside of its own sandbox", "to nobody",
                                   "to anyone, with its limits"};
    return fmt::format("  - pass the {} on {}\n", what, kTo[static_cast<size_t>(forward)]);
}

}  // namespace

std::string explain_file(const FileProfile& file, unsigned slices) {
    std::string text = fmt::format("With the file \"{}\" ({}) the client may\n", file.name,
                                   file.path.empty() ? "fd " + file.fd : file.path);
    for (const Window& window : file.windows) {
        text += fmt::format("  - {} {} at {} (\"{}\"), by {}\n", verbs(window), format_size(window.length),
                            stepped(window.offset, slices), window.name, methods(window));
    }
    return text + explain_ioctls(file.ioctls) + explain_forward("file's fd", file.forward);
}

std::string explain_profile(const Profile& profile, const BarSizes& bars, unsigned columns) {
    std::string text =
        fmt::format("{}{}{}\n\n", profile.name, profile.description.empty() ? "" : ": ", profile.description);
    if (profile.device) {
        const DeviceProfile& device = *profile.device;
        explain_regions(profile, bars, columns, text);
        text += profile.slices == 1 ? "The client may\n"
                                    : fmt::format("A client of one of the {} slices may\n", profile.slices);
        for (const Window& window : device.windows) {
            text += fmt::format("  - {} {} of {} at {} (\"{}\"), by {}\n", verbs(window),
                                format_size(window.length), region_name(window.region),
                                stepped(window.offset, profile.slices), window.name, methods(window));
        }
        for (const DmaMemory& dma : device.dma) {
            text += fmt::format("  - use {} of memory (\"{}\") that the device may {} at IOVA {}\n",
                                format_size(dma.size), dma.name, verbs(dma.access),
                                stepped(dma.iova, profile.slices));
        }
        if (device.dma_map) {
            text += fmt::format("  - let the device {} memory of its own, mapped at IOVA {}, {} at most\n",
                                verbs(device.dma_map->access), stepped(device.dma_map->iova, profile.slices),
                                format_size(device.dma_map->size));
        }
        for (const PeerMapping& peer : device.peers) {
            text += fmt::format("  - have device {} {} window \"{}\" by DMA, at its IOVA {}\n", peer.device,
                                verbs(peer.access), peer.window, stepped(peer.iova, profile.slices));
        }
        for (const Irq& irq : device.irqs) {
            text += fmt::format("  - wait for {} vector {} on an eventfd (\"{}\")\n",
                                irq_index_name(irq.index), stepped(irq.vector, profile.slices), irq.name);
        }
        const bool dmabufs_do = dmabufs_may_do(device);
        text += explain_ioctls(device.ioctls) +
                explain_forward(dmabufs_do ? "device fd, or dma-bufs in its place," : "device fd",
                                device.forward);
        if (dmabufs_do)
            text +=
                "Where the kernel can map dma-bufs of BARs, it gets those of its windows and no device fd.\n";
        text += "Everything else on the device fd is refused by the kernel.\n\n";
        const auto programs = [&](const char* when, const std::vector<ProgramLine>& lines) {
            for (const ProgramLine& line : lines)
                text += fmt::format("{}: {} runs with the whole device.\n", when, fmt::join(line, " "));
        };
        programs("Before the first client", device.setup.device);
        programs("Before each client", device.setup.slice);
        programs("After each client", device.teardown.slice);
        programs("After the last client", device.teardown.device);
    }
    for (const FileProfile& file : profile.files) text += explain_file(file, profile.slices);
    if (!profile.files.empty()) text += "Everything else on these fds is refused by the kernel.\n\n";
    const std::vector<std::string> weak = weakenings(profile);
    if (weak.empty()) {
        text += "Nothing in it weakens the default sandbox.\n";
    } else {
        text += "It weakens the default sandbox:\n";
        for (const std::string& each : weak) text += fmt::format("  - {}\n", each);
    }
    return text;
}

}  // namespace postern
