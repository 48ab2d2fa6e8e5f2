#define _GNU_SOURCE
#include "CNative.h"

#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>

// The child may run a case with any FS base, so nothing below uses the C library's thread state: system calls are
// made directly, and copies with the string instructions.
#define BARE __attribute__((no_stack_protector, noinline))

static inline long call(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

static inline void copy(void *to, const void *from, size_t count) {
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

_Static_assert(offsetof(cnative_shared, read_only) % 4096 == 0 && offsetof(cnative_shared, data) % 4096 == 0, "pages");

static cnative_shared *shared;
static int child_socket;
static uint32_t batch, position;
static bool started;

// What the kernel restores when the child's own code runs; the selectors 32-bit code needs in DS and ES.
static const uint16_t user_data = 0x2B;

// [SDM1 §13.4.2]: XSTATE_BV, at the start of the XSAVE header, tells which components the image holds.
#define XSTATE_BV 512

static BARE void store(cnative_case *slot, int number, ucontext_t *context) {
  greg_t *g = context->uc_mcontext.gregs;
  static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  for (int i = 0; i < 16; i++) slot->general[i] = (uint64_t)g[order[i]];
  slot->rip = (uint64_t)g[REG_RIP];
  slot->rflags = (uint64_t)g[REG_EFL];
  slot->signal = (uint64_t)number;
  slot->vector = (uint64_t)g[REG_TRAPNO];
  slot->error = (uint64_t)g[REG_ERR];
  slot->cr2 = (uint64_t)g[REG_CR2];
  slot->cs = (uint64_t)g[REG_CSGSFS] & 0xFFFF;
  call(SYS_arch_prctl, ARCH_GET_FS, (long)&slot->fs_base, 0);
  call(SYS_arch_prctl, ARCH_GET_GS, (long)&slot->gs_base, 0);
  copy(slot->fxsave, context->uc_mcontext.fpregs, 416);
  copy(slot->memory, shared->data, sizeof slot->memory);
}

static BARE void load(cnative_case *slot, ucontext_t *context) {
  greg_t *g = context->uc_mcontext.gregs;
  static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  for (int i = 0; i < 16; i++) g[order[i]] = (greg_t)slot->general[i];
  g[REG_RIP] = (greg_t)slot->rip;
  g[REG_EFL] = (greg_t)(slot->flags & CNATIVE_BREAKPOINT ? slot->rflags : slot->rflags | 0x100);
  // CS, GS, FS and SS, 16 bits each.
  uint64_t cs = slot->flags & CNATIVE_COMPATIBILITY ? 0x23 : 0x33;
  g[REG_CSGSFS] = (greg_t)(cs | (uint64_t)user_data << 48);
  uint8_t *image = (uint8_t *)context->uc_mcontext.fpregs;
  // All but MXCSR_MASK and what follows the registers, where the kernel keeps its own words.
  copy(image, slot->fxsave, 28);
  copy(image + 32, slot->fxsave + 32, 384);
  *(uint64_t *)(image + XSTATE_BV) |= 3;
  copy(shared->data, slot->memory, sizeof slot->memory);
  copy(shared->code + slot->code_offset, slot->code, slot->code_length);
  __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(user_data));
  call(SYS_arch_prctl, ARCH_SET_FS, (long)slot->fs_base, 0);
  call(SYS_arch_prctl, ARCH_SET_GS, (long)slot->gs_base, 0);
}

static BARE void handle(int number, siginfo_t *information, void *frame) {
  (void)information;
  // The kernel leaves AC, NT and ID as the case had them, and its return loads neither NT nor ID. The red zone is stepped over.
  __asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; andq $~0x244000, (%%rsp); popfq; lea 128(%%rsp), %%rsp" : : : "memory", "cc");
  if (started) {
    store(&shared->slots[position], number, frame);
    shared->progress = ++position;
  }
  while (!started || position >= batch) {
    if (started) call(SYS_write, child_socket, (long)&position, sizeof position);
    uint32_t count;
    if (call(SYS_read, child_socket, (long)&count, sizeof count) != (long)sizeof count || count > CNATIVE_SLOTS)
      call(SYS_exit_group, 0, 0, 0);
    started = true;
    batch = count;
    position = 0;
    shared->progress = 0;
  }
  load(&shared->slots[position], frame);
}

static bool place(int object, size_t offset, uint32_t address, size_t count, int protection) {
  void *at = mmap((void *)(uintptr_t)address, count, protection, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, object,
                  (off_t)offset);
  return at == (void *)(uintptr_t)address;
}

static void child(int object, int socket) {
  child_socket = socket;
  if (dup2(object, 3) < 0) _exit(1);
  // The parent's descriptors, the other end of the socket among them, must close when the parent does.
  if (socket != 4 && dup2(socket, 4) < 0) _exit(1);
  child_socket = 4;
  if (syscall(SYS_close_range, 5u, ~0u, 0u) != 0) _exit(1);
  object = 3;
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, object, 0);
  if (shared == MAP_FAILED) _exit(2);
  if (!place(object, offsetof(cnative_shared, code), CNATIVE_CODE, CNATIVE_PAGE, PROT_READ | PROT_EXEC) ||
      !place(object, offsetof(cnative_shared, data), CNATIVE_DATA, 2 * CNATIVE_PAGE, PROT_READ | PROT_WRITE) ||
      !place(object, offsetof(cnative_shared, read_only), CNATIVE_READ_ONLY, CNATIVE_PAGE, PROT_READ) ||
      !place(object, offsetof(cnative_shared, data) + 2 * CNATIVE_PAGE, CNATIVE_STACK, CNATIVE_PAGE, PROT_READ | PROT_WRITE))
    _exit(3);
  // No core files of what cases break, and an end to a child that its parent forgot.
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
  setrlimit(RLIMIT_CPU, &(struct rlimit){3600, 3600});
  size_t size = 1 << 18;
  void *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (stack == MAP_FAILED || sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = size}, NULL) != 0) _exit(4);
  sigset_t all;
  sigfillset(&all);
  sigset_t faults;
  sigemptyset(&faults);
  struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigfillset(&action.sa_mask);
  static const int signals[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
    if (sigaction(signals[i], &action, NULL) != 0) _exit(5);
    sigdelset(&all, signals[i]);
  }
  sigprocmask(SIG_SETMASK, &all, NULL);
  __builtin_trap();
}

int cnative_map(cnative_shared **result) {
  int object = memfd_create("windhover-native", MFD_CLOEXEC);
  if (object < 0) return -errno;
  if (ftruncate(object, sizeof(cnative_shared)) != 0) return -errno;
  void *at = mmap(NULL, sizeof(cnative_shared), PROT_READ | PROT_WRITE, MAP_SHARED, object, 0);
  if (at == MAP_FAILED) return -errno;
  *result = at;
  return object;
}

int cnative_start(int object, int *pid, int *socket) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return -errno;
  pid_t made = fork();
  if (made < 0) return -errno;
  if (made == 0) {
    // Neither end may be where the object goes.
    int high = fcntl(ends[1], F_DUPFD, 64);
    int from = fcntl(object, F_DUPFD, 64);
    if (high < 0 || from < 0) _exit(1);
    child(from, high);
    _exit(6);
  }
  close(ends[1]);
  *pid = made;
  *socket = ends[0];
  return 0;
}

int cnative_run(int socket, uint32_t count, int milliseconds) {
  if (send(socket, &count, sizeof count, MSG_NOSIGNAL) != (ssize_t)sizeof count) return -EPIPE;
  struct pollfd wait = {.fd = socket, .events = POLLIN};
  int ready;
  do { ready = poll(&wait, 1, milliseconds); } while (ready < 0 && errno == EINTR);
  if (ready == 0) return -ETIMEDOUT;
  uint32_t done = 0;
  if (ready < 0 || recv(socket, &done, sizeof done, 0) != (ssize_t)sizeof done || done != count) return -EPIPE;
  return 0;
}

void cnative_stop(int pid, int socket) {
  close(socket);
  kill(pid, SIGKILL);
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
}
