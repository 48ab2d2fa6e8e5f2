// One instruction on the host's own processor, in ring 3: a child process whose signal handler is the whole program.
//
// Each case enters by the handler's return, which loads every register from the signal frame, and leaves by the next
// signal, which stores them: two system-call-sized crossings and not one instruction of ours between. What a case
// writes, branches to or breaks is the child's; the parent shares with it one memory object and one socket.
#ifndef CNATIVE_H
#define CNATIVE_H

#include <stddef.h>
#include <stdint.h>

// Pages of the sandbox, at fixed low addresses, reachable by any displacement and from 32-bit code. Each group has an
// unmapped page at either side.
#define CNATIVE_CODE 0x20000000u       // one page, read and execute
#define CNATIVE_DATA 0x20010000u       // two pages, read and write
#define CNATIVE_READ_ONLY 0x20012000u  // one page
#define CNATIVE_STACK 0x20020000u      // one page, read and write
#define CNATIVE_PAGE 4096u
#define CNATIVE_SLOTS 32u
#define CNATIVE_CODE_BYTES 64u

enum {
  // Run to the INT3 that follows the instruction; without it, single-step.
  CNATIVE_BREAKPOINT = 1,
  // 32-bit code: selector 0x23.
  CNATIVE_COMPATIBILITY = 2,
};

// One case: what goes in is overwritten by what comes out.
typedef struct {
  uint64_t general[16];  // in encoding order
  uint64_t rip, rflags;
  uint64_t fs_base, gs_base;
  uint64_t flags;
  // What stopped it: the signal, and from the frame the vector, the error code and CR2.
  uint64_t signal, vector, error, cr2, cs;
  uint64_t code_offset, code_length;
  uint8_t code[CNATIVE_CODE_BYTES];
  uint8_t fxsave[512];
  // The two data pages, then the stack page.
  uint8_t memory[3 * 4096];
} cnative_case;

// The object both processes map: a header page, the read-only page's contents, the code page's, then the slots.
typedef struct {
  volatile uint32_t progress;  // cases of the batch that are done
  uint8_t unused[4092];
  uint8_t read_only[4096];
  uint8_t code[4096];
  uint8_t data[3 * 4096];
  cnative_case slots[CNATIVE_SLOTS];
} cnative_shared;

// The general registers of a slot, for a language that sees C arrays as tuples.
static inline uint64_t *_Nonnull cnative_general(cnative_case *_Nonnull slot) { return slot->general; }
static inline uint8_t *_Nonnull cnative_code(cnative_case *_Nonnull slot) { return slot->code; }
static inline uint8_t *_Nonnull cnative_fxsave(cnative_case *_Nonnull slot) { return slot->fxsave; }
static inline uint8_t *_Nonnull cnative_memory(cnative_case *_Nonnull slot) { return slot->memory; }
static inline cnative_case *_Nonnull cnative_slot(cnative_shared *_Nonnull shared, size_t index) {
  return &shared->slots[index];
}
static inline uint8_t *_Nonnull cnative_code_page(cnative_shared *_Nonnull shared) { return shared->code; }
static inline uint8_t *_Nonnull cnative_read_only(cnative_shared *_Nonnull shared) { return shared->read_only; }

// Makes the shared object. Returns its descriptor and maps it, or returns a negative errno.
int cnative_map(cnative_shared *_Nullable *_Nonnull shared);

// Starts the child. Writes its process id and the parent's end of the socket.
// Returns 0, or a negative errno.
int cnative_start(int object, int *_Nonnull pid, int *_Nonnull socket);

// Runs the first `count` slots. Returns 0; -ETIMEDOUT after `milliseconds`; -EPIPE if the child is gone.
int cnative_run(int socket, uint32_t count, int milliseconds);

// Kills and reaps the child, and closes the socket.
void cnative_stop(int pid, int socket);

#endif
