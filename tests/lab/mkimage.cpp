// SPDX-License-Identifier: Apache-2.0
//
// mkimage FILE SIZE_MIB: a disk image whose every sector says where it is.
//
// Word i of the 64 little-endian 64-bit words in sector s is splitmix64(s * 64 + i), so a reader can verify
// any block it gets without a second copy of the image, and a block from the wrong place never passes.

#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <unistd.h>

namespace {

constexpr std::uint64_t kWordsPerMiB = (1U << 20) / sizeof(std::uint64_t);

constexpr std::uint64_t splitmix64(std::uint64_t x) {
    std::uint64_t z = x + 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
}

constexpr std::uint64_t to_little_endian(std::uint64_t word) {
    if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
    return word;
}

// The number of sector s, word i is s * 64 + i: simply the index of the word in the image.
bool write_image(std::FILE* file, std::uint64_t size_mib) {
    std::vector<std::uint64_t> block(kWordsPerMiB);
    std::uint64_t word = 0;
    for (std::uint64_t mib = 0; mib < size_mib; ++mib) {
        for (auto& out : block) out = to_little_endian(splitmix64(word++));
        if (std::fwrite(block.data(), sizeof block[0], block.size(), file) != block.size()) return false;
    }
    return std::fflush(file) == 0;
}

struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
};

}  // namespace

int main(int argc, char** argv) {
    char* end = nullptr;
    const std::uint64_t size_mib = argc == 3 ? std::strtoull(argv[2], &end, 10) : 0;
    if (size_mib == 0 || size_mib > (1U << 20) || *end != '\0') {
        std::fprintf(stderr, "usage: mkimage FILE SIZE_MIB (1 to 1048576)\n");
        return 2;
    }
    // A finished image appears in one rename: several labs may start at once and share it.
    const std::string path = argv[1];
    const std::string unfinished = path + "." + std::to_string(getpid());
    std::unique_ptr<std::FILE, CloseFile> file(std::fopen(unfinished.c_str(), "wbx"));
    const bool written = file && write_image(file.get(), size_mib);
    if (!written || std::rename(unfinished.c_str(), path.c_str()) != 0) {
        const int error = errno;
        std::fprintf(stderr, "mkimage: %s: %s\n", path.c_str(), std::strerror(error));
        std::remove(unfinished.c_str());
        return 1;
    }
    return 0;
}
