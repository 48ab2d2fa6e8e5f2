// The host kernel's io_uring(7), which the C library does not wrap: one ring of submissions, one of completions.
// A ring is used by one thread at a time. Functions that can fail return -errno.
#ifndef CHOST_RING_H
#define CHOST_RING_H

#include <stdbool.h>
#include <stdint.h>

enum { chost_ring_readv = 1, chost_ring_writev = 2, chost_ring_datasync = 3, chost_ring_cancel_all = 4 };

// Makes a ring; 0, and its handle at `ring`, or -errno where the host has none, too old a one, or does not let us.
// `event` is an eventfd that is counted up with every completion.
int chost_ring_open(uint32_t entries, int event, uintptr_t *_Nonnull ring);
void chost_ring_close(uintptr_t ring);

// Readable while there are completions.
int chost_ring_descriptor(uintptr_t ring);
// How many submissions may be out without any completion having to wait for room.
uint32_t chost_ring_capacity(uintptr_t ring);

// Queues a submission; false where the ring is full and has to be entered first.
// `vectors` and `count` are for readv and writev; `user` comes back with the completion. `elsewhere` keeps the kernel from
// doing the work at once, while we enter the ring.
bool chost_ring_push(uintptr_t ring, int operation, int descriptor, uint64_t offset, uintptr_t vectors, uint32_t count,
                     bool elsewhere, uint64_t user);

// Hands what is queued to the kernel; does not wait. 0 where nothing is left queued.
int chost_ring_enter(uintptr_t ring);

// Takes back the last submission that the kernel has not taken; false where there is none.
bool chost_ring_withdraw(uintptr_t ring, uint64_t *_Nonnull user);

// Takes a completion, if there is one.
bool chost_ring_pop(uintptr_t ring, uint64_t *_Nonnull user, int32_t *_Nonnull result);

#endif
