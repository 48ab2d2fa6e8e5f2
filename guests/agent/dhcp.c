// A DHCP client for one address, which is kept for the guest's life and not renewed. Source: [RFC2131], [RFC2132].
//
// Before there is an address no ordinary socket receives what is sent to it, so packets are made and read here, IP header
// included; the frames around them are the kernel's.
#include "agent.h"

enum { MESSAGE_DISCOVER = 1, MESSAGE_OFFER = 2, MESSAGE_REQUEST = 3, MESSAGE_ACK = 5, MESSAGE_NAK = 6 };
enum {
    OPTION_MASK = 1, OPTION_ROUTER = 3, OPTION_DNS = 6, OPTION_DOMAIN = 15, OPTION_MTU = 26, OPTION_REQUESTED = 50,
    OPTION_LEASE = 51, OPTION_OVERLOAD = 52, OPTION_TYPE = 53, OPTION_SERVER = 54, OPTION_WANTED = 55, OPTION_CLIENT = 61,
    OPTION_ROUTES = 121, OPTION_END = 255,
};
enum { IP_HEADER = 20, UDP_HEADER = 8, FIXED = 236, COOKIE = 4, PACKET_LIMIT = 1500, ETHERTYPE_IP = 0x0800, BROADCAST = 0x80 };

/// struct sockaddr_ll.
struct link_address { u16 family, protocol; int index; u16 type; u8 packet, length, address[8]; };

struct client { int fd, index; u8 hardware[6]; u32 transaction; };

static u16 big16(const u8 *bytes) { return (u16)(bytes[0] << 8 | bytes[1]); }
static u32 big32(const u8 *bytes) { return (u32)big16(bytes) << 16 | big16(bytes + 2); }
static void put_big16(u8 *bytes, u32 value) {
    bytes[0] = (u8)(value >> 8);
    bytes[1] = (u8)value;
}
/// An address as it stands in a packet and in the kernel's structures.
static u32 as_is(const u8 *bytes) { return little32(bytes); }
static u32 mask_of(u32 bits) { return bits == 0 ? 0 : __builtin_bswap32(UINT32_MAX << (32 - bits)); }

static u32 sum(u32 total, const u8 *bytes, size_t count) {
    for (; count > 1; bytes += 2, count -= 2) total += big16(bytes);
    if (count) total += (u32)*bytes << 8;
    return total;
}

static u16 checksum(u32 total) {
    while (total >> 16) total = (total & 0xFFFF) + (total >> 16);
    return (u16)~total;
}

// MARK: Sending

static u8 *option(u8 *place, u8 code, u8 count, const void *bytes) {
    place[0] = code;
    place[1] = count;
    memcpy(place + 2, bytes, count);
    return place + 2 + count;
}

/// - Parameter offer: what is asked for; NULL before there is one.
static int send_message(const struct client *client, u8 type, const struct lease *offer, u32 seconds) {
    u8 packet[IP_HEADER + UDP_HEADER + FIXED + COOKIE + 64];
    memset(packet, 0, sizeof packet);
    u8 *udp = packet + IP_HEADER, *message = udp + UDP_HEADER, *place = message + FIXED + COOKIE;
    message[0] = 1; // a request
    message[1] = 1; // Ethernet
    message[2] = 6;
    memcpy(message + 4, &client->transaction, 4);
    put_big16(message + 8, seconds);
    // Whoever has no address yet is answered by broadcast.
    message[10] = BROADCAST;
    memcpy(message + 28, client->hardware, 6);
    memcpy(message + FIXED, "\x63\x82\x53\x63", COOKIE);
    static const u8 wanted[] = { OPTION_MASK, OPTION_ROUTES, OPTION_ROUTER, OPTION_DNS, OPTION_DOMAIN, OPTION_MTU };
    u8 identity[7] = { 1 };
    memcpy(identity + 1, client->hardware, 6);
    place = option(place, OPTION_TYPE, 1, &type);
    place = option(place, OPTION_CLIENT, sizeof identity, identity);
    place = option(place, OPTION_WANTED, sizeof wanted, wanted);
    if (offer) {
        place = option(place, OPTION_REQUESTED, 4, &offer->address);
        place = option(place, OPTION_SERVER, 4, &offer->server);
    }
    *place = OPTION_END;

    packet[0] = 0x45;
    put_big16(packet + 2, sizeof packet);
    packet[8] = 64;
    packet[9] = 17; // UDP
    memset(packet + 16, 0xFF, 4);
    put_big16(packet + 10, checksum(sum(0, packet, IP_HEADER)));
    put_big16(udp, 68);
    put_big16(udp + 2, 67);
    put_big16(udp + 4, sizeof packet - IP_HEADER);
    // Over a pseudo-header too: the addresses, the protocol, the length.
    u32 total = sum(17 + sizeof packet - IP_HEADER, packet + 12, 8);
    put_big16(udp + 6, checksum(sum(total, udp, sizeof packet - IP_HEADER)));

    struct link_address everybody = { .family = AF_PACKET, .protocol = __builtin_bswap16(ETHERTYPE_IP), .index = client->index, .length = 6 };
    memset(everybody.address, 0xFF, 6);
    long done = sys_sendto(client->fd, packet, sizeof packet, MSG_DONTWAIT, &everybody, sizeof everybody);
    return done < 0 ? (int)done : 0;
}

// MARK: Receiving

static void add_route(struct lease *lease, u32 destination, u32 mask, u32 gateway) {
    if (lease->route_count < ROUTE_LIMIT)
        lease->routes[lease->route_count++] = (struct route){ destination & mask, mask, gateway };
}

/// Source: [RFC3442].
static void read_routes(const u8 *bytes, size_t count, struct lease *lease) {
    size_t offset = 0;
    while (offset < count) {
        u32 bits = bytes[offset++], octets = (bits + 7) / 8;
        if (bits > 32 || octets + 4 > count - offset) return;
        u8 destination[4] = { 0 };
        memcpy(destination, bytes + offset, octets);
        offset += octets;
        add_route(lease, as_is(destination), mask_of(bits), as_is(bytes + offset));
        offset += 4;
    }
}

/// A domain is written into a file of the guest's: nothing but what a name is made of.
static void read_domain(const u8 *bytes, size_t count, struct lease *lease) {
    for (size_t i = 0; i < count; i++) {
        u8 c = bytes[i] | 0x20;
        bool allowed = (c >= 'a' && c <= 'z') || (bytes[i] >= '0' && bytes[i] <= '9') || bytes[i] == '-' || bytes[i] == '.' || bytes[i] == '_';
        if (!allowed) return;
    }
    memcpy(lease->domain, bytes, count);
    lease->domain[count] = 0;
}

/// - Returns: the message's type; 0 for what is none.
static u8 read_options(const u8 *bytes, size_t count, struct lease *lease) {
    u8 type = 0;
    u32 router = 0;
    bool has_routes = false;
    for (size_t offset = 0; offset < count && bytes[offset] != OPTION_END;) {
        if (bytes[offset] == 0) {
            offset++;
            continue;
        }
        if (count - offset < 2 || bytes[offset + 1] > count - offset - 2) break;
        u8 code = bytes[offset], length = bytes[offset + 1];
        const u8 *value = bytes + offset + 2;
        offset += 2 + (size_t)length;
        switch (code) {
        case OPTION_TYPE: if (length == 1) type = *value; break;
        case OPTION_MASK: if (length == 4) lease->mask = as_is(value); break;
        case OPTION_SERVER: if (length == 4) lease->server = as_is(value); break;
        case OPTION_LEASE: if (length == 4) lease->seconds = big32(value); break;
        case OPTION_ROUTER: if (length >= 4) router = as_is(value); break;
        case OPTION_MTU: if (length == 2 && big16(value) >= 68) lease->mtu = big16(value); break;
        case OPTION_DOMAIN: read_domain(value, length, lease); break;
        case OPTION_DNS:
            for (lease->dns_count = 0; lease->dns_count < DNS_LIMIT && (lease->dns_count + 1) * 4 <= length; lease->dns_count++)
                lease->dns[lease->dns_count] = as_is(value + lease->dns_count * 4);
            break;
        case OPTION_ROUTES:
            read_routes(value, length, lease);
            has_routes = true;
            break;
        }
    }
    // Whoever has understood the routes does not heed the router.
    if (router && !has_routes) add_route(lease, 0, 0, router);
    return type;
}

/// Whether a packet is an answer to this client, and what it says. - Returns: the message's type, or 0.
static u8 read_message(const struct client *client, const u8 *packet, size_t count, struct lease *lease) {
    if (count < IP_HEADER || packet[0] >> 4 != 4 || packet[9] != 17 || (big16(packet + 6) & 0x3FFF) != 0) return 0;
    size_t header = (size_t)(packet[0] & 15) * 4, total = big16(packet + 2);
    if (header < IP_HEADER || total > count || total < header + UDP_HEADER + FIXED + COOKIE) return 0;
    const u8 *udp = packet + header, *message = udp + UDP_HEADER;
    if (big16(udp + 2) != 68 || message[0] != 2 || memcmp(message + 4, &client->transaction, 4) != 0) return 0;
    if (memcmp(message + 28, client->hardware, 6) != 0 || memcmp(message + FIXED, "\x63\x82\x53\x63", COOKIE) != 0) return 0;
    *lease = (struct lease){ .address = as_is(message + 16) };
    return read_options(message + FIXED + COOKIE, total - header - UDP_HEADER - FIXED - COOKIE, lease);
}

/// Waits for a message until a time. - Returns: its type; 0 if none came.
static u8 receive_message(const struct client *client, u64 until, struct lease *lease) {
    u64 mask = 0;
    for (;;) {
        u64 now = now_milliseconds();
        if (now >= until) return 0;
        struct timespec limit = { (i64)((until - now) / 1000), (i64)((until - now) % 1000) * 1000000 };
        struct pollfd fd = { .fd = client->fd, .events = POLLIN };
        if (sys_ppoll(&fd, 1, &limit, &mask) <= 0) continue;
        u8 packet[PACKET_LIMIT];
        long got = sys_recv(client->fd, packet, sizeof packet, MSG_DONTWAIT);
        u8 type = got > 0 ? read_message(client, packet, (size_t)got, lease) : 0;
        if (type) return type;
    }
}

// MARK: The exchange

static u32 class_mask(u32 address) {
    u8 first = (u8)address;
    return mask_of(first < 128 ? 8 : first < 192 ? 16 : 24);
}

static int exchange(struct client *client, u64 limit, struct lease *lease) {
    enum { REQUESTS = 3 };
    u64 start = now_milliseconds(), until = start + limit, pause = 100;
    struct lease offer;
    bool offered = false;
    u32 requests = 0;
    while (now_milliseconds() < until) {
        u64 now = now_milliseconds(), next = now + pause;
        // Whoever offered may be gone: others are asked again.
        if (offered && requests++ == REQUESTS) offered = false;
        if (!offered) requests = 0;
        // One that cannot be sent is as one that is lost.
        send_message(client, offered ? MESSAGE_REQUEST : MESSAGE_DISCOVER, offered ? &offer : NULL, (u32)((now - start) / 1000));
        if (next > until) next = until;
        bool answered = false;
        for (u8 type; !answered && (type = receive_message(client, next, lease));) {
            if (type == MESSAGE_OFFER && !offered && lease->address) {
                offer = *lease;
                offered = answered = true;
            } else if (type == MESSAGE_ACK && offered && lease->address) {
                if (!lease->mask) lease->mask = class_mask(lease->address);
                return 0;
            } else if (type == MESSAGE_NAK && offered) {
                offered = false;
                answered = true;
            }
        }
        // Soon again while there is nothing, for the other side may not be up; then less and less often.
        pause = answered ? 200 : pause * 2;
    }
    return -ETIMEDOUT;
}

int dhcp(int index, const u8 hardware[6], u64 limit, struct lease *lease) {
    struct client client = { .index = index };
    client.fd = sys_socket(AF_PACKET, SOCK_DGRAM, __builtin_bswap16(ETHERTYPE_IP));
    if (client.fd < 0) return client.fd;
    memcpy(client.hardware, hardware, 6);
    // Anything that others in the same network do not have at the same time.
    struct timespec time = { 0, 0 };
    sys_clock_gettime(CLOCK_REALTIME, &time);
    client.transaction = (u32)time.nanoseconds * 2654435761U ^ (u32)time.seconds ^ little32(hardware + 2);
    struct link_address here = { .family = AF_PACKET, .protocol = __builtin_bswap16(ETHERTYPE_IP), .index = index };
    int error = sys_bind(client.fd, &here, sizeof here);
    if (error == 0) error = exchange(&client, limit, lease);
    sys_close(client.fd);
    return error;
}
