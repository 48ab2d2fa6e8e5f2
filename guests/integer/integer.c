// Integer code as compilers make it: a CRC, a sort, a sieve, calls, a state machine. Each prints a checksum of what it
// computed. The command line says how often each is done ("crc=10"); without a word of it, each once.
#include "guest.h"

enum { WORDS = 4096, LIMIT = 65536, TEXT = 16384 };

static u32 words[WORDS];
static u8 composite[LIMIT];
static u8 text[TEXT];
static u32 table[256];

static u32 random_state = 1;
static u32 next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

/// CRC-32, a table look-up a byte.
static u32 crc(void) {
    u32 value = ~0u;
    for (size_t i = 0; i < TEXT; i++) value = value >> 8 ^ table[(value ^ text[i]) & 0xFF];
    return ~value;
}

static void sift(u32 *heap, size_t root, size_t count) {
    u32 value = heap[root];
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && heap[child] < heap[child + 1]) child++;
        if (heap[child] <= value) break;
        heap[root] = heap[child];
    }
    heap[root] = value;
}

/// Heap sort of random words.
static u32 sort(void) {
    random_state = 12345;
    for (size_t i = 0; i < WORDS; i++) words[i] = next_random();
    for (size_t i = WORDS / 2; i-- > 0;) sift(words, i, WORDS);
    for (size_t i = WORDS; i-- > 1;) {
        u32 top = words[0];
        words[0] = words[i];
        words[i] = top;
        sift(words, 0, i);
    }
    u32 sum = 0;
    for (size_t i = 0; i < WORDS; i++) {
        if (i && words[i - 1] > words[i]) fail("not sorted at %u", (u32)i);
        sum = sum * 31 + words[i];
    }
    return sum;
}

/// Eratosthenes'.
static u32 sieve(void) {
    for (size_t i = 0; i < LIMIT; i++) composite[i] = 0;
    u32 count = 0;
    for (u32 i = 2; i < LIMIT; i++) {
        if (composite[i]) continue;
        count++;
        for (u32 multiple = i * 2; multiple < LIMIT; multiple += i) composite[multiple] = 1;
    }
    return count;
}

static __attribute__((noinline)) u32 fibonacci(u32 n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

/// Calls and returns.
static u32 calls(void) { return fibonacci(18); }

/// Counts the words and numbers of a text, and what is neither, one state a character; every fourth character through a
/// pointer to a function.
static u32 count_letters, count_digits, count_others;
static void on_letter(u8 c) { count_letters += c; }
static void on_digit(u8 c) { count_digits += c; }
static void on_other(u8 c) { count_others += c; }
static u32 state(void) {
    static void (*const actions[])(u8) = {on_other, on_letter, on_digit, on_letter};
    enum { NONE, WORD, NUMBER, MIXED } now = NONE;
    u32 counted = 0;
    count_letters = count_digits = count_others = 0;
    for (size_t i = 0; i < TEXT; i++) {
        u8 c = text[i];
        bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z', digit = c >= '0' && c <= '9';
        switch (now) {
        case NONE: now = letter ? WORD : digit ? NUMBER : NONE; break;
        case WORD: if (!letter) now = digit ? MIXED : NONE, counted += !digit; break;
        case NUMBER: if (!digit) now = letter ? MIXED : NONE, counted += letter ? 0 : 16; break;
        case MIXED: if (!letter && !digit) now = NONE, counted += 256; break;
        }
        if (i % 4 == 0) actions[now](c);
    }
    return counted + count_letters * 3 + count_digits * 5 + count_others * 7;
}

/// The number after "name=" on the command line; without such a word `otherwise`.
static u32 rounds(const char *name, u32 otherwise) {
    size_t n = strlen(name);
    for (const char *p = boot.command_line; *p; p++) {
        if ((p != boot.command_line && p[-1] != ' ') || strlen(p) <= n || memcmp(p, name, n) != 0 || p[n] != '=') continue;
        u32 value = 0;
        for (p += n + 1; *p >= '0' && *p <= '9'; p++) value = value * 10 + (u32)(*p - '0');
        return value;
    }
    return otherwise;
}

static const struct { const char *name; u32 (*run)(void); } kinds[] = {
    {"crc", crc}, {"sort", sort}, {"sieve", sieve}, {"calls", calls}, {"state", state},
};

void guest_main(void) {
    for (u32 i = 0; i < 256; i++) {
        u32 value = i;
        for (int bit = 0; bit < 8; bit++) value = value & 1 ? value >> 1 ^ 0xEDB88320 : value >> 1;
        table[i] = value;
    }
    static const char alphabet[] = "etaoinshrdlucmfwypvbgkjqxz0123456789    .,;:-ETAOINSHRDLU    \n\n ";
    for (size_t i = 0; i < TEXT; i++) text[i] = (u8)alphabet[next_random() >> 7 & 63];
    // Nothing asked for is everything, once.
    bool all = true;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (rounds(kinds[i].name, 0)) all = false;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        u32 count = rounds(kinds[i].name, all ? 1 : 0), value = 0;
        if (!count) continue;
        for (u32 n = 0; n < count; n++) {
            u32 again = kinds[i].run();
            if (n && again != value) fail("%s: %08x, then %08x", kinds[i].name, value, again);
            value = again;
        }
        printf("%s %08x\n", kinds[i].name, value);
    }
}
