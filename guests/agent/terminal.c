// A command's terminal: a pair of the kernel's. Source: [LINUX-PTY].
#include "agent.h"

struct window { u16 rows, columns, width, height; };
/// The kernel's own, which is not the C library's.
struct termios { u32 input, output, control, local; u8 line, characters[19]; };
enum { IUTF8 = 0040000 };

static u16 clamped(u32 value) { return value < UINT16_MAX ? (u16)value : UINT16_MAX; }

void terminal_resize(int master, u32 rows, u32 columns) {
    struct window window = { .rows = clamped(rows), .columns = clamped(columns) };
    sys_ioctl(master, TIOCSWINSZ, &window);
}

int terminal_open(u32 rows, u32 columns, int *master, int *slave) {
    *slave = -1;
    *master = sys_open("/dev/ptmx", O_RDWR | O_NOCTTY, 0);
    if (*master < 0) return *master;
    int unlocked = 0;
    int error = sys_ioctl(*master, TIOCSPTLCK, &unlocked);
    if (error == 0) {
        // By the master itself, not by a name in whatever is mounted at /dev/pts.
        *slave = sys_ioctl(*master, TIOCGPTPEER, (void *)(long)(O_RDWR | O_NOCTTY | O_CLOEXEC));
        if (*slave < 0) error = *slave;
    }
    if (error < 0) {
        sys_close(*master);
        return error;
    }
    // So that erasing takes away a character that is several bytes.
    struct termios settings;
    if (sys_ioctl(*slave, TCGETS, &settings) == 0) {
        settings.input |= IUTF8;
        sys_ioctl(*slave, TCSETS, &settings);
    }
    terminal_resize(*master, rows, columns);
    return 0;
}
