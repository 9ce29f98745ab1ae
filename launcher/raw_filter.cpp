// SPDX-License-Identifier: Apache-2.0
#include "launcher/raw_filter.h"

#include <cerrno>

#include "broker-core/file.h"

namespace postern {

Result<std::vector<sock_filter>> read_raw_filter(int fd) {
    const auto read = read_to_end(fd, BPF_MAXINSNS * sizeof(sock_filter));
    if (!read && read.error().errnum == EFBIG)
        return fail("fd {} has more than {} instructions", fd, BPF_MAXINSNS);
    if (!read) return fail("Can't read seccomp data: {}", read.error().message);
    const std::string& bytes = *read;
    if (bytes.size() % sizeof(sock_filter) != 0)
        return fail("Invalid seccomp data, must be multiple of {}", sizeof(sock_filter));
    std::vector<sock_filter> program(bytes.size() / sizeof(sock_filter));
    bytes.copy(reinterpret_cast<char*>(program.data()), bytes.size());
    return program;
}

}  // namespace postern
