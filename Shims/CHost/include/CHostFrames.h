// Frames over a stream socket.
#ifndef CHOST_FRAMES_H
#define CHOST_FRAMES_H

#include <stddef.h>
#include <sys/types.h>

// Sends frames, each behind its length in 32 bits, the high byte first, without waiting: each in a message of its own, so that whoever
// reads finds no end of what is there in the midst of one. (A message of more than 48 KiB may still come in two pieces.)
//
// rest: how much is left of the frame at the front, where part of it has gone before, or 0; updated.
//
// Returns how many bytes went, which is all, or as many as there was room for; or, where none did, an errno, negated.
ssize_t chost_send_frames(int socket, const void *_Nonnull bytes, size_t count, size_t *_Nonnull rest);

#endif
