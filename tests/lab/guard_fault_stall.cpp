// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "tests/lab/guard_fault_stall.h"

namespace postern::test {
namespace {

constexpr size_t kPageSize = 4096;

}  // namespace

FaultStall::FaultStall(void* page, std::function<void()> meanwhile)
    : page_(static_cast<char*>(page)),
      meanwhile_(std::move(meanwhile)),
      // Only one that does not block can be polled.
      faults_(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK))),
      stop_(::eventfd(0, EFD_CLOEXEC)) {
    uffdio_api api{};
    api.api = UFFD_API;
    uffdio_register wanted{};
    wanted.range = {reinterpret_cast<uint64_t>(page_), kPageSize};
    wanted.mode = UFFDIO_REGISTER_MODE_MISSING;
    works_ = faults_ && ::ioctl(faults_.get(), UFFDIO_API, &api) == 0 &&
             ::ioctl(faults_.get(), UFFDIO_REGISTER, &wanted) == 0;
    if (works_) thread_ = std::thread([this] { serve(); });
}

FaultStall::~FaultStall() {
    const uint64_t one = 1;
    (void)!::write(stop_.get(), &one, sizeof one);
    if (thread_.joinable()) thread_.join();
}

void FaultStall::serve() {
    pollfd ready[2] = {{faults_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(ready, 2, -1) < 0 || (ready[0].revents & POLLIN) == 0) return;
    uffd_msg message{};
    if (::read(faults_.get(), &message, sizeof message) != static_cast<ssize_t>(sizeof message)) return;
    hit_ = true;
    meanwhile_();
    uffdio_zeropage zeros{};
    zeros.range = {reinterpret_cast<uint64_t>(page_), kPageSize};
    (void)::ioctl(faults_.get(), UFFDIO_ZEROPAGE, &zeros);
}

}  // namespace postern::test
