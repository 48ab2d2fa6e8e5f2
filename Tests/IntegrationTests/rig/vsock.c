// Sockets between guest and host, for a guest that has no library: `vsock connect PORT` sends a line to the host and prints what
// comes back; `vsock listen PORT` gives one connection back whatever it sends.
typedef unsigned long word;

static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

enum { read_ = 0, write_ = 1, socket_ = 41, connect_ = 42, accept_ = 43, bind_ = 49, listen_ = 50, exit_ = 60 };
enum { AF_VSOCK = 40, SOCK_STREAM = 1, HOST = 2 };
#define ANY 0xFFFFFFFFu

struct address {
    unsigned short family, reserved;
    unsigned port, cid;
    unsigned char zero[4];
};

static void put(const char *text, long count) { call(write_, 1, (long)text, count); }

static int fail(const char *text) {
    long count = 0;
    while (text[count]) count++;
    put(text, count);
    put("\n", 1);
    return 1;
}

static int run(long *stack) {
    char **words = (char **)(stack + 1);
    if (stack[0] != 3) return fail("usage: vsock connect|listen PORT");
    unsigned port = 0;
    for (char *digit = words[2]; *digit; digit++) port = port * 10 + (unsigned)(*digit - '0');
    long end = call(socket_, AF_VSOCK, SOCK_STREAM, 0);
    if (end < 0) return fail("vsock: no socket");
    struct address address = {AF_VSOCK, 0, port, words[1][0] == 'c' ? HOST : ANY, {0}};
    static char buffer[65536];
    if (words[1][0] == 'c') {
        if (call(connect_, end, (long)&address, sizeof address) < 0) return fail("vsock: cannot connect");
        static const char line[] = "from the guest\n";
        call(write_, end, (long)line, sizeof line - 1);
        long count = call(read_, end, (long)buffer, sizeof buffer);
        if (count > 0) put(buffer, count);
        return count > 0 ? 0 : fail("vsock: no answer");
    }
    if (call(bind_, end, (long)&address, sizeof address) < 0) return fail("vsock: cannot bind");
    if (call(listen_, end, 1, 0) < 0) return fail("vsock: cannot listen");
    put("listening\n", 10);
    long peer = call(accept_, end, 0, 0);
    if (peer < 0) return fail("vsock: nobody comes");
    word total = 0;
    for (long count; (count = call(read_, peer, (long)buffer, sizeof buffer)) > 0; total += (word)count)
        for (long done = 0, part; done < count; done += part)
            if ((part = call(write_, peer, (long)buffer + done, count - done)) <= 0) return fail("vsock: lost");
    put("done\n", 5);
    return total ? 0 : 1;
}

__attribute__((used)) static void begin(long *stack) { call(exit_, run(stack), 0, 0); }

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
