// How long the first interface's address is held, and what is done for that. Source: [RFC2131 §4.4].
//
//     SELECTING --offer--> REQUESTING --ack--> BOUND --T1--> RENEWING --T2--> REBINDING --end--> SELECTING
//
// An ack leads from RENEWING and REBINDING back to BOUND, and a refusal from everywhere to SELECTING. While the lease is BOUND nothing is
// open but a timer, and where it has no end not even that: a guest that does nothing is woken by nothing.
//
// The clock is that which goes on while the machine sleeps: a lease that ended meanwhile is not held on to.
#include "agent.h"

enum { NONE, SELECTING, REQUESTING, BOUND, RENEWING, REBINDING };
enum { REQUESTS = 3, PAUSE_LIMIT = 64000, FIRST_PAUSE = 100, LATER_PAUSE = 4000, RENEWAL_PAUSE = 60000, PACKETS = 16 };
#define NEVER UINT64_MAX

static struct {
    int state;
    struct dhcp_link link;
    bool is_first;           // there was no lease yet, and somebody waits for one
    u64 begun, sent;         // an exchange, and its last message
    u64 next, pause;         // when something is to be done, and how long after that again
    u64 rebind, end;         // the lease's times
    u32 requests;            // for one offer
    struct lease lease, offer;
    int timer, timer_slot, link_slot;
} client;

static u64 now_of_boot(void) {
    struct timespec time = { 0, 0 };
    sys_clock_gettime(CLOCK_BOOTTIME, &time);
    return (u64)time.seconds * 1000 + (u64)time.nanoseconds / 1000000;
}

/// Anything that others in the same network do not have at the same time.
static u32 any(void) {
    static u32 last;
    struct timespec time = { 0, 0 };
    sys_clock_gettime(CLOCK_REALTIME, &time);
    return last = (last + (u32)time.nanoseconds) * 2654435761U ^ (u32)time.seconds ^ little32(client.link.hardware + 2);
}

static u64 least(u64 a, u64 b) { return a < b ? a : b; }
static u64 most(u64 a, u64 b) { return a > b ? a : b; }

// MARK: Asking

/// Another exchange: answers to those before are none to this.
static void begin(int state, u64 now) {
    client.state = state;
    client.begun = client.next = now;
    client.link.transaction = any();
}

/// How long to wait for an answer: twice as long each time, and not always the same, so that many do not go on asking all at once.
static u64 wait_longer(void) {
    u64 pause = client.pause;
    client.pause = least(pause * 2, PAUSE_LIMIT);
    return pause < LATER_PAUSE ? pause : pause - 1000 + any() % 2001;
}

static void select(u64 now) {
    begin(SELECTING, now);
    client.requests = 0;
    client.pause = client.is_first ? FIRST_PAUSE : LATER_PAUSE;
}

static void send(u8 type, const struct lease *lease, u32 to, u64 now) {
    client.sent = now;
    dhcp_send(&client.link, type, lease, to, (u32)least((now - client.begun) / 1000, UINT32_MAX));
}

/// Does what the time has come for. - Returns: 0, or a negative errno where there is no socket; then it is tried again in its time.
static int act(u64 now) {
    if (client.state == BOUND) begin(RENEWING, now);
    if (client.state == RENEWING && now >= client.rebind) client.state = REBINDING;
    if (client.state >= RENEWING && now >= client.end) {
        lease_lost(&client.lease, "no DHCP server renewed the lease, which has ended: the address is taken from ");
        select(now);
    }
    // Whoever offered may be gone: others are asked again.
    if (client.state == REQUESTING && client.requests == REQUESTS) select(now);

    bool has_address = client.state >= RENEWING;
    int error = dhcp_open(&client.link, !has_address);
    switch (client.state) {
    case SELECTING:
        if (error == 0) send(DHCP_DISCOVER, NULL, 0, now);
        client.next = now + wait_longer();
        break;
    case REQUESTING:
        client.requests++;
        if (error == 0) send(DHCP_REQUEST, &client.offer, 0, now);
        client.next = now + wait_longer();
        break;
    case RENEWING: case REBINDING: {
        bool to_all = client.state == REBINDING || client.lease.server == 0;
        u64 limit = client.state == REBINDING ? client.end : client.rebind;
        if (error == 0) send(DHCP_REQUEST, &client.lease, to_all ? UINT32_MAX : client.lease.server, now);
        client.next = least(limit, now + most(RENEWAL_PAUSE, (limit - now) / 2));
        break;
    }
    }
    return error;
}

// MARK: Hearing

static u32 class_mask(u32 address) {
    u8 first = (u8)address;
    return first < 128 ? 0xFF : first < 192 ? 0xFFFF : 0xFFFFFF;
}

/// When the lease is to be renewed, and when it ends.
static void reckon(void) {
    const struct lease *lease = &client.lease;
    client.next = NEVER;
    if (lease->seconds == LEASE_FOREVER) return;
    u64 whole = most(lease->seconds, 1) * 1000, renew = whole / 2, rebind = whole / 8 * 7;
    u64 said = lease->renew ? lease->renew * 1000ULL : renew, then = lease->rebind ? lease->rebind * 1000ULL : rebind;
    if (said < then && then < whole) renew = said, rebind = then;
    client.end = client.sent + whole;
    client.rebind = client.sent + rebind;
    // Not all the guests that were started together.
    client.next = client.sent + renew - any() % (renew / 16 + 1);
}

static void take(struct lease *lease) {
    bool had = client.state >= RENEWING;
    const struct lease *before = had ? &client.lease : &client.offer;
    if (!lease->server) lease->server = before->server;
    if (!lease->mask) lease->mask = had && before->address == lease->address ? before->mask : class_mask(lease->address);
    lease_taken(lease, had ? before : NULL);
    client.lease = *lease;
    client.state = BOUND;
    client.is_first = false;
    dhcp_close(&client.link);
    reckon();
}

static void refuse(u64 now) {
    if (client.state >= RENEWING) lease_lost(&client.lease, "the DHCP server refused to renew the lease: the address is taken from ");
    u64 pause = client.pause;
    bool again = client.state == REQUESTING;
    select(now);
    // A server that offers what it refuses is not asked as fast as it answers.
    if (again) client.next = now + pause;
}

static void hear(u8 type, struct lease *lease, u64 now) {
    u32 server = client.state == REQUESTING ? client.offer.server : client.state == RENEWING ? client.lease.server : 0;
    if (type == DHCP_OFFER && client.state == SELECTING && lease->address) {
        client.offer = *lease;
        client.state = REQUESTING;
        client.next = now;
        client.pause = client.is_first ? 2 * FIRST_PAUSE : LATER_PAUSE;
    } else if (type == DHCP_ACK && client.state != SELECTING && lease->address) {
        take(lease);
    } else if (type == DHCP_NAK && client.state != SELECTING && (!server || !lease->server || server == lease->server)) {
        refuse(now);
    }
}

/// Hears what there is, some of it, and does what it is time for.
static int step(bool readable) {
    u64 now = now_of_boot();
    struct lease lease;
    for (int i = 0, type; readable && i < PACKETS && client.link.fd >= 0 && (type = dhcp_receive(&client.link, &lease)) >= 0; i++)
        hear((u8)type, &lease, now);
    return now >= client.next ? act(now) : 0;
}

// MARK: Waiting

int lease_first(int index, const char *name, const u8 hardware[6], u64 limit) {
    client.link = (struct dhcp_link){ .fd = -1, .index = index, .name = name };
    memcpy(client.link.hardware, hardware, 6);
    client.timer = -1;
    client.is_first = true;
    u64 now = now_of_boot(), until = now + limit;
    select(now);
    int error = step(false);
    while (error == 0 && client.state != BOUND) {
        if ((now = now_of_boot()) >= until) {
            error = -ETIMEDOUT;
            break;
        }
        u64 left = least(client.next, until), mask = 0;
        left = left > now ? left - now : 0;
        struct timespec wait = { (i64)(left / 1000), (i64)(left % 1000) * 1000000 };
        struct pollfd fd = { .fd = client.link.fd, .events = POLLIN };
        error = step(sys_ppoll(&fd, 1, &wait, &mask) > 0);
    }
    if (error < 0) {
        dhcp_close(&client.link);
        client.state = NONE;
        return error;
    }
    return 0;
}

/// Has the timer tell when there is something to do.
static void set_timer(void) {
    struct itimerspec time = { 0 };
    if (client.next != NEVER)
        time.value = (struct timespec){ (i64)(client.next / 1000), (i64)(client.next % 1000) * 1000000 };
    sys_timerfd_settime(client.timer, &time);
}

static void start_timer(void) {
    client.timer = sys_timerfd_create(CLOCK_BOOTTIME);
    if (client.timer >= 0) {
        set_timer();
        return;
    }
    // Rather an address for too long than none.
    client.state = NONE;
    note("network: the lease is not renewed, for the kernel has no timers that are files (CONFIG_TIMERFD)");
}

void lease_poll(struct poll_set *set) {
    client.timer_slot = client.link_slot = -1;
    if (client.state == NONE) return;
    if (client.timer < 0 && client.next != NEVER) start_timer();
    if (client.timer >= 0) client.timer_slot = poll_add(set, client.timer, POLLIN);
    if (client.link.fd >= 0) client.link_slot = poll_add(set, client.link.fd, POLLIN);
}

void lease_step(const struct poll_set *set) {
    bool readable = poll_result(set, client.link_slot) != 0;
    if (!readable && !poll_result(set, client.timer_slot)) return;
    step(readable);
    // Which also takes back that it has told.
    set_timer();
}
