// The connection to the host, and the loop that everything happens in.
#include "agent.h"

static int control;
static bool is_ready;
/// What is said of commands in one turn goes together: each packet is work for both sides.
static bool is_gathering;

// MARK: To the host

/// What the host has not taken yet.
static struct { u8 *bytes; size_t room, start, count; } queue;
enum { QUEUE_LIMIT = 64 << 20 };

static void flush(void) {
    while (queue.count > 0) {
        long done = sys_sendto(control, queue.bytes + queue.start, queue.count, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
        if (done == -EINTR) continue;
        if (done == -EAGAIN) return;
        // That nobody is there is seen where it is read.
        if (done < 0) done = (long)queue.count;
        queue.start += (size_t)done;
        queue.count -= (size_t)done;
    }
    queue.start = 0;
}

void control_send(struct frame *frame) {
    frame_finish(frame);
    if (queue.room - queue.start - queue.count < frame->count) {
        // As long as the host reads this stays as small as it began.
        if (queue.start > 0) memmove(queue.bytes, queue.bytes + queue.start, queue.count), queue.start = 0;
        if (queue.room - queue.count < frame->count) {
            size_t room = queue.room ? queue.room * 2 : 65536;
            u8 *larger = room <= QUEUE_LIMIT ? pages(room) : NULL;
            if (!larger) leave(1);
            memcpy(larger, queue.bytes, queue.count);
            release(queue.bytes, queue.room);
            queue.bytes = larger;
            queue.room = room;
        }
    }
    memcpy(queue.bytes + queue.start + queue.count, frame->bytes, frame->count);
    queue.count += frame->count;
    if (!is_gathering) flush();
}

static void send_empty(u16 kind) {
    struct frame frame;
    frame_start(&frame, kind);
    control_send(&frame);
}

void note(const char *text) {
    struct frame frame;
    frame_start(&frame, FRAME_NOTE);
    frame_text(&frame, 1, text);
    control_send(&frame);
}

static void say_hello(void) {
    struct utsname system = { 0 };
    sys_uname(&system);
    u64 mask[128];
    u32 processors = 0;
    long size = sys_affinity(mask, sizeof mask);
    for (long i = 0; i < size / 8; i++)
        for (u64 word = mask[i]; word; word &= word - 1) processors++;
    struct frame frame;
    frame_start(&frame, FRAME_HELLO);
    frame_number(&frame, 1, PROTOCOL_VERSION);
    frame_text(&frame, 2, system.release);
    frame_number(&frame, 3, processors ? processors : 1);
    control_send(&frame);
}

// MARK: What the host says

static _Noreturn void broken(const char *what) {
    struct line line = { 0 };
    put(&line, "the host broke the protocol: ");
    put(&line, what);
    say(&line);
    leave(1);
}

static void hear_setup(u8 *payload, size_t count) {
    if (is_ready) broken("a second set-up");
    struct setup setup;
    if (!parse_setup(payload, count, &setup)) broken("a bad set-up");
    struct failure failure = { 0 };
    // Where it is not the machine's first process there is nothing of its own to set up.
    if (!is_init || set_up(&setup, &failure)) {
        is_ready = true;
        send_empty(FRAME_READY);
    } else {
        struct frame frame;
        frame_start(&frame, FRAME_SETUP_FAILED);
        frame_number(&frame, 1, (u32)failure.error);
        frame_text(&frame, 2, failure.what.text);
        if (failure.module) frame_text(&frame, 3, failure.module);
        control_send(&frame);
    }
    release(setup.shares, setup.shares_mapped);
}

static void hear_start(u8 *payload, size_t count) {
    struct start start;
    if (!is_ready) broken("a start before the set-up");
    if (!parse_start(payload, count, &start)) broken("a bad start");
    if (!command_start(&start)) broken("a command's number that is in use");
    release(start.arguments, start.mapped);
}

/// Fields 1 to `count` of a frame that has nothing but numbers.
static void numbers(const u8 *payload, size_t size, u32 *values, u16 count) {
    if (!fields_are_whole(payload, size)) broken("fields that are not whole");
    u32 seen = 0;
    for (size_t offset = 0; offset < size;) {
        u16 tag = little16(payload + offset);
        u32 length = little32(payload + offset + 4);
        offset += FIELD_HEADER;
        if (tag >= 1 && tag <= count) {
            if (length != 4) broken("a number that is not 32 bits");
            values[tag - 1] = little32(payload + offset);
            seen |= 1U << tag;
        }
        offset += length;
    }
    if (seen != (1U << (count + 1)) - 2) broken("a field that is missing");
}

static _Noreturn void shut_down(void) {
    enum { LIMIT = 5000 };
    u64 until = now_milliseconds() + LIMIT;
    if (is_init) sys_kill(-1, SIGKILL);
    else commands_kill();
    // One that waits for a device may not be ended by anything.
    int status, pid;
    while ((pid = sys_wait(&status, WNOHANG)) != -ECHILD && now_milliseconds() < until)
        if (pid == 0) sleep_milliseconds(1);
    if (is_init) unmount_all();
    send_empty(FRAME_GOODBYE);
    for (;;) {
        struct pollfd fd = { .fd = control, .events = (short)(queue.count ? POLLOUT : POLLIN) };
        if (queue.count == 0 && !is_init) leave(0);
        u64 none = 0;
        sys_ppoll(&fd, 1, NULL, &none);
        u8 bytes[512];
        if (queue.count) {
            flush();
        } else if (fd.revents) {
            // The host stops the machine, or lets go of it.
            long got = sys_recv(control, bytes, sizeof bytes, MSG_DONTWAIT);
            if (got == 0 || (got < 0 && got != -EAGAIN && got != -EINTR)) leave(0);
        }
    }
}

static void hear(u16 kind, u8 *payload, size_t count) {
    u32 values[3];
    switch (kind) {
    case FRAME_SETUP: hear_setup(payload, count); break;
    case FRAME_START: hear_start(payload, count); break;
    case FRAME_SIGNAL:
        numbers(payload, count, values, 2);
        command_signal(values[0], values[1]);
        break;
    case FRAME_RESIZE:
        numbers(payload, count, values, 3);
        command_resize(values[0], values[1], values[2]);
        break;
    case FRAME_SHUT_DOWN: shut_down();
    }
}

/// The frame that is coming in.
static struct { u8 header[FRAME_HEADER]; size_t header_count; u8 *payload; size_t size, count; } incoming;

/// Takes what is there, up to some number of reads, so that streams have their turn too.
static void receive(void) {
    static u8 no_payload[1];
    for (int turn = 0; turn < 8; turn++) {
        bool in_header = incoming.header_count < FRAME_HEADER;
        u8 *place = in_header ? incoming.header + incoming.header_count : incoming.payload + incoming.count;
        size_t wanted = in_header ? FRAME_HEADER - incoming.header_count : incoming.size - incoming.count;
        if (wanted > 0) {
            long got = sys_recv(control, place, wanted, MSG_DONTWAIT);
            if (got == -EINTR) continue;
            if (got == -EAGAIN) return;
            if (got <= 0) leave(1);
            if (!in_header) {
                incoming.count += (size_t)got;
            } else if ((incoming.header_count += (size_t)got) == FRAME_HEADER) {
                incoming.size = little32(incoming.header);
                incoming.count = 0;
                if (incoming.size > INCOMING_LIMIT) broken("a frame that is too long");
                if (little16(incoming.header + 6) != 0) broken("a frame's header");
                // And a byte for the zero behind its last text.
                incoming.payload = incoming.size ? pages(incoming.size + 1) : no_payload;
                if (!incoming.payload) broken("a frame that there is no memory for");
            }
        }
        if (incoming.header_count == FRAME_HEADER && incoming.count == incoming.size) {
            hear(little16(incoming.header + 4), incoming.payload, incoming.size);
            if (incoming.size) release(incoming.payload, incoming.size + 1);
            incoming.header_count = 0;
        }
    }
}

// MARK: The loop

int poll_add(struct poll_set *set, int fd, int events) {
    if (set->count == set->room) {
        size_t room = set->room ? set->room * 2 : 256;
        struct pollfd *larger = pages(room * sizeof *larger);
        if (!larger) return -1;
        memcpy(larger, set->fds, set->count * sizeof *larger);
        release(set->fds, set->room * sizeof *larger);
        set->fds = larger;
        set->room = room;
    }
    set->fds[set->count] = (struct pollfd){ .fd = fd, .events = (short)events };
    return (int)set->count++;
}

int poll_result(const struct poll_set *set, int slot) { return slot < 0 ? 0 : set->fds[slot].revents; }

_Noreturn void serve(int connection) {
    control = connection;
    say_hello();
    struct poll_set set = { 0 };
    for (;;) {
        set.count = 0;
        set.at_once = set.soon = false;
        int slot = poll_add(&set, control, POLLIN | (queue.count ? POLLOUT : 0));
        commands_poll(&set);
        lease_poll(&set);
        // A child's end comes as a signal, which is let in here and nowhere else.
        static const struct timespec none = { 0, 0 }, soon = { 0, 250000000 };
        u64 mask = 0;
        if (sys_ppoll(set.fds, set.count, set.at_once ? &none : set.soon ? &soon : NULL, &mask) < 0)
            for (size_t i = 0; i < set.count; i++) set.fds[i].revents = 0;
        is_gathering = true;
        reap();
        commands_step(&set);
        lease_step(&set);
        is_gathering = false;
        flush();
        if (poll_result(&set, slot) & ~POLLOUT) receive();
    }
}
