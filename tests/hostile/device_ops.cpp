// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/device_ops.h"

#include <fmt/format.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace postern::hostile {
namespace {

long ask_region(int fd, unsigned long request) {
    vfio_region_info info{};
    info.argsz = sizeof info;
    info.index = VFIO_PCI_CONFIG_REGION_INDEX;
    return ioctl(fd, request, &info);
}

long ask_irq(int fd, unsigned long request) {
    vfio_irq_info info{};
    info.argsz = sizeof info;
    info.index = VFIO_PCI_MSIX_IRQ_INDEX;
    return ioctl(fd, request, &info);
}

long ask_device(int fd, unsigned long request) {
    vfio_device_info info{};
    info.argsz = sizeof info;
    return ioctl(fd, request, &info);
}

constexpr std::array kQuestions{
    Question{"VFIO_DEVICE_GET_REGION_INFO", vfio_request(8), ask_region},
    Question{"VFIO_DEVICE_GET_IRQ_INFO", vfio_request(9), ask_irq},
    Question{"VFIO_DEVICE_GET_INFO", vfio_request(7), ask_device},
};

bool overlaps(off_t start, size_t length, off_t other_start, size_t other_length) {
    return start < other_start + static_cast<off_t>(other_length) &&
           other_start < start + static_cast<off_t>(length);
}

}  // namespace

std::span<const Question> questions() {
    return kQuestions;
}

const Question* refused_question(const Target& target) {
    for (const Question& question : kQuestions) {
        if (!target.granted(question.name) && !target.ruled(question.name)) return &question;
    }
    return nullptr;
}

const Question* granted_question(const Target& target) {
    for (const Question& question : kQuestions) {
        if (target.granted(question.name)) return &question;
    }
    return nullptr;
}

Attempt ask_refused(const Target& target, int fd) {
    const Question* question = refused_question(target);
    if (question == nullptr) return nothing("the profile grants every ioctl that only asks");
    return judged(question->ask(fd, question->request), question->name);
}

Attempt ask_granted(const Target& target, int fd) {
    if (const Question* question = granted_question(target)) {
        return judged(question->ask(fd, question->request), question->name);
    }
    int ends[2];
    if (pipe(ends) != 0) return preparation_failed("pipe");
    int waiting = 0;
    return judged(ioctl(ends[0], FIONREAD, &waiting), "FIONREAD on a pipe");
}

bool overlaps_a_window(const Target& target, off_t device_offset, size_t length) {
    return std::any_of(target.windows.begin(), target.windows.end(), [&](const Window& window) {
        return overlaps(window.device_offset(), window.length, device_offset, length);
    });
}

bool overlaps_a_mapping(const Target& target, off_t device_offset, size_t length) {
    return std::any_of(target.windows.begin(), target.windows.end(), [&](const Window& window) {
        return window.by_mmap() && overlaps(window.device_offset(), window.length, device_offset, length);
    });
}

off_t foreign_page(const Target& target) {
    const Window* own = target.mapped();
    if (own == nullptr) return 0;
    off_t page = own->device_offset();
    while (page > region_start(own->region)) {
        page -= static_cast<off_t>(kPage);
        if (!overlaps_a_window(target, page, kPage)) return page;
    }
    page = own->device_offset();
    while (overlaps_a_window(target, page, kPage)) page += static_cast<off_t>(kPage);
    return page;
}

Attempt map(int fd, size_t length, int prot, int flags, off_t offset) {
    void* mapping = mmap(nullptr, length, prot, flags, fd, offset);
    if (mapping == MAP_FAILED) return judged(-1);
    munmap(mapping, length);
    return succeeded(fmt::format("mapped {} bytes at {}", length, hex(static_cast<uint64_t>(offset))));
}

Attempt map_foreign(const Target& target, int fd) {
    return map(fd, kPage, PROT_READ, MAP_SHARED, foreign_page(target));
}

Attempt map_own(const Target& target) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    return map(own->mmap_fd, own->length, own->prot(), MAP_SHARED, own->mmap_offset);
}

int control_memfd() {
    const int fd = memfd_create("control", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -1;
    if (write(fd, "memfd", 5) != 5 || ftruncate(fd, kPage) != 0 || lseek(fd, 0, SEEK_SET) != 0) {
        const int errnum = errno;
        close(fd);
        errno = errnum;
        return -1;
    }
    return fd;
}

Control ioctl_control() {
    return {"a granted ioctl on the device, or FIONREAD on a pipe",
            [](const Target& target) { return ask_granted(target, target.device); }};
}

Control mmap_control() {
    return {"mmap of the client's own window", map_own};
}

std::string hex(uint64_t value) {
    return fmt::format("{:#x}", value);
}

}  // namespace postern::hostile
