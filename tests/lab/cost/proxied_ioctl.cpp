// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cost/proxied_ioctl.h"

#include <sys/socket.h>
#include <unistd.h>

#include "tests/lab/cost/child_process.h"
#include "tests/lab/cost/device_ioctl.h"
#include "tests/lab/cost/pipe.h"

namespace postern::cost {
namespace {

/// A call on its way there, and its result on the way back.
struct Message {
    unsigned long command = 0;
    int result = 0;
    vfio_device_info argument{};
};

void make_calls(int socket, int device) {
    Message message;
    while (::recv(socket, &message, sizeof message, 0) == sizeof message) {
        // What a proxy is for: one command and no other.
        message.result = message.command == VFIO_DEVICE_GET_INFO
                             ? ::ioctl(device, message.command, &message.argument)
                             : -1;
        if (::send(socket, &message, sizeof message, MSG_NOSIGNAL) != sizeof message) return;
    }
}

}  // namespace

Result<long> cost_of_proxied_ioctl(int device) {
    POSTERN_ASSIGN(SocketPair sockets, SocketPair::make());
    POSTERN_ASSIGN(const ChildProcess proxy, ChildProcess::start([&] {
                       sockets.here.reset();
                       make_calls(sockets.there.get(), device);
                   }));
    sockets.there.reset();
    return instructions_per_call(kFewCalls, [&] {
        Message message;
        message.command = VFIO_DEVICE_GET_INFO;
        message.argument.argsz = sizeof message.argument;
        const int socket = sockets.here.get();
        return ::send(socket, &message, sizeof message, MSG_NOSIGNAL) == sizeof message &&
               ::recv(socket, &message, sizeof message, 0) == sizeof message && message.result == 0 &&
               message.argument.num_regions != 0;
    });
}

}  // namespace postern::cost
