// A command from start to ended: its process, its streams, what is said of it.
#include "agent.h"

static struct command *commands;

static struct command *find(u32 number) {
    for (struct command *command = commands; command; command = command->next)
        if (command->number == number) return command;
    return NULL;
}

// MARK: What is to be started

/// How many words there are, and that fields have the sizes they should.
static bool check_start(const u8 *payload, size_t count, struct start *start) {
    if (!fields_are_whole(payload, count)) return false;
    // Nothing is terminated yet: a walk that changes nothing.
    for (size_t offset = 0; offset < count;) {
        struct field field = {
            .tag = little16(payload + offset), .count = little32(payload + offset + 4), .bytes = (u8 *)payload + offset + FIELD_HEADER,
        };
        offset += FIELD_HEADER + field.count;
        switch (field.tag) {
        case 1: case 7: case 8: case 9: if (field.count != 4) return false; break;
        case 2: case 3: case 4: case 5: if (!is_text(&field)) return false; break;
        case 6: if (field.count != 8) return false; break;
        }
        if (field.tag == 2) start->argument_count++;
        if (field.tag == 3) start->environment_count++;
    }
    return start->argument_count > 0;
}

bool parse_start(u8 *payload, size_t count, struct start *start) {
    *start = (struct start){ 0 };
    if (!check_start(payload, count, start)) return false;
    start->mapped = (start->argument_count + start->environment_count + 2) * sizeof(char *);
    start->arguments = pages(start->mapped);
    if (!start->arguments) return false;
    start->environment = start->arguments + start->argument_count + 1;
    size_t arguments = 0, words = 0;
    struct fields fields = { .bytes = payload, .count = count };
    for (struct field field; next_field(&fields, &field);) {
        char *text = (char *)field.bytes;
        switch (field.tag) {
        case 1: start->number = little32(field.bytes); break;
        case 2: start->arguments[arguments++] = text; break;
        case 3: start->environment[words++] = text; break;
        case 4: start->directory = text; break;
        case 5: start->user = text; break;
        case 6:
            start->terminal = true;
            start->rows = little32(field.bytes);
            start->columns = little32(field.bytes + 4);
            break;
        case 7: start->streams = little32(field.bytes); break;
        case 8: start->operation = little32(field.bytes); break;
        case 9: start->collected = little32(field.bytes); break;
        }
    }
    return start->number != 0;
}

// MARK: Start

/// Kills of the out-of-memory killer since the machine's start. Asked twice for each command: the file stays open, and is read as far as
/// its line. 0 where the kernel does not tell.
static u64 memory_kills(void) {
    static int file = -1;
    static char text[16384];
    if (file < 0 && (file = sys_open("/proc/vmstat", O_RDONLY, 0)) < 0) return 0;
    size_t count = 0, line = 0;
    while (count < sizeof text) {
        long got = sys_pread(file, text + count, sizeof text - count, count);
        if (got == -EINTR) continue;
        if (got <= 0) break;
        count += (size_t)got;
        for (char *end; (end = find_byte(text + line, count - line, '\n')); line = (size_t)(end + 1 - text)) {
            *end = 0;
            if (!begins(text + line, "oom_kill ")) continue;
            u64 kills = 0;
            for (char *digit = text + line + 9; *digit >= '0' && *digit <= '9'; digit++) kills = kills * 10 + (u64)(*digit - '0');
            return kills;
        }
    }
    return 0;
}

static void say_not_started(u32 number, u32 stage, u32 error, const char *name) {
    struct frame frame;
    frame_start(&frame, FRAME_NOT_STARTED);
    frame_number(&frame, 1, number);
    frame_number(&frame, 2, stage);
    frame_number(&frame, 3, error);
    frame_text(&frame, 4, name);
    control_send(&frame);
}

static void close_if_open(int *fd) {
    if (*fd >= 0) sys_close(*fd);
    *fd = -1;
}

/// Opened for a start, until they belong to a relay or to the child.
struct opened { int sockets[RELAYS], ours[RELAYS], theirs[3], failure[2]; u32 stage; const char *name; };

static int open_terminal(const struct start *start, struct command *command, struct opened *opened) {
    opened->stage = STAGE_RESOURCES;
    opened->name = "/dev/ptmx";
    int error = terminal_open(start->rows, start->columns, &command->master, &command->slave);
    if (error < 0) return error;
    // Each direction owns its descriptors.
    opened->name = "";
    if ((opened->ours[INPUT] = sys_fcntl(command->master, F_DUPFD_CLOEXEC, 3)) < 0) return opened->ours[INPUT];
    if ((opened->ours[TERMINAL] = sys_fcntl(command->master, F_DUPFD_CLOEXEC, 3)) < 0) return opened->ours[TERMINAL];
    for (int i = 0; i < 3; i++)
        if ((opened->theirs[i] = sys_fcntl(command->slave, F_DUPFD_CLOEXEC, 3)) < 0) return opened->theirs[i];
    opened->stage = STAGE_STREAMS;
    if ((opened->sockets[INPUT] = connect_stream(start->number, INPUT)) < 0) return opened->sockets[INPUT];
    return opened->sockets[TERMINAL] = sys_fcntl(opened->sockets[INPUT], F_DUPFD_CLOEXEC, 3);
}

static bool is_collected(const struct start *start, u32 stream) { return stream != INPUT && (start->collected >> stream & 1); }

static int open_pipes(const struct start *start, struct opened *opened) {
    for (u32 i = 0; i < 3; i++) {
        opened->stage = STAGE_RESOURCES;
        bool is_pipe = start->streams >> i & 1;
        if (start->terminal && (i == INPUT || !is_pipe)) continue;
        close_if_open(&opened->theirs[i]);
        if (!is_pipe) {
            opened->name = "/dev/null";
            if ((opened->theirs[i] = sys_open("/dev/null", O_RDWR, 0)) < 0) return opened->theirs[i];
            opened->name = "";
            continue;
        }
        int ends[2];
        int error = sys_pipe(ends);
        if (error < 0) return error;
        opened->ours[i] = ends[i == 0];
        opened->theirs[i] = ends[i != 0];
        if (is_collected(start, i)) continue;
        opened->stage = STAGE_STREAMS;
        if ((opened->sockets[i] = connect_stream(start->number, i)) < 0) return opened->sockets[i];
    }
    return 0;
}

/// Hands what is opened to the relays.
static int open_relays(const struct start *start, struct command *command, struct opened *opened) {
    opened->stage = STAGE_RESOURCES;
    for (int i = 0; i < RELAYS; i++) {
        int socket = opened->sockets[i], ours = opened->ours[i];
        if (ours < 0) continue;
        opened->sockets[i] = opened->ours[i] = -1;
        struct relay *relay = &command->relays[i];
        int error = i == INPUT ? relay_open(relay, socket, true, ours, false)
                  : socket < 0 ? relay_collect(relay, ours, start->number, (u32)i)
                               : relay_open(relay, ours, false, socket, true);
        if (error < 0) return error;
    }
    return 0;
}

static int open_and_fork(const struct start *start, struct command *command, struct opened *opened) {
    int error = start->terminal ? open_terminal(start, command, opened) : 0;
    if (error >= 0) error = open_pipes(start, opened);
    if (error < 0) return error;
    if ((error = open_relays(start, command, opened)) < 0) return error;
    if ((error = sys_pipe(opened->failure)) < 0) return error;
    if ((error = sys_fcntl(opened->failure[0], F_SETFL, O_NONBLOCK)) < 0) return error;
    command->kills = memory_kills();
    command->pid = sys_fork();
    if (command->pid == 0) {
        struct child_streams streams = { .failure = opened->failure[1], .terminal = start->terminal };
        memcpy(streams.descriptors, opened->theirs, sizeof streams.descriptors);
        child_run(start, &streams);
    }
    return command->pid;
}

static void close_streams(struct command *command) {
    for (int i = 0; i < RELAYS; i++) relay_close(&command->relays[i]);
    close_if_open(&command->master);
    close_if_open(&command->slave);
}

bool command_start(struct start *start) {
    if (find(start->number)) return false;
    struct command *command = pages(sizeof *command);
    if (!command) {
        say_not_started(start->number, STAGE_RESOURCES, ENOMEM, "");
        return true;
    }
    *command = (struct command){
        .number = start->number, .failure = -1, .failure_slot = -1, .terminal = start->terminal, .master = -1, .slave = -1,
    };
    for (int i = 0; i < RELAYS; i++) command->relays[i].from = command->relays[i].to = -1;
    struct opened opened = { { -1, -1, -1, -1 }, { -1, -1, -1, -1 }, { -1, -1, -1 }, { -1, -1 }, 0, "" };
    int result = open_and_fork(start, command, &opened);
    for (int i = 0; i < RELAYS; i++) {
        close_if_open(&opened.sockets[i]);
        close_if_open(&opened.ours[i]);
    }
    for (int i = 0; i < 3; i++) close_if_open(&opened.theirs[i]);
    close_if_open(&opened.failure[1]);
    if (result < 0) {
        close_if_open(&opened.failure[0]);
        close_streams(command);
        release(command, sizeof *command);
        say_not_started(start->number, opened.stage, (u32)-result, opened.name);
        return true;
    }
    command->failure = opened.failure[0];
    command->next = commands;
    commands = command;
    return true;
}

// MARK: What the child says before it runs the program

/// - Parameter dead: whether the child can say nothing more.
static void hear_child(struct command *command, bool dead) {
    if (command->failure < 0) return;
    struct { struct child_failure failure; char name[CHILD_NAME_LIMIT + 1]; } report;
    long got = sys_read(command->failure, &report, sizeof report - 1);
    if (got == -EINTR || (got == -EAGAIN && !dead)) return;
    close_if_open(&command->failure);
    if (got >= (long)sizeof report.failure) {
        report.name[(size_t)got - sizeof report.failure] = 0;
        close_streams(command);
        say_not_started(command->number, report.failure.stage, report.failure.error, report.name);
        // The number is free; the process is still to be reaped.
        command->number = 0;
        return;
    }
    struct frame frame;
    frame_start(&frame, FRAME_STARTED);
    frame_number(&frame, 1, command->number);
    frame_number(&frame, 2, (u32)command->pid);
    control_send(&frame);
}

// MARK: While it runs

void command_signal(u32 number, u32 signal) {
    struct command *command = find(number);
    // One that has ended may have left its number of a process to another.
    if (!command || command->ended || signal > SIGNAL_COUNT) return;
    // Before the child has made a group of its own there is only itself.
    if (sys_kill(-command->pid, (int)signal) == -ESRCH) sys_kill(command->pid, (int)signal);
}

void command_resize(u32 number, u32 rows, u32 columns) {
    struct command *command = find(number);
    if (command && command->master >= 0) terminal_resize(command->master, rows, columns);
}

void commands_kill(void) {
    for (struct command *command = commands; command; command = command->next)
        if (!command->ended && sys_kill(-command->pid, SIGKILL) == -ESRCH) sys_kill(command->pid, SIGKILL);
}

// MARK: Its end

enum { TERMINAL_LEFT = 256 << 10 };

static void command_ended(struct command *command, int status) {
    hear_child(command, true);
    command->ended = true;
    command->status = status;
    relay_close(&command->relays[INPUT]);
    for (int i = INPUT + 1; i < RELAYS; i++) {
        struct relay *relay = &command->relays[i];
        int waiting = 0;
        // A terminal's bytes are still on their way from one end to the other; reading waits for those, counting does not.
        if (i == TERMINAL) waiting = TERMINAL_LEFT;
        else if (relay->from >= 0 && sys_ioctl(relay->from, FIONREAD, &waiting) < 0) waiting = 0;
        relay_drain(relay, waiting);
    }
}

void reap(void) {
    int status, pid;
    while ((pid = sys_wait(&status, WNOHANG)) > 0)
        for (struct command *command = commands; command; command = command->next)
            if (command->pid == pid && !command->ended) {
                command_ended(command, status);
                break;
            }
}

static void say_ended(const struct command *command) {
    struct frame frame;
    frame_start(&frame, FRAME_ENDED);
    frame_number(&frame, 1, command->number);
    int signal = command->status & 0x7F;
    if (signal) {
        frame_number(&frame, 3, (u32)signal);
        if (command->status & 0x80) frame_number(&frame, 4, 1);
    } else {
        frame_number(&frame, 2, (u32)command->status >> 8 & 0xFF);
    }
    if (memory_kills() != command->kills) frame_number(&frame, 5, 1);
    control_send(&frame);
}

// MARK: In the loop

void commands_poll(struct poll_set *set) {
    for (struct command *command = commands; command; command = command->next) {
        command->failure_slot = command->failure >= 0 ? poll_add(set, command->failure, POLLIN) : -1;
        for (int i = 0; i < RELAYS; i++) relay_poll(&command->relays[i], set);
    }
}

static bool is_done(const struct command *command) {
    if (!command->ended) return false;
    for (int i = INPUT + 1; i < RELAYS; i++)
        if (relay_is_open(&command->relays[i])) return false;
    return true;
}

void commands_step(const struct poll_set *set) {
    for (struct command **place = &commands; *place;) {
        struct command *command = *place;
        if (poll_result(set, command->failure_slot)) hear_child(command, false);
        for (int i = 0; i < RELAYS; i++) {
            struct relay *relay = &command->relays[i];
            relay_step(relay, poll_result(set, relay->from_slot), poll_result(set, relay->to_slot));
            relay->from_slot = relay->to_slot = -1;
        }
        // Whoever looked at the terminal is gone: it is hung up.
        if (command->terminal && !command->ended && !relay_is_open(&command->relays[TERMINAL])) close_streams(command);
        if (is_done(command)) {
            close_streams(command);
            if (command->number != 0) say_ended(command);
            *place = command->next;
            release(command, sizeof *command);
        } else {
            place = &command->next;
        }
    }
}
