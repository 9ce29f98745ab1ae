// SPDX-License-Identifier: Apache-2.0
// bare-launch BDF PROFILE SLICE CMD [ARG…]: the client with a plain vfio fd, no guard and no sandbox. The
// positive control of tests: what postern refuses must work here.

#include <cstdio>
#include <cstdlib>

#include "broker-core/device_session.h"
#include "broker-core/profile_reader.h"

namespace postern {
namespace {

Status launch(const std::string& bdf, const std::string& profile_name, unsigned slice,
              const ProgramLine& command) {
    POSTERN_ASSIGN(const LoadedProfile loaded, load_profile(profile_name));
    POSTERN_TRY(check_slice(loaded.profile, slice));
    POSTERN_ASSIGN(DeviceSession session, DeviceSession::open(loaded.profile, bdf, Backend::Auto));
    {
        POSTERN_ASSIGN(const Grant grant, session.grant_unguarded(slice));
        BorrowedFds fds;
        for (const NamedFd& each : grant.fds) fds.emplace_back(each.name, each.fd.get());
        POSTERN_TRY(run_program(command, "/", fds));
    }
    POSTERN_TRY(session.end_slice(slice));
    return session.close();
}

}  // namespace
}  // namespace postern

int main(int argc, char** argv) {
    if (argc < 5) {
        std::fprintf(stderr, "usage: bare-launch BDF PROFILE SLICE CMD [ARG…]\n");
        return 2;
    }
    const auto status =
        postern::launch(argv[1], argv[2], static_cast<unsigned>(std::atoi(argv[3])), {argv + 4, argv + argc});
    if (status) return 0;
    std::fprintf(stderr, "bare-launch: %s\n", status.error().message.c_str());
    return 1;
}
