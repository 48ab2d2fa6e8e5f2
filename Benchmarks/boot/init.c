// The guest's /init: says that user space is reached, and stays. Everything that is measured happens before.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int main(void) {
    static const char line[] = "USER-SPACE\n";
    // An initramfs has no /dev of its own; the kernel opens /dev/console for us only where it finds one.
    mkdir("/dev", 0755);
    mknod("/dev/console", S_IFCHR | 0600, makedev(5, 1));
    int console = open("/dev/console", O_WRONLY | O_NOCTTY);
    if (console >= 0) write(console, line, sizeof line - 1);
    for (;;) pause();
}
