// SPDX-License-Identifier: Apache-2.0
#include "launcher/launch_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "broker-core/file.h"
#include "broker-core/unique_fd.h"
#include "launcher/byte_archive.h"
#include "launcher/launch_key.h"

namespace postern {
namespace {

constexpr std::uint64_t kMagic = 0x3168636e75616c70;  // "plaunch1"
/// What a launch file has where a kept launch has its key.
constexpr std::string_view kKind = "profile";

/// Multiply and fold, eight bytes at a time. It finds files that were damaged, not files that were forged:
/// against those there are owner and mode.
std::uint64_t hash_of(std::string_view bytes) {
    std::uint64_t hash = kMagic ^ bytes.size();
    const auto mix = [&hash](std::uint64_t word) {
        const auto product = static_cast<unsigned __int128>(hash ^ word) * 0x9e3779b97f4a7c15U;
        hash = static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
    };
    for (; bytes.size() >= 8; bytes.remove_prefix(8)) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data(), 8);
        mix(word);
    }
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data(), bytes.size());
    mix(word);
    return hash;
}

Failure damaged(const std::string& path) {
    return fail("{}: is damaged, or no file of `postern profile compile`; compile the profile again", path);
}

}  // namespace

std::string sealed(std::string_view body) {
    const std::uint64_t head[] = {kMagic, hash_of(body)};
    std::string bytes(reinterpret_cast<const char*>(head), sizeof head);
    bytes.append(body);
    return bytes;
}

std::optional<std::string_view> open_sealed(std::string_view bytes) {
    ByteReader reader(bytes);
    std::uint64_t magic = 0;
    std::uint64_t hash = 0;
    reader.one(magic);
    reader.one(hash);
    if (!reader.good() || magic != kMagic) return std::nullopt;
    bytes.remove_prefix(sizeof magic + sizeof hash);
    if (hash != hash_of(bytes)) return std::nullopt;
    return bytes;
}

std::string digits_of(std::string_view bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string name;
    for (std::uint64_t hash = hash_of(bytes); name.size() < 16; hash >>= 4) name += kDigits[hash & 15];
    return name;
}

bool read_whole(int file, std::size_t size, std::string& text) {
    text.resize(size);
    std::size_t done = 0;
    while (done < size) {
        const ssize_t got = ::read(file, text.data() + done, size - done);
        if (got <= 0) return false;
        done += static_cast<std::size_t>(got);
    }
    char more = 0;
    return ::read(file, &more, 1) == 0;
}

bool is_launch_file(std::string_view name) {
    return name.ends_with(".launch");
}

Status write_launch_file(const std::string& path, const CompiledLaunch& launch) {
    const auto build = build_identity();
    if (!build)
        return fail(
            "{}: this postern does not lie where an installed one does, so that no launch can be "
            "kept for it",
            path);
    ByteWriter writer;
    writer.one(kKind);
    writer.one(*build);
    writer.one(encode_launch(launch));
    return replace_file(path, sealed(writer.take()));
}

Result<CompiledLaunch> read_launch_file(const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    struct stat status = {};
    if (!file || ::fstat(file.get(), &status) != 0) {
        const int errnum = errno;
        return fail_errno(errnum, "cannot read {}", path);
    }
    if (!S_ISREG(status.st_mode)) return fail("{}: is not a file", path);
    if ((status.st_uid != ::geteuid() && status.st_uid != 0) || (status.st_mode & 022) != 0)
        return fail(
            "{}: owner {} and mode {:o} let others decide what runs; it must be the caller's or root's "
            "own, and nobody else's to write (chmod go-w)",
            path, status.st_uid, status.st_mode & 07777);
    std::string bytes;
    if (status.st_size > kMaxLaunchBytes ||
        !read_whole(file.get(), static_cast<std::size_t>(status.st_size), bytes))
        return damaged(path);
    const auto body = open_sealed(bytes);
    if (!body) return damaged(path);
    ByteReader reader(*body);
    std::string_view kind;
    std::string_view build;
    std::string_view launch;
    reader.one(kind);
    reader.one(build);
    reader.one(launch);
    if (!reader.finished() || kind != kKind) return damaged(path);
    if (build != build_identity())
        return fail(
            "{}: was compiled by another postern, or on another kernel; compile the profile again with "
            "this one",
            path);
    auto decoded = decode_launch(launch);
    if (!decoded) return damaged(path);
    return std::move(*decoded);
}

}  // namespace postern
