// SPDX-License-Identifier: Apache-2.0
// The host's network, and the sockets that are not named by files. Also the terminal, which is a way to type.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/vm_sockets.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "broker-core/unique_fd.h"
#include "tests/hostile/device_ops.h"
#include "tests/hostile/paths.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

Attempt open_socket(int family, int type, int protocol) {
    const UniqueFd fd(socket(family, type | SOCK_CLOEXEC, protocol));
    return judged(fd.get());
}

/// An interface beside its own loopback is one of the host's.
Attempt see_interfaces(const Target&) {
    const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd) return judged(-1, "socket");
    for (int index = 1; index < 64; ++index) {
        ifreq request{};
        request.ifr_ifindex = index;
        if (ioctl(fd.get(), SIOCGIFNAME, &request) == 0 && std::strcmp(request.ifr_name, "lo") != 0) {
            return succeeded(request.ifr_name);
        }
    }
    return failed(ENODEV, "no interface but lo");
}

/// Where routes lead out: no packet leaves for connect(2) of a datagram socket.
Attempt find_route(const Target&) {
    const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd) return judged(-1, "socket");
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(53);
    address.sin_addr.s_addr = htonl(0xc0000201);  // 192.0.2.1, reserved for examples
    return judged(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
}

constexpr char kAbstractName[] = "\0/tmp/.X11-unix/X0";

socklen_t abstract_address(sockaddr_un& address) {
    address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, kAbstractName, sizeof kAbstractName - 1);
    return offsetof(sockaddr_un, sun_path) + sizeof kAbstractName - 1;
}

/// Outside there must be somebody to be found.
UniqueFd listen_outside(const Target& target) {
    UniqueFd fd;
    if (!target.outside) return fd;
    fd.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address;
    const socklen_t length = abstract_address(address);
    if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
        listen(fd.get(), 1) != 0) {
        fd.reset();
    }
    return fd;
}

/// Abstract names belong to the network namespace: in one's own there are only one's own.
Attempt see_abstract_sockets(const Target& target) {
    const UniqueFd listener = listen_outside(target);
    for (const std::string& line : lines_of("/proc/net/unix")) {
        const size_t at = line.find(" @");
        if (at != std::string::npos) return succeeded(line.substr(at + 1));
    }
    return failed(ENOENT, "no abstract name in sight");
}

Attempt connect_abstract(const Target& target) {
    const UniqueFd listener = listen_outside(target);
    const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) return judged(-1, "socket");
    sockaddr_un address;
    const socklen_t length = abstract_address(address);
    return judged(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length));
}

/// TIOCSTI puts a character into the input of a terminal, for whoever reads it next. On a pair of one's own:
/// the kernel asks the same questions.
Attempt type_into_terminal(const Target&) {
    const UniqueFd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!master) return judged(-1, "posix_openpt");
    if (grantpt(master.get()) != 0 || unlockpt(master.get()) != 0) return preparation_failed("unlockpt");
    char name[128];
    if (ptsname_r(master.get(), name, sizeof name) != 0) return preparation_failed("ptsname");
    if (setsid() < 0) return preparation_failed("setsid");
    // The terminal goes away with the fds below, and its session leader would be told so before it has
    // reported.
    if (signal(SIGHUP, SIG_IGN) == SIG_ERR) return preparation_failed("signal");
    const UniqueFd slave(open(name, O_RDWR | O_CLOEXEC));
    if (!slave) return judged(-1, "open of the terminal");
    if (ioctl(slave.get(), TIOCSCTTY, 0) != 0) return judged(-1, "TIOCSCTTY");
    return judged(ioctl(slave.get(), TIOCSTI, "x"), "TIOCSTI");
}

/// The terminal that the launcher was started on, if it was: a shell reads there when the client is gone.
Attempt type_into_inherited_terminal(const Target&) {
    if (isatty(STDIN_FILENO) == 0) return nothing("standard input is no terminal");
    return judged(ioctl(STDIN_FILENO, TIOCSTI, "x"), "TIOCSTI");
}

Attempt ask_inherited_console(const Target&) {
    if (isatty(STDIN_FILENO) == 0) return nothing("standard input is no terminal");
    // The one among its subcommands (3 pastes) that changes nothing; the same question comes before all.
    char code = 6;
    return judged(ioctl(STDIN_FILENO, TIOCLINUX, &code), "TIOCLINUX");
}

Attempt pair_of_sockets(const Target&) {
    int ends[2];
    return judged(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
}

}  // namespace

void add_network_probes(Probes& probes) {
    const Control control{"socketpair", pair_of_sockets};
    const char* no_network = "this machine has no network";
    const auto add = [&](const char* name, const char* what, std::function<Attempt(const Target&)> attempt,
                         std::vector<int> refusals, std::vector<int> inherent, const char* why) {
        probes.push_back({.name = name,
                          .group = "network",
                          .what = what,
                          .attempt = std::move(attempt),
                          .control = control,
                          .refusals = std::move(refusals),
                          .inherent = std::move(inherent),
                          .inherent_why = why});
    };
    add("interfaces", "sight of an interface beside lo", see_interfaces, {ENODEV, EAFNOSUPPORT}, {ENODEV},
        no_network);
    add("route", "a route to anywhere", find_route, {ENETUNREACH, EAFNOSUPPORT}, {ENETUNREACH}, no_network);
    add("abstract-names", "sight of an abstract unix socket of the host", see_abstract_sockets, {ENOENT},
        {ENOENT}, "nobody listens on this machine");
    add("abstract-connect", "connect to an abstract unix socket of the host", connect_abstract,
        {ECONNREFUSED}, {}, "");
    add(
        "packet-socket", "a packet socket",
        [](const Target&) { return open_socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)); }, {EAFNOSUPPORT},
        {EAFNOSUPPORT}, "this kernel is built without it");
    add(
        "raw-socket", "a raw socket",
        [](const Target&) { return open_socket(AF_INET, SOCK_RAW, IPPROTO_ICMP); }, {EAFNOSUPPORT}, {}, "");
    add(
        "vsock", "a vsock socket, which no namespace holds back",
        [](const Target&) { return open_socket(AF_VSOCK, SOCK_STREAM, 0); }, {EAFNOSUPPORT}, {EAFNOSUPPORT},
        "this kernel is built without it");
    add(
        "alg", "a socket of the kernel's cryptography",
        [](const Target&) { return open_socket(AF_ALG, SOCK_SEQPACKET, 0); }, {EAFNOSUPPORT}, {EAFNOSUPPORT},
        "this kernel is built without it");
    probes.push_back({.name = "tiocsti-inherited",
                      .group = "network",
                      .what = "TIOCSTI: typing into the launcher's terminal",
                      .attempt = type_into_inherited_terminal,
                      .refusals = {EIO}});
    probes.push_back({.name = "tioclinux-inherited",
                      .group = "network",
                      .what = "TIOCLINUX on the launcher's terminal",
                      .attempt = ask_inherited_console,
                      .inherent = {ENOTTY},
                      .inherent_why = "only a console has it, and this terminal is none",
                      .kernel_first = true});
    probes.push_back({.name = "tiocsti",
                      .group = "network",
                      .what = "TIOCSTI: typing into a terminal",
                      .attempt = type_into_terminal,
                      .refusals = {EIO, ENOENT},
                      .inherent = {EIO},
                      .inherent_why = "the sysctl dev.tty.legacy_tiocsti is off",
                      .kernel_first = true});
}

}  // namespace postern::hostile
