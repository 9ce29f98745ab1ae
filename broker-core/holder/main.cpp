// SPDX-License-Identifier: Apache-2.0
// postern-holder SOCKET: keeps a broker's open files while there is no broker
// (broker-core/holder_protocol.h). fd 3 is the socket that listens at SOCKET. It knows nothing of devices,
// and does nothing with what it keeps: the less there is in it, the less there is that can end it.
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker-core/holder/held_entries.h"
#include "broker-core/holder_protocol.h"
#include "broker-core/packet.h"

namespace postern {
namespace {

/// Many a shell's soft limit is 1024: a few devices' worth of files.
constexpr rlim_t kWantedFds = 65536;

class Holder {
  public:
    Holder(UniqueFd listener, std::string path) : listener_(std::move(listener)), path_(std::move(path)) {}

    /// Until it is told to quit; the status of the process.
    int run() {
        while (!quit_) {
            std::array<pollfd, 2> events{{{broker_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}}};
            if (::poll(events.data(), events.size(), -1) < 0 && errno != EINTR) return 1;
            // The broker first, and to the end of what it sent: its successor's call may be here at once with
            // its own end.
            serve();
            if (!quit_ && (events[1].revents & POLLIN) != 0) admit();
        }
        return 0;
    }

  private:
    void serve() {
        while (broker_ && !quit_) {
            auto packet = receive_packet(broker_.get(), kHolderPacket, kMaxKeptFds, MSG_DONTWAIT);
            if (!packet && packet.error().errnum == EAGAIN) return;
            if (packet && packet->end) {
                broker_.reset();
                return;
            }
            if (!packet) {
                const bool only_too_large = packet.error().errnum == EMSGSIZE;
                if (!only_too_large || !answer(refusal(packet.error()))) broker_.reset();
                continue;
            }
            if (!obey(std::move(*packet))) broker_.reset();
        }
    }

    [[nodiscard]] bool obey(Packet packet) {
        const std::string_view rest = std::string_view(packet.text).substr(1);
        switch (packet.text[0]) {
            case kHolderPut: {
                const auto [name, text] = split_entry(rest);
                const Status kept = entries_.put(name, text, std::move(packet.fds));
                return answer(kept ? std::string(1, kHolderDone) : refusal(kept.error()));
            }
            case kHolderRemove:
                entries_.remove(rest);
                return answer(std::string(1, kHolderDone));
            case kHolderList: {
                const auto* next = entries_.after(rest);
                if (next == nullptr) return answer(std::string(1, kHolderDone));
                std::vector<int> fds;
                for (const UniqueFd& fd : next->second.fds) fds.push_back(fd.get());
                return answer(joined_entry(kHolderEntry, next->first, next->second.text), fds);
            }
            case kHolderQuit:
                // The file first: who finds it gone starts another holder, and nobody removes that one's.
                ::unlink(path_.c_str());
                quit_ = true;
                return answer(std::string(1, kHolderDone));
            default:
                return answer(refusal({"unknown request", EINVAL}));
        }
    }

    void admit() {
        UniqueFd caller(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!caller) {
            // Else poll would return at once, for as long as there is no free fd: better to be slow.
            if (errno == EMFILE || errno == ENFILE) ::poll(nullptr, 0, 100);
            return;
        }
        ucred who{};
        socklen_t size = sizeof who;
        Error refused;
        if (::getsockopt(caller.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 || who.uid != ::geteuid()) {
            refused = {fmt::format("only uid {} is served, not uid {}", ::geteuid(), who.uid), EPERM};
        } else if (broker_) {
            refused = {"another broker is served already; end that one first", EBUSY};
        }
        if (refused.errnum != 0) {
            (void)send_packet(caller.get(), refusal(refused), {}, MSG_DONTWAIT);
            return;
        }
        broker_ = std::move(caller);
        if (!answer(kHolderDone + std::string(kHolderGreeting))) broker_.reset();
    }

    static std::string refusal(const Error& error) {
        return fmt::format("{}{} {}", kHolderRefused, error.errnum, error.message);
    }

    /// False where the broker is gone, or does not read its answers: nobody else shall wait for it.
    [[nodiscard]] bool answer(const std::string& text, std::span<const int> fds = {}) {
        return send_packet(broker_.get(), text, fds, MSG_DONTWAIT).has_value();
    }

    UniqueFd listener_;
    std::string path_;
    UniqueFd broker_;  ///< closed behind the entries: to the broker, its end is that of all of them
    HeldEntries entries_;
    bool quit_ = false;
};

}  // namespace
}  // namespace postern

int main(int argc, char** argv) {
    int listening = 0;
    socklen_t size = sizeof listening;
    if (argc != 2 || argv[1][0] == '-' ||
        ::getsockopt(postern::kHolderListener, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 ||
        listening == 0) {
        (void)std::fputs("postern-holder: is started by postern broker, with a listening socket as fd 3\n",
                         stderr);
        return 2;
    }
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = std::max(files.rlim_cur, std::min(files.rlim_max, postern::kWantedFds));
        (void)::setrlimit(RLIMIT_NOFILE, &files);
    }
    ::fcntl(postern::kHolderListener, F_SETFD, FD_CLOEXEC);
    ::fcntl(postern::kHolderListener, F_SETFL, O_NONBLOCK);  // a caller may leave before it is accepted
    return postern::Holder(postern::UniqueFd(postern::kHolderListener), argv[1]).run();
}
