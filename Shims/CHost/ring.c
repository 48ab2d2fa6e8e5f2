#define _GNU_SOURCE
#include "CHostRing.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef IORING_ASYNC_CANCEL_ALL
#define IORING_ASYNC_CANCEL_ALL (1U << 0)
#define IORING_ASYNC_CANCEL_ANY (1U << 2)
#endif

struct ring {
  int descriptor;
  uint32_t entries, completions;
  uint32_t *head, *tail, *mask;
  uint32_t *done_head, *done_tail, *done_mask, *flags;
  struct io_uring_sqe *submissions;
  struct io_uring_cqe *done;
  void *rings;
  size_t rings_size, submissions_size;
};

static uint32_t acquire(const uint32_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static void release(uint32_t *at, uint32_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

static int enter(struct ring *ring, uint32_t count, uint32_t flags) {
  return (int)syscall(SYS_io_uring_enter, ring->descriptor, count, 0, flags, NULL, 0);
}

int chost_ring_open(uint32_t entries, int event, uintptr_t *result) {
  struct io_uring_params params;
  memset(&params, 0, sizeof params);
  params.flags = IORING_SETUP_CLAMP;
  int descriptor = (int)syscall(SYS_io_uring_setup, entries, &params);
  if (descriptor < 0) return -errno;
  // Linux 5.5: completions are never dropped, and vectors need not outlive the submission.
  uint32_t needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE;
  if ((params.features & needed) != needed) {
    close(descriptor);
    return -ENOSYS;
  }
  struct ring *ring = calloc(1, sizeof *ring);
  if (!ring) {
    close(descriptor);
    return -ENOMEM;
  }
  ring->descriptor = descriptor;
  ring->entries = params.sq_entries;
  ring->completions = params.cq_entries;
  size_t first = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
  size_t second = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  ring->rings_size = first > second ? first : second;
  ring->submissions_size = params.sq_entries * sizeof(struct io_uring_sqe);
  int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
  ring->rings = mmap(NULL, ring->rings_size, protection, flags, descriptor, IORING_OFF_SQ_RING);
  ring->submissions = mmap(NULL, ring->submissions_size, protection, flags, descriptor, IORING_OFF_SQES);
  int error = 0;
  if (ring->rings == MAP_FAILED || ring->submissions == MAP_FAILED ||
      syscall(SYS_io_uring_register, descriptor, IORING_REGISTER_EVENTFD, &event, 1) != 0)
    error = errno ? errno : ENOMEM;
  if (error) {
    chost_ring_close((uintptr_t)ring);
    return -error;
  }
  char *base = ring->rings;
  ring->head = (uint32_t *)(base + params.sq_off.head);
  ring->tail = (uint32_t *)(base + params.sq_off.tail);
  ring->mask = (uint32_t *)(base + params.sq_off.ring_mask);
  ring->flags = (uint32_t *)(base + params.sq_off.flags);
  ring->done_head = (uint32_t *)(base + params.cq_off.head);
  ring->done_tail = (uint32_t *)(base + params.cq_off.tail);
  ring->done_mask = (uint32_t *)(base + params.cq_off.ring_mask);
  ring->done = (struct io_uring_cqe *)(base + params.cq_off.cqes);
  // Submissions are used in their order: the array between them and the kernel never changes.
  uint32_t *array = (uint32_t *)(base + params.sq_off.array);
  for (uint32_t index = 0; index < ring->entries; index++) array[index] = index;
  *result = (uintptr_t)ring;
  return 0;
}

void chost_ring_close(uintptr_t handle) {
  struct ring *ring = (struct ring *)handle;
  if (ring->rings && ring->rings != MAP_FAILED) munmap(ring->rings, ring->rings_size);
  if (ring->submissions && (void *)ring->submissions != MAP_FAILED) munmap(ring->submissions, ring->submissions_size);
  close(ring->descriptor);
  free(ring);
}

int chost_ring_descriptor(uintptr_t handle) { return ((struct ring *)handle)->descriptor; }

uint32_t chost_ring_capacity(uintptr_t handle) { return ((struct ring *)handle)->completions; }

bool chost_ring_push(uintptr_t handle, int operation, int descriptor, uint64_t offset, uintptr_t vectors, uint32_t count,
                     bool elsewhere, uint64_t user) {
  struct ring *ring = (struct ring *)handle;
  uint32_t tail = *ring->tail;
  if (tail - acquire(ring->head) >= ring->entries) return false;
  struct io_uring_sqe *submission = &ring->submissions[tail & *ring->mask];
  memset(submission, 0, sizeof *submission);
  submission->fd = descriptor;
  submission->user_data = user;
  if (elsewhere) submission->flags = IOSQE_ASYNC;
  switch (operation) {
  case chost_ring_readv:
  case chost_ring_writev:
    submission->opcode = operation == chost_ring_readv ? IORING_OP_READV : IORING_OP_WRITEV;
    submission->off = offset;
    submission->addr = vectors;
    submission->len = count;
    break;
  case chost_ring_datasync:
    submission->opcode = IORING_OP_FSYNC;
    submission->fsync_flags = IORING_FSYNC_DATASYNC;
    break;
  case chost_ring_cancel_all:
    submission->opcode = IORING_OP_ASYNC_CANCEL;
    submission->fd = -1;
    submission->cancel_flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY;
    break;
  default: submission->opcode = IORING_OP_NOP;
  }
  release(ring->tail, tail + 1);
  return true;
}

int chost_ring_enter(uintptr_t handle) {
  struct ring *ring = (struct ring *)handle;
  // Bounded: each round hands something over, is interrupted, or is the last.
  for (int round = 0; round < 64; round++) {
    uint32_t queued = *ring->tail - acquire(ring->head);
    if (queued == 0) return 0;
    int taken = enter(ring, queued, 0);
    if (taken < 0 && errno != EINTR) return -errno;
    if (taken == 0) return -EAGAIN;
  }
  return -EAGAIN;
}

bool chost_ring_withdraw(uintptr_t handle, uint64_t *user) {
  struct ring *ring = (struct ring *)handle;
  uint32_t tail = *ring->tail;
  if (tail == acquire(ring->head)) return false;
  *user = ring->submissions[(tail - 1) & *ring->mask].user_data;
  release(ring->tail, tail - 1);
  return true;
}

bool chost_ring_pop(uintptr_t handle, uint64_t *user, int32_t *result) {
  struct ring *ring = (struct ring *)handle;
  uint32_t head = *ring->done_head;
  if (head == acquire(ring->done_tail)) {
    // Completions that had no room are handed out on asking.
    if (!(acquire(ring->flags) & IORING_SQ_CQ_OVERFLOW)) return false;
    enter(ring, 0, IORING_ENTER_GETEVENTS);
    if (head == acquire(ring->done_tail)) return false;
  }
  struct io_uring_cqe *completion = &ring->done[head & *ring->done_mask];
  *user = completion->user_data;
  *result = completion->res;
  release(ring->done_head, head + 1);
  return true;
}
