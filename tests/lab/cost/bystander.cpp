// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cost/bystander.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/lab/cost/answer.h"
#include "tests/lab/cost/instructions.h"
#include "tests/lab/cost/pipe.h"

namespace postern::cost {
namespace {

constexpr size_t kPage = 4096;

Result<PlainCosts> measure_files(int memory, int zero, int null) {
    PlainCosts costs;
    int available = 0;
    char data[64] = {};
    POSTERN_ASSIGN(costs.ioctl, instructions_per_call(
                                    kManyCalls, [&] { return ::ioctl(memory, FIONREAD, &available) == 0; }));
    POSTERN_ASSIGN(costs.pread, instructions_per_call(kManyCalls, [&] {
                       return ::pread(zero, data, sizeof data, 0) == sizeof data;
                   }));
    POSTERN_ASSIGN(costs.write, instructions_per_call(kManyCalls, [&] {
                       return ::write(null, data, sizeof data) == sizeof data;
                   }));
    void* at = nullptr;
    POSTERN_ASSIGN(costs.mmap, instructions_per_call(
                                   kManyCalls,
                                   [&] {
                                       at = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, memory, 0);
                                       return at != MAP_FAILED;
                                   },
                                   [&] { ::munmap(at, kPage); }));
    return costs;
}

void serve(int socket) {
    const UniqueFd memory(::memfd_create("bystander", MFD_CLOEXEC));
    // Not the memfd: what a read of it costs changes with what the kernel thinks of the page's age.
    const UniqueFd zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
    const UniqueFd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    const char page[kPage] = {};
    if (::write(memory.get(), page, sizeof page) != sizeof page) return;
    char request = 0;
    while (::read(socket, &request, 1) == 1)
        send_answer(socket, measure_files(memory.get(), zero.get(), null.get()));
}

}  // namespace

Result<Bystander> Bystander::start() {
    POSTERN_ASSIGN(SocketPair sockets, SocketPair::make());
    POSTERN_ASSIGN(ChildProcess process, ChildProcess::start([&] {
                       sockets.here.reset();
                       serve(sockets.there.get());
                   }));
    return Bystander(std::move(sockets.here), std::move(process));
}

Result<PlainCosts> Bystander::measure() {
    if (::write(socket_.get(), "", 1) != 1) return fail("the process with unguarded files is gone");
    auto costs = receive_answer<PlainCosts>(socket_.get());
    if (!costs) return propagate(std::move(costs), "files that are not guarded");
    return costs;
}

}  // namespace postern::cost
