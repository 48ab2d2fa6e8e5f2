// DHCP's messages, and the sockets they go through; what they are for is in lease.c. Source: [RFC2131 §2, §4.1], [RFC2132].
//
// Without an address no ordinary socket receives what is sent to it, so packets are made and read here, IP header included;
// the frames around them are the kernel's. With one an ordinary socket does, and finds the way to a server by itself.
#include "agent.h"

enum {
    OPTION_MASK = 1, OPTION_ROUTER = 3, OPTION_DNS = 6, OPTION_DOMAIN = 15, OPTION_MTU = 26, OPTION_REQUESTED = 50,
    OPTION_LEASE = 51, OPTION_TYPE = 53, OPTION_SERVER = 54, OPTION_WANTED = 55, OPTION_RENEW = 58, OPTION_REBIND = 59,
    OPTION_CLIENT = 61, OPTION_ROUTES = 121, OPTION_END = 255,
};
enum { IP_HEADER = 20, UDP_HEADER = 8, FIXED = 236, COOKIE = 4, MESSAGE = FIXED + COOKIE + 64, PACKET_LIMIT = 1500 };
enum { ETHERTYPE_IP = 0x0800, PROTOCOL_UDP = 17, BROADCAST = 0x80, SERVER_PORT = 67, CLIENT_PORT = 68 };
#define MAGIC "\x63\x82\x53\x63"

/// struct sockaddr_ll.
struct link_address { u16 family, protocol; int index; u16 type; u8 packet, length, address[8]; };
struct internet_address { u16 family, port; u32 address; u8 zero[8]; };

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

static void make_message(const struct dhcp_link *link, u8 type, const struct lease *lease, u32 seconds, u8 *message) {
    static const u8 wanted[] = { OPTION_MASK, OPTION_ROUTES, OPTION_ROUTER, OPTION_DNS, OPTION_DOMAIN, OPTION_MTU, OPTION_RENEW, OPTION_REBIND };
    u8 *place = message + FIXED + COOKIE, identity[7] = { 1 };
    message[0] = 1; // a request
    message[1] = 1; // Ethernet
    message[2] = 6;
    memcpy(message + 4, &link->transaction, 4);
    put_big16(message + 8, seconds > 0xFFFF ? 0xFFFF : seconds);
    // Whoever has no address yet is answered by broadcast; whoever has one, there.
    if (link->raw) message[10] = BROADCAST;
    else memcpy(message + 12, &lease->address, 4);
    memcpy(message + 28, link->hardware, 6);
    memcpy(message + FIXED, MAGIC, COOKIE);
    memcpy(identity + 1, link->hardware, 6);
    place = option(place, OPTION_TYPE, 1, &type);
    place = option(place, OPTION_CLIENT, sizeof identity, identity);
    place = option(place, OPTION_WANTED, sizeof wanted, wanted);
    // Which of the offers: not said of what is held already.
    if (link->raw && lease) {
        place = option(place, OPTION_REQUESTED, 4, &lease->address);
        place = option(place, OPTION_SERVER, 4, &lease->server);
    }
    *place = OPTION_END;
}

void dhcp_send(const struct dhcp_link *link, u8 type, const struct lease *lease, u32 to, u32 seconds) {
    u8 packet[IP_HEADER + UDP_HEADER + MESSAGE];
    memset(packet, 0, sizeof packet);
    u8 *udp = packet + IP_HEADER, *message = udp + UDP_HEADER;
    make_message(link, type, lease, seconds, message);
    if (!link->raw) {
        struct internet_address server = { .family = AF_INET, .port = __builtin_bswap16(SERVER_PORT), .address = to };
        sys_sendto(link->fd, message, MESSAGE, MSG_DONTWAIT, &server, sizeof server);
        return;
    }
    packet[0] = 0x45;
    put_big16(packet + 2, sizeof packet);
    packet[8] = 64;
    packet[9] = PROTOCOL_UDP;
    memset(packet + 16, 0xFF, 4);
    put_big16(packet + 10, checksum(sum(0, packet, IP_HEADER)));
    put_big16(udp, CLIENT_PORT);
    put_big16(udp + 2, SERVER_PORT);
    put_big16(udp + 4, sizeof packet - IP_HEADER);
    // Over a pseudo-header too: the addresses, the protocol, the length.
    u32 total = sum(PROTOCOL_UDP + sizeof packet - IP_HEADER, packet + 12, 8);
    put_big16(udp + 6, checksum(sum(total, udp, sizeof packet - IP_HEADER)));

    struct link_address everybody = { .family = AF_PACKET, .protocol = __builtin_bswap16(ETHERTYPE_IP), .index = link->index, .length = 6 };
    memset(everybody.address, 0xFF, 6);
    sys_sendto(link->fd, packet, sizeof packet, MSG_DONTWAIT, &everybody, sizeof everybody);
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
        case OPTION_RENEW: if (length == 4) lease->renew = big32(value); break;
        case OPTION_REBIND: if (length == 4) lease->rebind = big32(value); break;
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

/// Where the message is in a packet for a client's port. - Returns: NULL for what is none.
static const u8 *message_in(const u8 *packet, size_t *count) {
    if (*count < IP_HEADER || packet[0] >> 4 != 4 || packet[9] != PROTOCOL_UDP || (big16(packet + 6) & 0x3FFF) != 0) return NULL;
    size_t header = (size_t)(packet[0] & 15) * 4, total = big16(packet + 2);
    if (header < IP_HEADER || total > *count || total < header + UDP_HEADER || big16(packet + header + 2) != CLIENT_PORT) return NULL;
    *count = total - header - UDP_HEADER;
    return packet + header + UDP_HEADER;
}

/// Whether a message is an answer to this client, and what it says. - Returns: the message's type, or 0.
static u8 read_message(const struct dhcp_link *link, const u8 *message, size_t count, struct lease *lease) {
    if (count < FIXED + COOKIE || message[0] != 2 || memcmp(message + 4, &link->transaction, 4) != 0) return 0;
    if (memcmp(message + 28, link->hardware, 6) != 0 || memcmp(message + FIXED, MAGIC, COOKIE) != 0) return 0;
    // A server that says nothing of time gives the address for good, as BOOTP's do.
    *lease = (struct lease){ .address = as_is(message + 16), .seconds = LEASE_FOREVER };
    return read_options(message + FIXED + COOKIE, count - FIXED - COOKIE, lease);
}

int dhcp_receive(const struct dhcp_link *link, struct lease *lease) {
    u8 packet[PACKET_LIMIT];
    long got = sys_recv(link->fd, packet, sizeof packet, MSG_DONTWAIT);
    if (got < 0) return -1;
    size_t count = (size_t)got;
    const u8 *message = link->raw ? message_in(packet, &count) : packet;
    return message ? read_message(link, message, count, lease) : 0;
}

// MARK: Sockets

/// Has the kernel pass on nothing but what is for a client's port: the rest would wake the agent for nothing. Source: [LINUX-FILTER].
static void attach_filter(int fd) {
    enum { SOL_SOCKET = 1, SO_ATTACH_FILTER = 26 };
    struct instruction { u16 code; u8 yes, no; u32 value; };
    static const struct instruction filter[] = {
        { 0x30, 0, 0, 9 },            // a byte of the IP header: the protocol
        { 0x15, 0, 4, PROTOCOL_UDP }, //
        { 0xB1, 0, 0, 0 },            // the header's length
        { 0x48, 0, 0, 2 },            // two bytes of what follows: the port it is for
        { 0x15, 0, 1, CLIENT_PORT },  //
        { 0x06, 0, 0, PACKET_LIMIT }, // so many bytes are passed on
        { 0x06, 0, 0, 0 },
    };
    struct { u16 count; const struct instruction *instructions; } program = { sizeof filter / sizeof *filter, filter };
    sys_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

static int open_raw(const struct dhcp_link *link) {
    // Bound to nothing it hears nothing: first the filter.
    int fd = sys_socket(AF_PACKET, SOCK_DGRAM, 0);
    if (fd < 0) return fd;
    attach_filter(fd);
    struct link_address here = { .family = AF_PACKET, .protocol = __builtin_bswap16(ETHERTYPE_IP), .index = link->index };
    int error = sys_bind(fd, &here, sizeof here);
    if (error == 0) return fd;
    sys_close(fd);
    return error;
}

static int open_ordinary(const struct dhcp_link *link) {
    enum { SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_BROADCAST = 6, SO_BINDTODEVICE = 25 };
    int fd = sys_socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    if (fd < 0) return fd;
    sys_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sys_setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    // A broadcast goes where it is bound to, and a refusal comes as one.
    struct internet_address here = { .family = AF_INET, .port = __builtin_bswap16(CLIENT_PORT) };
    int error = sys_setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, link->name, (u32)length_of(link->name));
    if (error == 0) error = sys_bind(fd, &here, sizeof here);
    if (error == 0) return fd;
    sys_close(fd);
    return error;
}

int dhcp_open(struct dhcp_link *link, bool raw) {
    if (link->fd >= 0 && link->raw == raw) return 0;
    dhcp_close(link);
    int fd = raw ? open_raw(link) : open_ordinary(link);
    link->raw = raw;
    if (fd >= 0) link->fd = fd;
    return fd < 0 ? fd : 0;
}

void dhcp_close(struct dhcp_link *link) {
    if (link->fd >= 0) sys_close(link->fd);
    link->fd = -1;
}
