// Bytes, text, pages, and files read whole.
#include "agent.h"

// MARK: What the compiler calls
#include "bytes.h"

// MARK: Text

size_t length_of(const char *text) {
    size_t count = 0;
    while (text[count]) count++;
    return count;
}

bool equal(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

bool begins(const char *text, const char *start) {
    while (*start && *text == *start) text++, start++;
    return !*start;
}

char *find_byte(const char *bytes, size_t count, char byte) {
    for (; count; bytes++, count--)
        if (*bytes == byte) return (char *)bytes;
    return NULL;
}

char *cut_line(char *text) {
    while (*text && *text != '\n') text++;
    if (*text) *text++ = 0;
    return text;
}

bool parse_number(const char *digits, size_t count, u32 base, u32 *value) {
    u64 number = 0;
    if (count == 0) return false;
    for (; count; digits++, count--) {
        u32 digit = (u32)(u8)*digits - '0';
        if (digit >= base) return false;
        number = number * base + digit;
        if (number > UINT32_MAX) return false;
    }
    *value = (u32)number;
    return true;
}

void put(struct line *line, const char *text) {
    while (*text && line->count < sizeof line->text - 1) line->text[line->count++] = *text++;
    line->text[line->count] = 0;
}

void put_number(struct line *line, u64 number) {
    char digits[21];
    size_t place = sizeof digits - 1;
    digits[place] = 0;
    do digits[--place] = (char)('0' + number % 10), number /= 10;
    while (number);
    put(line, digits + place);
}

void put_error(struct line *line, int error) {
    static const struct { u8 number; const char *name; } names[] = {
        { EPERM, "EPERM" }, { ENOENT, "ENOENT" }, { EIO, "EIO" }, { ENXIO, "ENXIO" }, { ENOEXEC, "ENOEXEC" }, { ENOMEM, "ENOMEM" },
        { EACCES, "EACCES" }, { ENOTBLK, "ENOTBLK" }, { EBUSY, "EBUSY" }, { EEXIST, "EEXIST" }, { ENODEV, "ENODEV" },
        { ENOTDIR, "ENOTDIR" }, { EINVAL, "EINVAL" }, { EMFILE, "EMFILE" }, { ENOSPC, "ENOSPC" }, { EROFS, "EROFS" },
        { ENOSYS, "ENOSYS" }, { EAFNOSUPPORT, "EAFNOSUPPORT" }, { ENETUNREACH, "ENETUNREACH" }, { ECONNRESET, "ECONNRESET" },
        { ETIMEDOUT, "ETIMEDOUT" }, { ECONNREFUSED, "ECONNREFUSED" }, { EKEYREJECTED, "EKEYREJECTED" },
    };
    if (error < 0) error = -error;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].number == error) {
            put(line, names[i].name);
            put(line, ", ");
        }
    put(line, "error ");
    put_number(line, (u64)error);
}

// MARK: Pages

void *pages(size_t size) {
    long address = sys_mmap(size);
    return address < 0 && address > -4096 ? NULL : (void *)address;
}

void release(void *bytes, size_t size) {
    if (bytes) sys_munmap(bytes, size);
}

// MARK: Files

int read_file(const char *path, size_t limit, struct contents *contents) {
    *contents = (struct contents){ 0 };
    int fd = sys_open(path, O_RDONLY, 0);
    if (fd < 0) return fd;
    // Files of /proc do not say how long they are, so room grows with what comes.
    size_t room = 16384;
    char *bytes = pages(room);
    size_t count = 0;
    long error = bytes ? 0 : -ENOMEM;
    while (bytes) {
        if (count == room - 1) {
            char *larger = room < limit ? pages(room * 2) : NULL;
            if (!larger) {
                error = room < limit ? -ENOMEM : -EFBIG;
                break;
            }
            memcpy(larger, bytes, count);
            release(bytes, room);
            bytes = larger;
            room *= 2;
        }
        long got = sys_read(fd, bytes + count, room - 1 - count);
        if (got == -EINTR) continue;
        if (got <= 0) {
            error = got;
            break;
        }
        count += (size_t)got;
    }
    sys_close(fd);
    if (error < 0) {
        release(bytes, room);
        return (int)error;
    }
    bytes[count] = 0;
    *contents = (struct contents){ .bytes = bytes, .count = count, .mapped = room };
    return 0;
}

int write_all(int fd, const void *bytes, size_t count) {
    const u8 *p = bytes;
    while (count) {
        long done = sys_write(fd, p, count);
        if (done == -EINTR) continue;
        if (done < 0) return (int)done;
        p += done;
        count -= (size_t)done;
    }
    return 0;
}

// MARK: Time

u64 now_milliseconds(void) {
    struct timespec time = { 0, 0 };
    sys_clock_gettime(CLOCK_MONOTONIC, &time);
    return (u64)time.seconds * 1000 + (u64)time.nanoseconds / 1000000;
}

void sleep_milliseconds(u64 time) {
    struct timespec limit = { (i64)(time / 1000), (i64)(time % 1000) * 1000000 };
    sys_nanosleep(&limit);
}
