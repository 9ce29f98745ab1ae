// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_listener.h"
#include "broker-core/duplicate_fd.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>

namespace postern {
namespace {

/// Slots that launchers do not take.
constexpr unsigned kForPeople = 4;

Status write_listener(int listeners, uint32_t slot, const postern_listener& value) {
    if (::bpf_map_update_elem(listeners, &slot, &value, BPF_ANY) == 0) return {};
    const int error = errno;
    return fail_errno(error, "the guard: cannot write listener {}", slot);
}

/// In this order: once `active` is 0, nothing new looks for the buffer.
Status switch_off(int listeners, int rings, uint32_t slot) {
    POSTERN_TRY(write_listener(listeners, slot, {}));
    if (::bpf_map_delete_elem(rings, &slot) == 0 || errno == ENOENT) return {};
    const int error = errno;
    return fail_errno(error, "the guard: cannot take away the buffer of listener {}", slot);
}

int hand_over(void* context, void* data, size_t size) {
    const GuardListener::Handler* handler = *static_cast<const GuardListener::Handler**>(context);
    if (handler != nullptr && size >= sizeof(postern_event))
        (*handler)(*static_cast<const postern_event*>(data));
    return 0;
}

}  // namespace

Result<GuardListener> GuardListener::open(const GuardPins& pins, Who who, uint64_t sandbox) {
    const unsigned usable = POSTERN_MAX_LISTENERS - (who == Who::Launcher ? kForPeople : 0);
    std::optional<GuardSlot> slot;
    // People from the top, so that launchers find theirs quickly.
    for (unsigned i = 0; i < usable && !slot; ++i) {
        POSTERN_ASSIGN(slot, GuardSlot::try_take(who == Who::Launcher ? i : POSTERN_MAX_LISTENERS - 1 - i));
    }
    if (!slot) {
        return Failure(
            Error{fmt::format("the guard: {} listeners listen already; end one of them", usable), EBUSY});
    }
    const uint32_t number = slot->number();
    POSTERN_ASSIGN(UniqueFd rings, duplicate_fd(pins.rings(), "the guard's map of rings"));
    POSTERN_ASSIGN(UniqueFd listeners, duplicate_fd(pins.listeners(), "the guard's map of listeners"));
    GuardListener listener(std::move(*slot), std::move(rings), std::move(listeners));

    // Whose owner was killed may still be filled.
    POSTERN_TRY(switch_off(listener.listeners_.get(), listener.rings_.get(), number));
    listener.buffer_.reset(
        ::bpf_map_create(BPF_MAP_TYPE_RINGBUF, "postern_events", 0, 0, POSTERN_EVENTS_SIZE, nullptr));
    if (!listener.buffer_) {
        const int error = errno;
        return fail_errno(error, "the guard: cannot make a buffer for its refusals");
    }
    listener.ring_.reset(
        ::ring_buffer__new(listener.buffer_.get(), hand_over, listener.handler_.get(), nullptr));
    if (!listener.ring_) {
        const int error = errno;
        return fail_errno(error, "the guard: cannot map the buffer of its refusals");
    }
    const int buffer = listener.buffer_.get();
    if (::bpf_map_update_elem(listener.rings_.get(), &number, &buffer, BPF_ANY) != 0) {
        const int error = errno;
        return fail_errno(error, "the guard: cannot hand it a buffer for its refusals");
    }
    POSTERN_TRY(
        write_listener(listener.listeners_.get(), number, {.active = 1, .sandbox = sandbox, .lost = 0}));
    return listener;
}

Status GuardListener::sweep(const GuardPins& pins) {
    for (uint32_t i = 0; i < POSTERN_MAX_LISTENERS; ++i) {
        postern_listener found{};
        if (::bpf_map_lookup_elem(pins.listeners(), &i, &found) != 0 || found.active == 0) continue;
        POSTERN_ASSIGN(const auto slot, GuardSlot::try_take(i));
        if (slot) POSTERN_TRY(switch_off(pins.listeners(), pins.rings(), i));
    }
    return {};
}

Result<std::vector<unsigned>> GuardListener::held() {
    std::vector<unsigned> found;
    for (unsigned i = 0; i < POSTERN_MAX_LISTENERS; ++i) {
        POSTERN_ASSIGN(const auto slot, GuardSlot::try_take(i));
        if (!slot) found.push_back(i);
    }
    return found;
}

GuardListener::~GuardListener() {
    // Moved from, or never switched on. The slot is locked, so nobody else writes there.
    if (buffer_) (void)switch_off(listeners_.get(), rings_.get(), slot_.number());
}

void GuardListener::FreeRing::operator()(ring_buffer* ring) const {
    ::ring_buffer__free(ring);
}

int GuardListener::fd() const {
    return ::ring_buffer__epoll_fd(ring_.get());
}

Status GuardListener::read(const Handler& handler) {
    *handler_ = &handler;
    const int read = ::ring_buffer__consume(ring_.get());
    *handler_ = nullptr;
    if (read >= 0) return {};
    return fail_errno(-read, "the guard: cannot read its refusals");
}

Result<uint64_t> GuardListener::lost() const {
    const uint32_t number = slot_.number();
    postern_listener found{};
    if (::bpf_map_lookup_elem(listeners_.get(), &number, &found) == 0) return found.lost;
    const int error = errno;
    return fail_errno(error, "the guard: cannot read what listener {} has lost", number);
}

}  // namespace postern
