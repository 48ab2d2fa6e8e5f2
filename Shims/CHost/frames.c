#define _GNU_SOURCE
#include "CHostFrames.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

enum { MOST = 64, LENGTH_BYTES = 4 };

ssize_t chost_send_frames(int socket, const void *bytes, size_t count, size_t *rest) {
    const unsigned char *next = bytes;
    size_t left = count;
    while (left > 0) {
        struct iovec parts[MOST];
        struct mmsghdr messages[MOST];
        unsigned number = 0;
        size_t place = 0;
        for (size_t size = *rest; number < MOST && place < left; size = 0) {
            if (size == 0) {
                uint32_t length;
                memcpy(&length, next + place, LENGTH_BYTES);
                size = LENGTH_BYTES + (size_t)ntohl(length);
            }
            if (size > left - place) size = left - place;
            parts[number] = (struct iovec){.iov_base = (void *)(next + place), .iov_len = size};
            messages[number] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[number], .msg_iovlen = 1}};
            place += size;
            number++;
        }
        int done = sendmmsg(socket, messages, number, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0) {
            if (errno == EINTR) continue;
            return left < count ? (ssize_t)(count - left) : -errno;
        }
        *rest = 0;
        for (int i = 0; i < done; i++) {
            size_t sent = messages[i].msg_len;
            next += sent;
            left -= sent;
            // Only the last can have gone in part.
            *rest = parts[i].iov_len - sent;
        }
    }
    return (ssize_t)count;
}
