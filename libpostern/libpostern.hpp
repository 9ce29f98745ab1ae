// SPDX-License-Identifier: Apache-2.0
/// libpostern.h for C++17, header only: owners for what has to be undone, and exceptions for errors. Every
/// function that fails throws libpostern::Error, with the line of libpostern_error() and the errno. Threads,
/// fds and rights: see libpostern.h.
///
///     libpostern::Context postern;
///     auto device = postern.open_device("0000:00:03.0");
///     device.enable();
///     auto memory = device.allocate(65536, 0x1000000);
///     libpostern::Policy policy;
///     policy.window("registers", 0, 0, 4096, LIBPOSTERN_READ | LIBPOSTERN_WRITE |
///     LIBPOSTERN_MMAP).ioctl("VFIO_DEVICE_GET_INFO"); auto grant =
///     postern.make_grant(libpostern::Profile::load("default")); grant.add(device, policy).add_dma("buffer",
///     memory); grant.launch({"/usr/bin/client"}); return grant.wait().status;
///
/// Owners must end before what they were made from: declare the context first.
#ifndef LIBPOSTERN_HPP
#define LIBPOSTERN_HPP

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "libpostern.h"

namespace libpostern {

/// code() is the errno; what() begins with the library's line.
class Error : public std::system_error {
  public:
    explicit Error(int errnum) : std::system_error(errnum, std::generic_category(), libpostern_error()) {}
};

/// Throws if `result`, of a function of the C API, is an error.
inline int check(int result) {
    if (result < 0) throw Error(-result);
    return result;
}

class Profile {
  public:
    [[nodiscard]] static Profile load(const std::string& name_or_file) {
        libpostern_profile* made = nullptr;
        check(libpostern_profile_load(&made, name_or_file.c_str()));
        return Profile(made);
    }
    [[nodiscard]] static Profile parse(std::string_view text, const std::string& folder = "/") {
        libpostern_profile* made = nullptr;
        check(libpostern_profile_parse(&made, text.data(), text.size(), folder.c_str()));
        return Profile(made);
    }

    [[nodiscard]] unsigned slices() const { return libpostern_profile_slices(get()); }
    [[nodiscard]] std::string weakenings() const { return libpostern_profile_weakenings(get()); }
    [[nodiscard]] const libpostern_profile* get() const { return handle_.get(); }

  private:
    struct Free {
        void operator()(libpostern_profile* handle) const { libpostern_profile_free(handle); }
    };
    explicit Profile(libpostern_profile* handle) : handle_(handle) {}
    std::unique_ptr<libpostern_profile, Free> handle_;
};

class Policy {
  public:
    Policy() : Policy(make()) {}
    [[nodiscard]] static Policy from(const Profile& profile, unsigned slice) {
        libpostern_policy* made = nullptr;
        check(libpostern_policy_from_profile(&made, profile.get(), slice));
        return Policy(made);
    }

    Policy& window(const std::string& name, unsigned region, uint64_t offset, uint64_t length,
                   unsigned flags) {
        check(libpostern_policy_window(handle_.get(), name.c_str(), region, offset, length, flags));
        return *this;
    }
    Policy& ioctl(const std::string& ioctl) {
        check(libpostern_policy_ioctl(handle_.get(), ioctl.c_str()));
        return *this;
    }
    Policy& forward(libpostern_forward forward) {
        check(libpostern_policy_forward(handle_.get(), forward));
        return *this;
    }
    [[nodiscard]] const libpostern_policy* get() const { return handle_.get(); }

  private:
    struct Free {
        void operator()(libpostern_policy* handle) const { libpostern_policy_free(handle); }
    };
    static libpostern_policy* make() {
        libpostern_policy* made = nullptr;
        check(libpostern_policy_new(&made));
        return made;
    }
    explicit Policy(libpostern_policy* handle) : handle_(handle) {}
    std::unique_ptr<libpostern_policy, Free> handle_;
};

class Device {
  public:
    [[nodiscard]] int fd() const { return libpostern_device_fd(get()); }
    [[nodiscard]] libpostern_region region(unsigned index) const {
        libpostern_region region{};
        check(libpostern_device_region(get(), index, &region));
        return region;
    }
    void enable() { check(libpostern_device_enable(get())); }
    void reset() { check(libpostern_device_reset(get())); }
    libpostern_memory allocate(uint64_t size, uint64_t iova,
                               unsigned access = LIBPOSTERN_READ | LIBPOSTERN_WRITE) {
        libpostern_memory memory{};
        check(libpostern_device_dma_alloc(get(), size, iova, access, &memory));
        return memory;
    }
    void free(const libpostern_memory& memory) { check(libpostern_device_dma_free(get(), memory.iova)); }
    void wire(unsigned index, const std::vector<int>& eventfds) {
        check(libpostern_device_wire_irqs(get(), index, eventfds.data(), eventfds.size()));
    }
    /// The fd is the caller's to close.
    [[nodiscard]] int export_pages(unsigned region, uint64_t offset, uint64_t length, bool writable) {
        int fd = -1;
        check(libpostern_device_export(get(), region, offset, length, writable ? 1 : 0, &fd));
        return fd;
    }
    /// What the destructor does without telling of errors.
    void close() {
        const int result = libpostern_device_close(get());
        if (result != -EBUSY) (void)handle_.release();
        check(result);
    }
    [[nodiscard]] libpostern_device* get() const { return handle_.get(); }

  private:
    friend class Context;
    struct Free {
        void operator()(libpostern_device* handle) const { (void)libpostern_device_close(handle); }
    };
    explicit Device(libpostern_device* handle) : handle_(handle) {}
    std::unique_ptr<libpostern_device, Free> handle_;
};

class Grant {
  public:
    [[nodiscard]] std::string id() const { return libpostern_grant_id(get()); }
    Grant& add(Device& device, const Policy& policy) {
        check(libpostern_grant_add_device(get(), device.get(), policy.get()));
        return *this;
    }
    Grant& add_dma(const std::string& name, const libpostern_memory& memory,
                   unsigned access = LIBPOSTERN_READ | LIBPOSTERN_WRITE) {
        check(libpostern_grant_add_dma(get(), name.c_str(), memory.fd, memory.size, memory.iova, access));
        return *this;
    }
    Grant& add_irq(const std::string& name, unsigned index, unsigned vector, int eventfd) {
        check(libpostern_grant_add_irq(get(), name.c_str(), index, vector, eventfd));
        return *this;
    }
    Grant& add_fd(const std::string& name, int fd) {
        check(libpostern_grant_add_fd(get(), name.c_str(), fd));
        return *this;
    }
    /// Borrowed.
    [[nodiscard]] int fd(const std::string& name) const {
        return check(libpostern_grant_fd(get(), name.c_str()));
    }
    [[nodiscard]] uint64_t denied() const {
        uint64_t count = 0;
        check(libpostern_grant_denied(get(), &count));
        return count;
    }

    /// Returns the client's pidfd, borrowed. The environment is the caller's by the profile's rules.
    int launch(const std::vector<std::string>& command) {
        int pidfd = -1;
        check(libpostern_grant_launch(get(), pointers(command).data(), nullptr, &pidfd));
        return pidfd;
    }
    /// The same with exactly this environment.
    int launch(const std::vector<std::string>& command, const std::vector<std::string>& environment) {
        int pidfd = -1;
        check(libpostern_grant_launch(get(), pointers(command).data(), pointers(environment).data(), &pidfd));
        return pidfd;
    }
    libpostern_exit wait() {
        libpostern_exit exit{};
        check(libpostern_grant_wait(get(), -1, &exit));
        return exit;
    }
    /// Nothing if the client runs on.
    std::optional<libpostern_exit> wait_for(std::chrono::milliseconds time) {
        libpostern_exit exit{};
        const int result = libpostern_grant_wait(get(), static_cast<int>(time.count()), &exit);
        if (result == -ETIMEDOUT) return std::nullopt;
        check(result);
        return exit;
    }
    void signal(int number) { check(libpostern_grant_signal(get(), number)); }
    void kill() { check(libpostern_grant_kill(get())); }
    void admit(int pidfd) { check(libpostern_grant_admit(get(), pidfd)); }
    void vend(int socket) { check(libpostern_grant_vend(get(), socket)); }
    void revoke() { check(libpostern_grant_revoke(get())); }
    /// What the destructor does without telling of errors.
    void end() { check(libpostern_grant_end(handle_.release())); }
    [[nodiscard]] libpostern_grant* get() const { return handle_.get(); }

  private:
    friend class Context;
    struct Free {
        void operator()(libpostern_grant* handle) const { (void)libpostern_grant_end(handle); }
    };
    static std::vector<const char*> pointers(const std::vector<std::string>& texts) {
        std::vector<const char*> made;
        for (const std::string& text : texts) made.push_back(text.c_str());
        made.push_back(nullptr);
        return made;
    }
    explicit Grant(libpostern_grant* handle) : handle_(handle) {}
    std::unique_ptr<libpostern_grant, Free> handle_;
};

class Context {
  public:
    Context() : handle_(make()) {}

    [[nodiscard]] Device open_device(const std::string& bdf) {
        libpostern_device* made = nullptr;
        check(libpostern_device_open(get(), bdf.c_str(), &made));
        return Device(made);
    }
    /// The fds stay the caller's.
    [[nodiscard]] Device adopt_device(const std::string& bdf, int device, int group, int container = -1) {
        libpostern_device* made = nullptr;
        check(libpostern_device_adopt(get(), bdf.c_str(), device, group, container, &made));
        return Device(made);
    }
    [[nodiscard]] Grant make_grant(unsigned slice = 0) { return make_grant_of(nullptr, slice); }
    [[nodiscard]] Grant make_grant(const Profile& sandbox, unsigned slice = 0) {
        return make_grant_of(sandbox.get(), slice);
    }
    /// What the destructor does without telling of errors.
    void close() { check(libpostern_free(handle_.release())); }
    [[nodiscard]] libpostern_context* get() const { return handle_.get(); }

  private:
    struct Free {
        void operator()(libpostern_context* handle) const { (void)libpostern_free(handle); }
    };
    static libpostern_context* make() {
        libpostern_context* made = nullptr;
        check(libpostern_new(&made));
        return made;
    }
    Grant make_grant_of(const libpostern_profile* sandbox, unsigned slice) {
        libpostern_grant* made = nullptr;
        check(libpostern_grant_new(get(), sandbox, slice, &made));
        return Grant(made);
    }
    std::unique_ptr<libpostern_context, Free> handle_;
};

}  // namespace libpostern

#endif
