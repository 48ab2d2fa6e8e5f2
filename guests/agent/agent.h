// The guest's agent: what its parts have in common. What it does and how the host speaks with it is in docs/agent.md.
//
// One thread, one loop on ppoll. The set-up blocks, for there is nothing else to do yet; from then on what may take long (a file,
// a program's start) is a child's business.
#pragma once
#include "system.h"

// MARK: memory.c: bytes, text, pages

void *memset(void *target, int value, size_t count);
void *memcpy(void *target, const void *source, size_t count);
void *memmove(void *target, const void *source, size_t count);
int memcmp(const void *a, const void *b, size_t count);
size_t length_of(const char *text);
bool equal(const char *a, const char *b);
bool begins(const char *text, const char *start);
/// The first such byte, or NULL.
char *find_byte(const char *bytes, size_t count, char byte);
/// Puts a zero at the end of the first line. - Returns: what is behind it, which may be nothing.
char *cut_line(char *text);
/// Decimal digits and nothing else, up to 2^32 - 1.
bool parse_number(const char *digits, size_t count, u32 base, u32 *value);
/// Zeroed; NULL where there is no memory.
void *pages(size_t size);
void release(void *bytes, size_t size);

/// Text in the making. What has no room is cut off.
struct line { size_t count; char text[512]; };
void put(struct line *line, const char *text);
void put_number(struct line *line, u64 number);
/// An errno by name and number.
void put_error(struct line *line, int error);

/// A file's bytes with a zero behind them.
struct contents { char *bytes; size_t count, mapped; };
/// - Returns: 0, or a negative errno. The caller releases what is mapped.
int read_file(const char *path, size_t limit, struct contents *contents);
int write_all(int fd, const void *bytes, size_t count);

u64 now_milliseconds(void);
void sleep_milliseconds(u64 time);

// MARK: frame.c: docs/agent.md's frames

enum {
    FRAME_HELLO = 1, FRAME_READY, FRAME_SETUP_FAILED, FRAME_NOTE, FRAME_STARTED, FRAME_NOT_STARTED, FRAME_ENDED, FRAME_GOODBYE,
    FRAME_OUTPUT,
    FRAME_SETUP = 129, FRAME_START, FRAME_SIGNAL, FRAME_RESIZE, FRAME_SHUT_DOWN,
};
enum { PROTOCOL_VERSION = 2 };
enum { FRAME_HEADER = 8, FIELD_HEADER = 8, INCOMING_LIMIT = 16 << 20, TEXT_LIMIT = 4096 };

/// A frame for the host in the making.
struct frame { size_t count; u8 bytes[FRAME_HEADER + TEXT_LIMIT + 1024]; };
void frame_start(struct frame *frame, u16 kind);
void frame_number(struct frame *frame, u16 tag, u32 value);
/// TEXT_LIMIT bytes have room.
void frame_bytes(struct frame *frame, u16 tag, const void *bytes, size_t count);
/// At most TEXT_LIMIT bytes of it.
void frame_text(struct frame *frame, u16 tag, const char *text);
/// The header's length.
void frame_finish(struct frame *frame);

u16 little16(const u8 *bytes);
u32 little32(const u8 *bytes);
u64 little64(const u8 *bytes);

/// A payload's fields, one after the other. Behind the payload there is room for a byte.
struct fields { u8 *bytes; size_t count, offset; char *unterminated; };
struct field { u16 tag; u32 count; u8 *bytes; };
/// Whether a payload is made of fields.
bool fields_are_whole(const u8 *payload, size_t count);
/// The next of a payload that is whole; false behind the last. Puts a zero behind the one before, where this one's header has been,
/// so that text needs no copy: a payload can be walked through once.
bool next_field(struct fields *fields, struct field *field);
/// Whether a field is text: no zero in it.
bool is_text(const struct field *field);

// MARK: control.c: the connection, the loop

/// Whether this is PID 1 of a guest, and so the machine is its to set up and to power off.
extern bool is_init;
extern const char *stream_path; // where streams are connected to if it is not
extern u32 command_mask;        // umask of commands
extern struct rlimit command_files;

void control_send(struct frame *frame);
void note(const char *text);
/// Serves the host until the connection ends.
_Noreturn void serve(int control);
/// A connected socket for a command's stream, or a negative errno.
int connect_stream(u32 number, u32 stream);
/// A vsock connection to the host, or a negative errno.
int connect_host(u32 port);

/// What the loop polls.
struct poll_set { struct pollfd *fds; size_t count, room; bool at_once, soon; };
int poll_add(struct poll_set *set, int fd, int events);
int poll_result(const struct poll_set *set, int slot);

// MARK: main.c

/// A line on the console.
void say(struct line *line);
/// PID 1 powers the machine off, others exit.
_Noreturn void leave(int status);

// MARK: setup.c, mount.c, module.c

struct share { u32 flags; const char *tag, *path; };
struct setup {
    bool has_time;
    struct timespec time;
    const char *name;
    u32 root_kind, root_flags;
    const char *root, *root_type;
    u32 network;
    struct share *shares;
    size_t share_count, shares_mapped;
};
enum { ROOT_INITIAL = 0, ROOT_SHARED = 1, ROOT_BLOCK = 2, ROOT_LAYER = 1, ROOT_READONLY = 2, SHARE_READONLY = 1 };

/// What could not be done, for the host.
struct failure { int error; struct line what; const char *module; };
/// - Returns: false for a payload that breaks a rule.
bool parse_setup(u8 *payload, size_t count, struct setup *setup);
bool set_up(const struct setup *setup, struct failure *failure);
bool fail(struct failure *failure, int error, const char *what, const char *name);

void mount_initial(void);
bool mount_root(const struct setup *setup, struct failure *failure);
bool mount_shares(const struct setup *setup, struct failure *failure);
/// Makes what was written reach the host.
void unmount_all(void);
/// Makes a directory and those above it.
int make_directories(const char *path);
/// Whether what is written to the root stays in memory.
extern bool root_in_memory;

void load_modules(void);

// MARK: network.c, lease.c, dhcp.c, resolver.c

void loopback_up(void);
/// Configures the first interface; what goes wrong is a note.
void network_up(void);

enum { DNS_LIMIT = 3, ROUTE_LIMIT = 16 };
/// Addresses in network order, as everywhere.
struct route { u32 destination, mask, gateway; };
#define LEASE_FOREVER UINT32_MAX
struct lease {
    u32 seconds, renew, rebind; // from the request on; the latter two 0 where the server leaves them to the client
    u32 server;
    // What is configured, from here on.
    u32 address, mask;
    u32 dns[DNS_LIMIT], dns_count;
    struct route routes[ROUTE_LIMIT];
    u32 route_count, mtu;
    char domain[256];
};
/// Configures what a lease says in place of what one said before (NULL: none).
void lease_taken(const struct lease *lease, const struct lease *before);
/// Takes the address away.
void lease_lost(const struct lease *lease, const char *why);
/// Tells the guest's programs where names are looked up.
void write_resolver(const struct lease *lease);

/// Where messages go; the socket is -1 while none is awaited.
struct dhcp_link { int fd, index; bool raw; const char *name; u8 hardware[6]; u32 transaction; };
enum { DHCP_DISCOVER = 1, DHCP_OFFER = 2, DHCP_REQUEST = 3, DHCP_ACK = 5, DHCP_NAK = 6 };
/// - Parameter raw: without an address, for packets; otherwise a socket as any other. - Returns: 0, or a negative errno.
int dhcp_open(struct dhcp_link *link, bool raw);
void dhcp_close(struct dhcp_link *link);
/// One that cannot be sent is as one that is lost.
/// - Parameters: `lease` is what is asked for, NULL before there is an offer; `to` the server, without meaning for packets, which go
///   to all.
void dhcp_send(const struct dhcp_link *link, u8 type, const struct lease *lease, u32 to, u32 seconds);
/// Takes one packet. - Returns: its message's type, 0 if it is none for this client, -1 where there is no packet.
int dhcp_receive(const struct dhcp_link *link, struct lease *lease);

/// Waits for an interface's first lease. - Returns: 0, or a negative errno; -ETIMEDOUT if nobody gives one.
int lease_first(int index, const char *name, const u8 hardware[6], u64 limit_milliseconds);
/// What the loop has to do for it.
void lease_poll(struct poll_set *set);
void lease_step(const struct poll_set *set);

// MARK: command.c: from start to ended

enum { STAGE_DIRECTORY = 1, STAGE_USER, STAGE_PROGRAM, STAGE_RESOURCES, STAGE_STREAMS };
enum { OPERATION_RUN = 0, OPERATION_WRITE = 1, OPERATION_READ = 2 };

/// What the host wants started. Its text lies in the frame's payload.
struct start {
    u32 number, streams, collected, operation;
    bool terminal;
    u32 rows, columns;
    const char *directory, *user;
    char **arguments, **environment; // each with a NULL behind, in one block
    size_t argument_count, environment_count, mapped;
};

enum { RELAY_ROOM = 65536, COLLECTED_LIMIT = 16384 };
/// One direction of a stream: bytes from one descriptor to another by way of a buffer. It owns both; -1 is closed. An output that is
/// collected has no connection to begin with: so many of its bytes go in frames.
struct relay {
    int from, to;
    u32 number, stream; // of an output that is collected
    size_t framed;      // bytes that still go in frames, before there is a connection
    bool from_socket, to_socket;
    bool draining;    // the command has ended: what is there is taken, nothing is waited for
    bool half_closed; // the host has closed its side of an output, and may still read
    i64 left;         // bytes that are still taken; negative: no limit
    u8 *buffer;
    size_t start, count;
    int from_slot, to_slot; // among what is polled; -1: not there
};

/// A command's relays: input, output and error by their numbers, and what its terminal shows.
enum { INPUT = 0, TERMINAL = 3, RELAYS = 4 };

struct command {
    struct command *next;
    u32 number;
    int pid;
    int failure, failure_slot; // the pipe on which the child says what it failed at; -1 once that is known
    bool ended;
    int status;
    u64 kills; // of the out-of-memory killer before the start
    bool terminal;
    int master, slave; // held so that neither end of the terminal closes while the command runs
    struct relay relays[RELAYS];
};

/// - Returns: false for a payload that breaks a rule.
bool parse_start(u8 *payload, size_t count, struct start *start);
/// - Returns: false where the number is in use.
bool command_start(struct start *start);
void command_signal(u32 number, u32 signal);
void command_resize(u32 number, u32 rows, u32 columns);
void reap(void);
/// Kills the process groups of all commands.
void commands_kill(void);

void commands_poll(struct poll_set *set);
void commands_step(const struct poll_set *set);

// MARK: relay.c

void relay_close(struct relay *relay);
/// - Returns: 0, or a negative errno. The descriptors are the relay's in either case, and do not block from here on.
int relay_open(struct relay *relay, int from, bool from_socket, int to, bool to_socket);
/// The same for an output that is collected.
int relay_collect(struct relay *relay, int from, u32 number, u32 stream);
bool relay_is_open(const struct relay *relay);
void relay_poll(struct relay *relay, struct poll_set *set);
void relay_step(struct relay *relay, int from_events, int to_events);
/// The command has ended: takes at most `limit` bytes more.
void relay_drain(struct relay *relay, i64 limit);

// MARK: terminal.c

/// A terminal's two ends. - Returns: 0, or a negative errno.
int terminal_open(u32 rows, u32 columns, int *master, int *slave);
void terminal_resize(int master, u32 rows, u32 columns);

// MARK: child.c, program.c, user.c, file.c: between fork and exec

struct child_streams { int descriptors[3], failure; bool terminal; };
_Noreturn void child_run(const struct start *start, const struct child_streams *streams);
/// Says what failed, and ends.
_Noreturn void child_fail(u32 stage, int error, const char *name);
/// Reported on the pipe; the name follows.
struct child_failure { u32 stage, error; };
enum { CHILD_FAILURE_PIPE = 3, CHILD_NAME_LIMIT = 1024 };

/// Becomes the user and changes the environment to theirs. Does not return where it cannot.
void become_user(struct start *start);
/// Runs the program. - Returns: the errno for which it does not.
int execute(const struct start *start);
_Noreturn void write_file(const struct start *start);
_Noreturn void send_file(const struct start *start);
