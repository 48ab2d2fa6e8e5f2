// One direction of a stream: at most RELAY_ROOM bytes wait in it, and then its writer waits; nobody else does.
#include "agent.h"

/// What was received and is not read would make a Unix socket's close an error for the host, which shall find an end.
static void discard_received(int socket) {
    u8 bytes[4096];
    for (int i = 0; i < 256 && sys_recv(socket, bytes, sizeof bytes, MSG_DONTWAIT) > 0; i++) {}
}

static void close_from(struct relay *relay) {
    if (relay->from < 0) return;
    if (relay->from_socket) discard_received(relay->from);
    sys_close(relay->from);
    relay->from = -1;
}

static void close_to(struct relay *relay) {
    if (relay->to < 0) return;
    // A child on its way to exec may still have the socket, and a close alone would end nothing.
    if (relay->to_socket) sys_shutdown(relay->to, SHUT_WR);
    sys_close(relay->to);
    relay->to = -1;
}

void relay_close(struct relay *relay) {
    close_from(relay);
    close_to(relay);
    release(relay->buffer, RELAY_ROOM);
    relay->buffer = NULL;
    relay->count = relay->framed = 0;
}

static int unblock(int fd) {
    int flags = sys_fcntl(fd, F_GETFL, 0);
    return flags < 0 ? flags : sys_fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

int relay_open(struct relay *relay, int from, bool from_socket, int to, bool to_socket) {
    *relay = (struct relay){
        .from = from, .to = to, .from_socket = from_socket, .to_socket = to_socket, .left = -1, .buffer = pages(RELAY_ROOM),
        .from_slot = -1, .to_slot = -1,
    };
    int error = relay->buffer ? 0 : -ENOMEM;
    if (error == 0) error = unblock(from);
    if (error == 0) error = unblock(to);
    return error;
}

int relay_collect(struct relay *relay, int from, u32 number, u32 stream) {
    *relay = (struct relay){
        .from = from, .to = -1, .number = number, .stream = stream, .framed = COLLECTED_LIMIT, .left = -1, .buffer = pages(RELAY_ROOM),
        .from_slot = -1, .to_slot = -1,
    };
    return relay->buffer ? unblock(from) : -ENOMEM;
}

bool relay_is_open(const struct relay *relay) { return relay->to >= 0 || relay->framed > 0; }

static size_t room(const struct relay *relay) {
    size_t room = RELAY_ROOM - relay->start - relay->count;
    return relay->left >= 0 && (u64)relay->left < room ? (size_t)relay->left : room;
}

void relay_poll(struct relay *relay, struct poll_set *set) {
    relay->from_slot = relay->to_slot = -1;
    if (!relay_is_open(relay)) return;
    if (relay->from >= 0 && room(relay) > 0) {
        // Of what a command left behind nothing more may ever come.
        if (relay->draining) set->at_once = true;
        else relay->from_slot = poll_add(set, relay->from, POLLIN);
    }
    if (relay->to < 0) return;
    // A reader that goes is noticed before the next byte, so that its writer can be told. Of a vsock connection whose other
    // side is closed already poll tells nothing more; then it is tried now and then.
    if (relay->half_closed) set->soon = true;
    int waiting = relay->to_socket && !relay->half_closed ? POLLRDHUP : 0;
    relay->to_slot = poll_add(set, relay->to, (relay->count > 0 ? POLLOUT : 0) | waiting);
}

static void take(struct relay *relay) {
    size_t most = room(relay);
    if (most > 0) {
        long got = sys_read(relay->from, relay->buffer + relay->start + relay->count, most);
        if (got == -EINTR || (got == -EAGAIN && !relay->draining)) return;
        if (got > 0) {
            relay->count += (size_t)got;
            if (relay->left >= 0) relay->left -= got;
        } else {
            // An end; for a terminal's that is an error. For what drains it is that there is no more.
            close_from(relay);
            return;
        }
    }
    if (relay->left == 0) close_from(relay);
}

static void gave(struct relay *relay, size_t count) {
    relay->start += count;
    relay->count -= count;
    if (relay->count == 0) relay->start = 0;
}

/// Says bytes in frames, as many as may be, and then makes the connection for more.
/// - Returns: false where there is none to be had.
static bool give_framed(struct relay *relay) {
    while (relay->count > 0 && relay->framed > 0) {
        size_t count = relay->count < relay->framed ? relay->count : relay->framed;
        if (count > TEXT_LIMIT) count = TEXT_LIMIT;
        struct frame frame;
        frame_start(&frame, FRAME_OUTPUT);
        frame_number(&frame, 1, relay->number);
        frame_number(&frame, 2, relay->stream);
        frame_bytes(&frame, 3, relay->buffer + relay->start, count);
        control_send(&frame);
        relay->framed -= count;
        gave(relay, count);
    }
    if (relay->framed > 0) return true;
    relay->to = connect_stream(relay->number, relay->stream);
    relay->to_socket = true;
    return relay->to >= 0 && unblock(relay->to) >= 0;
}

/// - Returns: false where nobody reads any more.
static bool give(struct relay *relay) {
    if (relay->framed > 0 && !give_framed(relay)) return false;
    if (relay->count == 0 || relay->to < 0) return true;
    const u8 *bytes = relay->buffer + relay->start;
    long done = relay->to_socket ? sys_sendto(relay->to, bytes, relay->count, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0)
                                 : sys_write(relay->to, bytes, relay->count);
    if (done == -EAGAIN || done == -EINTR) return true;
    if (done < 0) return false;
    gave(relay, (size_t)done);
    return true;
}

/// Whether there is still a reader, where poll has said that something ended. The host may have closed its own side of an
/// output only; then sending nothing succeeds.
static bool has_reader(struct relay *relay) {
    if (!relay->to_socket || sys_sendto(relay->to, NULL, 0, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0) < 0) return false;
    relay->half_closed = true;
    return true;
}

void relay_step(struct relay *relay, int from_events, int to_events) {
    if (!relay_is_open(relay)) return;
    if ((to_events & (POLLERR | POLLHUP | POLLNVAL | POLLRDHUP)) || relay->half_closed) {
        if (!has_reader(relay)) {
            relay_close(relay);
            return;
        }
    }
    bool taken = relay->from >= 0 && (from_events || relay->draining);
    if (taken) take(relay);
    if (relay->count > 0 && (taken || to_events) && !give(relay)) {
        relay_close(relay);
        return;
    }
    if (relay->from < 0 && relay->count == 0) relay_close(relay);
}

void relay_drain(struct relay *relay, i64 limit) {
    if (!relay_is_open(relay)) return;
    relay->draining = true;
    relay->left = limit;
    if (relay->from >= 0 && limit == 0) close_from(relay);
    relay_step(relay, 0, 0);
}
