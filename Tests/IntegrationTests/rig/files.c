// Uses a file system in every way that programs do, and says what came of each step: the same on the host and through a share, but for
// what is wrong with one of them.
//
//   files DIRECTORY COUNT     works in DIRECTORY, which is empty, with COUNT small files among others; those that stay are looked at
//                             by whoever started it
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/// Says a step's result: a number, or the error's name.
static long say(const char *what, long result) {
    if (result < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else printf("%s: %ld\n", what, result);
    return result;
}

static void say_file(const char *name) {
    struct stat s;
    if (lstat(name, &s) != 0) {
        printf("%s: %s\n", name, strerrorname_np(errno));
        return;
    }
    // The size of a directory is its file system's own affair.
    printf("%s: mode %o, links %d, size %ld, owner %d:%d\n", name, s.st_mode, S_ISDIR(s.st_mode) ? 0 : (int)s.st_nlink,
           S_ISDIR(s.st_mode) ? 0L : (long)s.st_size, (int)s.st_uid, (int)s.st_gid);
}

static int make(const char *name, const char *text) {
    int fd = open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644);
    if (fd >= 0 && text && write(fd, text, strlen(text)) < 0) perror(name);
    return fd;
}

static void say_text(const char *name) {
    char text[200];
    int fd = open(name, O_RDONLY);
    long count = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (count >= 0) text[count] = 0;
    printf("%s: %s\n", name, count < 0 ? strerrorname_np(errno) : text);
    if (fd >= 0) close(fd);
}

static void creating(void) {
    close(make("a", "one"));
    say("make what is there", make("a", NULL));
    say("make in what is not there", make("no/a", NULL));
    say("make below a file", make("a/b", NULL));
    say("mkdir", mkdir("d", 0751));
    say("mkdir what is there", mkdir("d", 0755));
    umask(027);
    close(open("masked", O_CREAT | O_WRONLY, 0666));
    umask(022);
    say_file("masked");
    char name[300];
    memset(name, 'n', sizeof name);
    name[255] = 0;
    say("a name of 255", make(name, NULL));
    memset(name, 'n', sizeof name);
    name[256] = 0;
    say("a name of 256", make(name, NULL));
    say("a name of no UTF-8", make("\xff\xfe name\n", NULL));
    say("mkfifo", mkfifo("fifo", 0600));
    say_file("fifo");
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    say("a socket", bind(listener, (struct sockaddr *)&address, sizeof address));
    close(listener);
    say_file("socket");
    say("open a directory to write", open("d", O_WRONLY));
    say("rmdir a file", rmdir("a"));
    say("unlink a directory", unlink("d"));
}

static void renaming(void) {
    close(make("r1", "first"));
    close(make("r2", "second"));
    say("rename over a file", rename("r1", "r2"));
    say_text("r2");
    say_file("r1");
    close(make("r1", "third"));
    say("rename not over", renameat2(AT_FDCWD, "r1", AT_FDCWD, "r2", RENAME_NOREPLACE));
    say("rename to a new name", renameat2(AT_FDCWD, "r1", AT_FDCWD, "r3", RENAME_NOREPLACE));
    say("exchange", renameat2(AT_FDCWD, "r2", AT_FDCWD, "r3", RENAME_EXCHANGE));
    say_text("r2");
    say_text("r3");
    mkdir("full", 0755);
    close(make("full/x", "x"));
    mkdir("empty", 0755);
    say("a directory over a full one", rename("empty", "full"));
    say("a directory over an empty one", rename("full", "empty"));
    say_file("empty/x");
    say("a directory into itself", rename("empty", "empty/below"));
    say("a directory over a file", rename("empty", "r2"));
    say("a file over a directory", rename("r2", "empty"));
}

static void linking(void) {
    say("link", link("r2", "hard"));
    say_file("r2");
    say("link a directory", link("empty", "hard2"));
    say("symlink", symlink("../somewhere/else", "soft"));
    char target[100] = "";
    say("readlink", readlink("soft", target, sizeof target - 1));
    puts(target);
    symlink("loop", "loop");
    say("open a loop", open("loop", O_RDONLY));
    say("open a link itself", open("soft", O_RDONLY | O_NOFOLLOW));
    int fd = make("gone", "still there");
    say("unlink an open file", unlink("gone"));
    struct stat s;
    fstat(fd, &s);
    printf("links %d\n", (int)s.st_nlink);
    char text[20] = "";
    say("read it", pread(fd, text, 19, 0));
    puts(text);
    say("write it", pwrite(fd, "X", 1, 100000));
    fstat(fd, &s);
    printf("size %ld\n", (long)s.st_size);
    close(fd);
}

static void sizes(void) {
    int fd = make("size", "0123456789");
    say("shorter", ftruncate(fd, 4));
    say("longer", ftruncate(fd, 12));
    char text[20] = "";
    say("read", pread(fd, text, 20, 0));
    for (int i = 0; i < 12; i++) printf("%02x", (unsigned char)text[i]);
    puts("");
    say("truncate by name", truncate("size", 5));
    int more = open("size", O_WRONLY | O_APPEND);
    write(more, "ab", 2);
    write(fd, "Z", 1);
    write(more, "cd", 2);
    close(more);
    say_file("size");
    say_text("size");
    say("negative", ftruncate(fd, -1));
    close(fd);

    // A gibibyte with three islands.
    fd = make("sparse", NULL);
    say("a gibibyte", ftruncate(fd, 1 << 30));
    pwrite(fd, "begin", 5, 0);
    pwrite(fd, "middle", 6, 512 << 20);
    pwrite(fd, "end", 3, (1 << 30) - 3);
    fsync(fd);
    struct stat s;
    fstat(fd, &s);
    printf("size %ld, few blocks: %d\n", (long)s.st_size, s.st_blocks < 2048);
    long data = lseek(fd, 4 << 20, SEEK_DATA), hole = lseek(fd, 0, SEEK_HOLE);
    printf("data from %ld MiB, a hole within the first: %d\n", data >> 20, hole > 0 && hole <= 1 << 20);
    say("data behind the end", lseek(fd, 1 << 30, SEEK_DATA));
    say("allocate", fallocate(fd, FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 20));
    say("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 512 << 20, 4096));
    say("what was in the middle", pread(fd, text, 6, 512 << 20));
    printf("%d\n", text[0]);
    close(fd);
    int from = open("size", O_RDONLY), to = make("copied", NULL);
    say("copy_file_range", copy_file_range(from, NULL, to, NULL, 100, 0));
    lseek(from, 0, SEEK_SET);
    say("sendfile", sendfile(to, from, NULL, 100));
    close(from);
    close(to);
    say_text("copied");
}

static void mapping(void) {
    int fd = make("mapped", NULL);
    ftruncate(fd, 3 * 4096);
    char *page = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        say("mmap", -1);
        return;
    }
    strcpy(page + 4096, "by memory");
    char text[20] = "";
    pread(fd, text, 9, 4096);
    puts(text);
    pwrite(fd, "by a call", 9, 8192);
    say("the other way", memcmp(page + 8192, "by a call", 9));
    say("msync", msync(page, 3 * 4096, MS_SYNC));
    munmap(page, 3 * 4096);
    char *own = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 4096);
    own[0] = 'X';
    pread(fd, text, 9, 4096);
    puts(text);
    munmap(own, 4096);
    close(fd);
}

static void locking(void) {
    int fd = make("locked", "0123456789");
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2, .l_len = 3};
    say("lock", fcntl(fd, F_SETLK, &lock));
    say("flock", flock(fd, LOCK_EX));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int own = open("locked", O_RDWR);
        lock.l_start = 4;
        say("another's lock", fcntl(own, F_SETLK, &lock));
        lock.l_start = 5;
        say("beside it", fcntl(own, F_SETLK, &lock));
        lock = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
        say("who has it", fcntl(own, F_GETLK, &lock));
        printf("from %ld, %ld bytes, its parent: %d\n", (long)lock.l_start, (long)lock.l_len, lock.l_pid == getppid());
        say("another's flock", flock(own, LOCK_SH | LOCK_NB));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    flock(fd, LOCK_UN);
    child = fork();
    if (child == 0) {
        int own = open("locked", O_RDWR);
        say("flock when it is free", flock(own, LOCK_EX | LOCK_NB));
        lock.l_start = 2;
        lock.l_len = 3;
        // Waits until the parent lets go.
        say("a lock that is waited for", fcntl(own, F_SETLKW, &lock));
        fflush(stdout);
        _exit(0);
    }
    usleep(200000);
    lock = (struct flock){.l_type = F_UNLCK, .l_whence = SEEK_SET};
    fcntl(fd, F_SETLK, &lock);
    waitpid(child, NULL, 0);
    close(fd);
}

static void attributes(void) {
    close(make("attributes", "x"));
    say("chmod", chmod("attributes", 04711));
    say_file("attributes");
    struct timespec times[2] = {{1000000000, 123456789}, {1500000000, 987654321}};
    say("utimensat", utimensat(AT_FDCWD, "attributes", times, 0));
    struct stat s;
    stat("attributes", &s);
    printf("%ld.%09ld %ld.%09ld\n", (long)s.st_atim.tv_sec, s.st_atim.tv_nsec, (long)s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
    say("setxattr", setxattr("attributes", "user.one", "value", 5, 0));
    say("again", setxattr("attributes", "user.one", "value", 5, XATTR_CREATE));
    say("replace what is not there", setxattr("attributes", "user.two", "v", 1, XATTR_REPLACE));
    setxattr("attributes", "user.two", "", 0, 0);
    char text[100];
    memset(text, 0, sizeof text);
    say("getxattr", getxattr("attributes", "user.one", text, sizeof text));
    puts(text);
    say("its size", getxattr("attributes", "user.one", NULL, 0));
    say("too short", getxattr("attributes", "user.one", text, 2));
    say("listxattr", listxattr("attributes", text, sizeof text));
    say("removexattr", removexattr("attributes", "user.one"));
    say("when it is gone", getxattr("attributes", "user.one", text, sizeof text));
    say("access", access("attributes", X_OK));
}

static void many(int count) {
    char name[64], text[64];
    mkdir("many", 0755);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "many/%d", i / 1000);
        if (i % 1000 == 0) mkdir(name, 0755);
        snprintf(name, sizeof name, "many/%d/%d", i / 1000, i);
        int length = snprintf(text, sizeof text, "file %d\n", i * 7);
        int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0 || write(fd, text, (size_t)length) != length) {
            say(name, -1);
            return;
        }
        close(fd);
    }
    long found = 0, sum = 0;
    for (int i = 0; i < (count + 999) / 1000; i++) {
        snprintf(name, sizeof name, "many/%d", i);
        DIR *directory = opendir(name);
        for (struct dirent *entry; directory && (entry = readdir(directory));)
            if (entry->d_name[0] != '.') found++, sum += atol(entry->d_name), found += entry->d_type != DT_REG;
        if (directory) closedir(directory);
    }
    printf("%ld files, their numbers are %ld in all\n", found, sum);
    for (int i = 0; i < count; i += 2) {
        snprintf(name, sizeof name, "many/%d/%d", i / 1000, i);
        if (unlink(name) != 0) say(name, -1);
    }
    say("a directory that is not empty", rmdir("many/0"));
}

int main(int count, char **arguments) {
    if (count != 3 || chdir(arguments[1]) != 0) return 64;
    umask(022);
    creating();
    renaming();
    linking();
    sizes();
    mapping();
    locking();
    attributes();
    many(atoi(arguments[2]));
    return 0;
}
