#define _GNU_SOURCE
#include "CHostTerminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

// Written before `raw` is set and never while it is, so that a handler may read them.
static struct termios cooked_mode, raw_mode;
static int terminal = -1, watch_pipe = -1;
static pid_t watcher = -1;
static volatile sig_atomic_t raw = 0;
static bool exit_handler_installed = false, crash_handlers_installed = false;

// Signals that mean the process is broken: give the terminal back, then die of the signal.
static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSYS};
static const int termination_signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

// In the background the terminal is the shell's: to change its mode then would disturb whatever is in front,
// and stop us with SIGTTOU. A terminal that is not our controlling one has no foreground to ask about.
static bool in_background(void) {
  pid_t foreground = tcgetpgrp(terminal);
  return foreground > 0 && foreground != getpgrp();
}

// Whether the mode is what we set: where another program has set its own since (a shell, a pager that the output is piped into), it
// knows better.
static bool is_ours(void) {
  struct termios now;
  return tcgetattr(terminal, &now) == 0 && now.c_lflag == raw_mode.c_lflag && now.c_iflag == raw_mode.c_iflag &&
         now.c_oflag == raw_mode.c_oflag;
}

// The terminal's mode back, once, from whichever way out comes first.
static void give_back(void) {
  if (!raw) return;
  raw = 0;
  if (!in_background() && is_ours()) tcsetattr(terminal, TCSANOW, &cooked_mode);
}

void chost_terminal_restore(void) {
  int saved = errno;
  give_back();
  int pipe = watch_pipe;
  pid_t child = watcher;
  watch_pipe = -1;
  watcher = -1;
  if (pipe >= 0) {
    // One byte tells the child that all is done; without it, the end of the pipe means we were killed.
    while (write(pipe, "", 1) < 0 && errno == EINTR) {}
    close(pipe);
  }
  if (child > 0)
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
  errno = saved;
}

bool chost_terminal_is_raw(void) { return raw != 0; }

void chost_terminal_vanish(void) {
  raw = 0;
  if (watch_pipe >= 0) close(watch_pipe);
  watch_pipe = -1;
  if (watcher > 0)
    while (waitpid(watcher, NULL, 0) < 0 && errno == EINTR) {}
  watcher = -1;
}

// For signals that end the process: SA_RESETHAND has put the default action back already.
static void on_fatal(int number) {
  chost_terminal_restore();
  raise(number);
}

// What handled the crash signals before: the language's own backtracer, which is to find a terminal that it can print to.
static struct sigaction before_crash[NSIG];

static void on_crash(int number, siginfo_t *info, void *context) {
  (void)context;
  chost_terminal_restore();
  sigaction(number, &before_crash[number], NULL);
  // A fault comes again when its instruction does, with all that a backtrace wants to know. What was sent does not.
  if (info->si_code <= 0) raise(number);
}

static void install_crash(int number) {
  struct sigaction action;
  if (sigaction(number, NULL, &before_crash[number]) != 0) return;
  if (before_crash[number].sa_handler == SIG_IGN) return;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_crash;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(number, &action, NULL);
}

static void install(int number, void (*handler)(int), int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  sigaction(number, &action, NULL);
}

// Installs a handler only where nobody has: a signal that is ignored (nohup) or handled stays so.
static void install_if_default(int number, void (*handler)(int), int flags) {
  struct sigaction present;
  if (sigaction(number, NULL, &present) == 0 && present.sa_handler == SIG_DFL) install(number, handler, flags);
}

static void on_continue(int number) {
  (void)number;
  int saved = errno;
  // The shell set its own mode while we were stopped.
  if (raw && !in_background()) tcsetattr(terminal, TCSANOW, &raw_mode);
  errno = saved;
}

static void on_stop(int number) {
  int saved = errno;
  if (raw && !in_background()) tcsetattr(terminal, TCSANOW, &cooked_mode);
  // Stop by the default action, here; what continues us runs on_continue first, then the rest of this. In a process group
  // that no shell watches the default action is to go on.
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, number);
  install(number, SIG_DFL, 0);
  raise(number);
  sigset_t before;
  pthread_sigmask(SIG_UNBLOCK, &only, &before);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  install(number, on_stop, SA_RESTART);
  if (raw && !in_background()) tcsetattr(terminal, TCSANOW, &raw_mode);
  errno = saved;
}

// The child: waits for the parent to say goodbye or to vanish. It is in a session of its own, so that neither
// the terminal's signals nor a kill of the parent's process group reach it.
static void watch(int pipe) {
  setsid();
  prctl(PR_SET_NAME, "hover-terminal", 0, 0, 0);
  // Nothing else of the parent's may stay open: whoever waits for a pipe of ours to end would wait for us.
  for (int fd = 0; fd < 256; fd++)
    if (fd != terminal && fd != pipe) close(fd);
#ifdef SYS_close_range
  if (terminal < 256 && pipe < 256) syscall(SYS_close_range, 256, ~0U, 0);
#endif
  for (int number = 1; number < 32; number++) signal(number, number == SIGCHLD ? SIG_DFL : SIG_IGN);
  char byte;
  ssize_t count;
  do count = read(pipe, &byte, 1);
  while (count < 0 && errno == EINTR);
  if (count == 0 && is_ours()) tcsetattr(terminal, TCSANOW, &cooked_mode);
  _exit(0);
}

// Without the child everything works but the return after SIGKILL, so its failure is not one of ours.
static void start_watcher(void) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t child = fork();
  if (child == 0) {
    close(ends[1]);
    watch(ends[0]);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  close(ends[0]);
  if (child < 0) {
    close(ends[1]);
    return;
  }
  watcher = child;
  watch_pipe = ends[1];
}

int chost_terminal_raw(int descriptor, bool terminations, bool output) {
  if (raw) return 0;
  struct termios mode;
  if (tcgetattr(descriptor, &mode) != 0) return -errno;
  cooked_mode = mode;
  cfmakeraw(&mode);
  if (!output) mode.c_oflag = cooked_mode.c_oflag;
  mode.c_cc[VMIN] = 1;
  mode.c_cc[VTIME] = 0;
  raw_mode = mode;
  terminal = descriptor;

  start_watcher();
  if (!exit_handler_installed) {
    atexit(chost_terminal_restore);
    exit_handler_installed = true;
  }
  if (!crash_handlers_installed)
    for (unsigned i = 0; i < sizeof crash_signals / sizeof *crash_signals; i++) install_crash(crash_signals[i]);
  crash_handlers_installed = true;
  if (terminations)
    for (unsigned i = 0; i < sizeof termination_signals / sizeof *termination_signals; i++)
      install_if_default(termination_signals[i], on_fatal, SA_RESETHAND | SA_NODEFER);
  install_if_default(SIGTSTP, on_stop, SA_RESTART);
  install_if_default(SIGCONT, on_continue, SA_RESTART);

  // TCSANOW: what was typed before the guest is ready stays in the queue, and is the guest's.
  raw = 1;
  if (tcsetattr(descriptor, TCSANOW, &raw_mode) != 0) {
    int code = errno;
    raw = 0;
    chost_terminal_restore();
    return -code;
  }
  return 0;
}
