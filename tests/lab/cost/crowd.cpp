// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cost/crowd.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "broker-core/guard.h"
#include "broker-core/unique_fd.h"
#include "tests/lab/cost/answer.h"
#include "tests/lab/cost/pipe.h"

namespace postern::cost {
namespace {

constexpr size_t kFilesOfOneProcess = 100;

Result<size_t> register_files(Guard& guard, std::vector<UniqueFd>& files, size_t count) {
    FilePolicy policy;
    policy.grant = "crowd";
    policy.forward = Forward::Anyone;
    // Eventfds are everybody's.
    policy.exclusive = false;
    while (files.size() < count) {
        files.emplace_back(::eventfd(0, EFD_CLOEXEC));
        POSTERN_TRY(guard.register_file(files.back().get(), policy));
    }
    return files.size();
}

/// Does not return: its files live until it is killed.
void hold_files(int answer, size_t count) {
    std::vector<UniqueFd> files;
    // A use of its own: the parent's is not for a forked child.
    auto guard = Guard::acquire();
    send_answer(answer, guard ? register_files(*guard, files, count) : propagate(std::move(guard)));
    while (true) ::pause();
}

}  // namespace

Status Crowd::grow_to(size_t files) {
    while (files_ < files) {
        const size_t count = std::min(kFilesOfOneProcess, files - files_);
        POSTERN_ASSIGN(Pipe pipe, Pipe::make());
        POSTERN_ASSIGN(ChildProcess process,
                       ChildProcess::start([&] { hold_files(pipe.writer.get(), count); }));
        pipe.writer.reset();
        POSTERN_ASSIGN(const size_t registered, receive_answer<size_t>(pipe.reader.get()));
        processes_.push_back(std::move(process));
        files_ += registered;
    }
    return {};
}

}  // namespace postern::cost
