// Interfaces: the loopback, and the first other one with what DHCP says. IPv6 is the kernel's own business.
// Source: [LINUX-NETDEVICE].
#include "agent.h"

enum {
    SIOCADDRT = 0x890B, SIOCDELRT = 0x890C, SIOCGIFNAME = 0x8910, SIOCGIFFLAGS = 0x8913, SIOCSIFFLAGS = 0x8914,
    SIOCSIFMTU = 0x8922, SIOCGIFHWADDR = 0x8927,
};
enum { IFF_UP = 1, IFF_RUNNING = 0x40, ARPHRD_ETHER = 1, RTF_UP = 1, RTF_GATEWAY = 2, RTF_HOST = 4, RTM_NEWADDR = 20, RTM_DELADDR = 21 };

struct address { u16 family, port; u32 address; u8 zero[8]; };
struct interface {
    char name[16];
    union { struct address address; u16 flags; int index, mtu; struct { u16 family; u8 bytes[14]; } hardware; u8 room[24]; };
};
struct route_entry {
    u64 pad;
    struct address destination, gateway, mask;
    u16 flags, pad2;
    u64 pad3;
    void *pad4;
    u16 metric;
    char *device;
    u64 mtu, window;
    u16 initial;
};

static int raise_interface(int fd, struct interface *interface) {
    int error = sys_ioctl(fd, SIOCGIFFLAGS, interface);
    if (error < 0) return error;
    interface->flags |= IFF_UP | IFF_RUNNING;
    return sys_ioctl(fd, SIOCSIFFLAGS, interface);
}

void loopback_up(void) {
    int fd = sys_socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0) return;
    struct interface interface = { .name = "lo" };
    // Its address the kernel gives it.
    raise_interface(fd, &interface);
    sys_close(fd);
}

static void note_failed(const char *what, const char *name, int error) {
    struct line line = { 0 };
    put(&line, "network: ");
    put(&line, what);
    put(&line, name);
    if (error) {
        put(&line, ": ");
        put_error(&line, error);
    }
    note(line.text);
}

/// The first Ethernet interface by its index, and its hardware address. - Returns: its index, or 0.
static int first_interface(int fd, struct interface *interface, u8 hardware[6]) {
    for (int index = 1; index < 64; index++) {
        *interface = (struct interface){ .index = index };
        if (sys_ioctl(fd, SIOCGIFNAME, interface) < 0 || sys_ioctl(fd, SIOCGIFHWADDR, interface) < 0) continue;
        if (interface->hardware.family != ARPHRD_ETHER) continue;
        memcpy(hardware, interface->hardware.bytes, 6);
        return index;
    }
    return 0;
}

static struct address address_of(u32 address) { return (struct address){ .family = AF_INET, .address = address }; }

static int change_route(int fd, u32 request, struct interface *interface, const struct route *route) {
    struct route_entry entry = {
        .destination = address_of(route->destination), .gateway = address_of(route->gateway), .mask = address_of(route->mask),
        .flags = (u16)(RTF_UP | (route->gateway ? RTF_GATEWAY : 0) | (route->mask == UINT32_MAX ? RTF_HOST : 0)),
        .device = interface->name,
    };
    int error = sys_ioctl(fd, request, &entry);
    return error == -EEXIST ? 0 : error;
}

/// The interface that DHCP is about, and its index.
static struct interface leased;
static int leased_index;

/// Adds this address, or takes it away, and none of another network that somebody gave the interface: the older calls know but one
/// address. Source: [LINUX-RTNETLINK].
static int change_address(u16 type, const struct lease *lease) {
    enum { NLM_F_REQUEST = 1, NLM_F_ACK = 4, NLM_F_CREATE = 0x400, IFA_LOCAL = 2, IFA_BROADCAST = 4, ANSWER_ERROR = 16 };
    struct attribute { u16 size, type; u32 address; };
    struct {
        u32 size;
        u16 type, flags;
        u32 sequence, port;
        u8 family, bits, address_flags, scope;
        int index;
        struct attribute local, broadcast;
    } request = {
        .size = sizeof request, .type = type, .flags = NLM_F_REQUEST | NLM_F_ACK | (type == RTM_NEWADDR ? NLM_F_CREATE : 0),
        .family = AF_INET, .index = leased_index, .local = { sizeof(struct attribute), IFA_LOCAL, lease->address },
        .broadcast = { sizeof(struct attribute), IFA_BROADCAST, lease->address | ~lease->mask },
    };
    while (request.bits < 32 && (__builtin_bswap32(lease->mask) << request.bits & 1U << 31)) request.bits++;
    // A network of two has no broadcast address, and what is taken away is named by itself.
    if (type != RTM_NEWADDR || request.bits > 30) request.size -= sizeof(struct attribute);
    int fd = sys_socket(AF_NETLINK, SOCK_RAW, 0);
    if (fd < 0) return fd;
    // It is answered before the call is back.
    u8 answer[256];
    long got = sys_sendto(fd, &request, request.size, 0, NULL, 0);
    if (got >= 0) got = sys_recv(fd, answer, sizeof answer, MSG_DONTWAIT);
    sys_close(fd);
    if (got < 0) return (int)got;
    return got < ANSWER_ERROR + 4 ? -EIO : (int)little32(answer + ANSWER_ERROR);
}

static void apply(int fd, struct interface *interface, const struct lease *lease) {
    int error = change_address(RTM_NEWADDR, lease);
    if (error < 0 && error != -EEXIST) {
        note_failed("the address could not be set on ", interface->name, error);
        return;
    }
    if (lease->mtu) {
        interface->mtu = (int)lease->mtu;
        if ((error = sys_ioctl(fd, SIOCSIFMTU, interface)) < 0)
            note_failed("the packets' size could not be set on ", interface->name, error);
    }
    for (u32 i = 0; i < lease->route_count; i++)
        if ((error = change_route(fd, SIOCADDRT, interface, &lease->routes[i])) < 0)
            note_failed("a route could not be set on ", interface->name, error);
    write_resolver(lease);
}

static void withdraw(int fd, const struct lease *lease) {
    // The last first: one may lead to another's gateway. Those that went with somebody's changes are no matter.
    for (u32 i = lease->route_count; i > 0; i--) change_route(fd, SIOCDELRT, &leased, &lease->routes[i - 1]);
    change_address(RTM_DELADDR, lease);
}

void lease_taken(const struct lease *lease, const struct lease *before) {
    // A lease that is renewed leaves connections alone, and what somebody has changed in the meantime.
    size_t from = offsetof(struct lease, address);
    if (before && memcmp((const u8 *)lease + from, (const u8 *)before + from, sizeof *lease - from) == 0) return;
    int fd = sys_socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0) return;
    if (before) withdraw(fd, before);
    apply(fd, &leased, lease);
    sys_close(fd);
}

void lease_lost(const struct lease *lease, const char *why) {
    note_failed(why, leased.name, 0);
    int fd = sys_socket(AF_INET, SOCK_DGRAM, 0);
    withdraw(fd, lease);
    if (fd >= 0) sys_close(fd);
}

static void configure(int fd) {
    enum { CARRIER_LIMIT = 500, DEVICE_LIMIT = 1000, LEASE_LIMIT = 5000 };
    struct interface interface;
    u8 hardware[6];
    int index = 0;
    u64 until = now_milliseconds() + DEVICE_LIMIT;
    while ((index = first_interface(fd, &interface, hardware)) == 0 && now_milliseconds() < until) sleep_milliseconds(5);
    if (index == 0) {
        note_failed("there is no interface; is its driver loaded?", "", 0);
        return;
    }
    int error = raise_interface(fd, &interface);
    if (error < 0) {
        note_failed("could not be brought up: ", interface.name, error);
        return;
    }
    // What is sent before there is a carrier is lost.
    until = now_milliseconds() + CARRIER_LIMIT;
    while (sys_ioctl(fd, SIOCGIFFLAGS, &interface) == 0 && !(interface.flags & IFF_RUNNING) && now_milliseconds() < until)
        sleep_milliseconds(1);
    leased = interface;
    leased_index = index;
    error = lease_first(index, leased.name, hardware, LEASE_LIMIT);
    if (error == -ETIMEDOUT) note_failed("no DHCP server gave an address within 5 seconds to ", interface.name, 0);
    else if (error < 0) note_failed("no address could be asked for on ", interface.name, error);
}

void network_up(void) {
    int fd = sys_socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0) {
        note_failed("the kernel has no IPv4", "", fd);
        return;
    }
    configure(fd);
    sys_close(fd);
}
