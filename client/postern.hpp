// SPDX-License-Identifier: Apache-2.0
/// postern.h for C++17: the same grant with owners for what has to be undone, and exceptions for errors.
///
///     auto grant = postern::client::Grant::open();
///     auto doorbell = grant.map_window("doorbell", PROT_WRITE);
///     auto ring = grant.map_dma("ring");
///     doorbell.write16(0, 1);
///     grant.wait("vq");
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

#include "postern.h"

namespace postern::client {

/// No usable grant: what() is the one line of postern_open().
class GrantError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

/// A mapping that is undone with its owner. Outlives the grant that it came from.
class Mapping {
  public:
    Mapping(volatile void* first, uint64_t size) : first_(first), size_(size) {}
    Mapping(Mapping&& other) noexcept : first_(std::exchange(other.first_, nullptr)), size_(other.size_) {}
    Mapping& operator=(Mapping&& other) noexcept {
        std::swap(first_, other.first_);
        std::swap(size_, other.size_);
        return *this;
    }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() {
        if (first_ != nullptr) (void)postern_unmap(first_, size_);
    }

    [[nodiscard]] uint64_t size() const { return size_; }  ///< bytes

  protected:
    /// Address of size bytes at offset; std::out_of_range if they are not all inside.
    [[nodiscard]] volatile void* at(uint64_t offset, uint64_t size) const {
        if (offset > size_ || size > size_ - offset) {
            throw std::out_of_range("postern: offset " + std::to_string(offset) +
                                    " is outside a mapping of " + std::to_string(size_) + " bytes");
        }
        return static_cast<volatile char*>(first_) + offset;
    }

  private:
    volatile void* first_;
    uint64_t size_;
};

/// Registers. Offsets are in bytes from the window's first; each access has exactly the width it says.
class WindowMapping : public Mapping {
  public:
    using Mapping::Mapping;

    [[nodiscard]] uint8_t read8(uint64_t offset) const { return postern_mmio_read8(at(offset, 1)); }
    [[nodiscard]] uint16_t read16(uint64_t offset) const { return postern_mmio_read16(at(offset, 2)); }
    [[nodiscard]] uint32_t read32(uint64_t offset) const { return postern_mmio_read32(at(offset, 4)); }
    [[nodiscard]] uint64_t read64(uint64_t offset) const { return postern_mmio_read64(at(offset, 8)); }
    void write8(uint64_t offset, uint8_t value) { postern_mmio_write8(at(offset, 1), value); }
    void write16(uint64_t offset, uint16_t value) { postern_mmio_write16(at(offset, 2), value); }
    void write32(uint64_t offset, uint32_t value) { postern_mmio_write32(at(offset, 4), value); }
    void write64(uint64_t offset, uint64_t value) { postern_mmio_write64(at(offset, 8), value); }

    /// For a hot loop that keeps the address of its doorbell and uses postern_mmio_*() itself.
    [[nodiscard]] volatile void* address(uint64_t offset, uint64_t size) { return at(offset, size); }
};

/// Memory that the device reads and writes too.
class DmaMapping : public Mapping {
  public:
    DmaMapping(volatile void* first, const postern_dma& dma) : Mapping(first, dma.size), iova_(dma.iova) {}

    /// The object at offset, which the caller orders against the device (postern_dma_wmb(), …).
    template <typename T>
    [[nodiscard]] T* as(uint64_t offset, uint64_t count = 1) {
        if (count > size() / sizeof(T)) throw std::out_of_range("postern: array larger than its mapping");
        return static_cast<T*>(const_cast<void*>(at(offset, sizeof(T) * count)));
    }

    /// What the device calls the byte at offset.
    [[nodiscard]] uint64_t iova(uint64_t offset = 0) const { return iova_ + offset; }

  private:
    uint64_t iova_;
};

/// Owns the grant and with it all passed fds.
class Grant {
  public:
    /// The grant that this process was started with; GrantError says why there is none. Once a process.
    [[nodiscard]] static Grant open() {
        char error[512] = "";
        postern_grant* grant = postern_open(error, sizeof error);
        if (grant == nullptr) throw GrantError(error);
        return Grant(grant);
    }

    /// Takes a grant that postern_open() or postern_parse() made.
    explicit Grant(postern_grant* grant) : grant_(grant) {}

    [[nodiscard]] const postern_grant& get() const { return *grant_; }

    /// Borrowed fd of that name; std::system_error ENOENT without it, as all that follow.
    [[nodiscard]] int fd(const char* name) const {
        const int found = postern_fd(grant_.get(), name);
        if (found < 0) fail("fd", name);
        return found;
    }
    [[nodiscard]] const postern_window& window(const char* name) const {
        return *known("window", name, postern_get_window(grant_.get(), name));
    }
    [[nodiscard]] const postern_dma& dma(const char* name) const {
        return *known("dma memory", name, postern_get_dma(grant_.get(), name));
    }
    [[nodiscard]] const postern_irq& irq(const char* name) const {
        return *known("irq", name, postern_get_irq(grant_.get(), name));
    }

    /// prot: PROT_READ, PROT_WRITE or both, within the window's access.
    [[nodiscard]] WindowMapping map_window(const char* name, int prot) const {
        const postern_window& entry = window(name);
        return {known("mapping of window", name, postern_map_window(&entry, prot)), entry.length};
    }
    [[nodiscard]] DmaMapping map_dma(const char* name) const {
        const postern_dma& entry = dma(name);
        return {known("mapping of dma memory", name, postern_map_dma(&entry)), entry};
    }
    /// Blocks until the interrupt has come; how often since the last time. EINTR is an error here.
    uint64_t wait(const char* name) const {
        uint64_t count = 0;
        if (postern_irq_wait(&irq(name), &count) < 0) fail("wait for irq", name);
        return count;
    }

    /// postern_ioctl() of the device: an ioctl whose arguments the profile rules. What ioctl(2) returns.
    template <typename Block>
    int ioctl(unsigned long request, const Block& block) const {
        static_assert(std::is_trivially_copyable_v<Block>);
        const int result = postern_ioctl(grant_->device_fd, request, &block, sizeof block);
        if (result < 0) fail("ioctl", std::to_string(request).c_str());
        return result;
    }

    /// Gives rights up, for good and for every holder of the device fd; see postern_restrict_*(). Where the
    /// grant has no device fd, of the dma-bufs of its windows.
    void restrict_ioctl(unsigned long request) const {
        given_up("ioctl", postern_restrict_ioctl(grant_->device_fd, request));
    }
    void restrict_ioctls() const { give_up("all ioctls", postern_restrict_ioctls); }
    /// lose: POSTERN_READ, POSTERN_WRITE, POSTERN_MMAP, POSTERN_PREAD, or several.
    void restrict_window(const char* name, int lose) const {
        given_up(name, postern_restrict_window(grant_.get(), &window(name), lose));
    }
    void restrict_write() const { give_up("all writing", postern_restrict_write); }
    void restrict_forward() const { give_up("handing it on", postern_restrict_forward); }

  private:
    struct Close {
        void operator()(postern_grant* grant) const { postern_close(grant); }
    };

    [[noreturn]] static void fail(const char* what, const char* name) {
        const int errnum = errno;
        throw std::system_error(errnum, std::generic_category(),
                                std::string("postern: ") + what + " " + name);
    }

    static void given_up(const char* what, int result) {
        if (result < 0) fail("giving up", what);
    }

    /// Of every file that leads to the device.
    void give_up(const char* what, int (*restrict)(int)) const {
        if (grant_->device_fd >= 0 || grant_->window_count == 0) given_up(what, restrict(grant_->device_fd));
        for (size_t i = 0; grant_->device_fd < 0 && i < grant_->window_count; i++)
            given_up(what, restrict(grant_->windows[i].mmap_fd));
    }

    template <typename T>
    static T* known(const char* what, const char* name, T* entry) {
        if (entry == nullptr) fail(what, name);
        return entry;
    }

    std::unique_ptr<postern_grant, Close> grant_;
};

}  // namespace postern::client
