// Frames and their fields: docs/agent.md.
#include "agent.h"

u16 little16(const u8 *bytes) { return (u16)(bytes[0] | bytes[1] << 8); }
u32 little32(const u8 *bytes) { return little16(bytes) | (u32)little16(bytes + 2) << 16; }
u64 little64(const u8 *bytes) { return little32(bytes) | (u64)little32(bytes + 4) << 32; }

static void put16(u8 *bytes, u16 value) {
    bytes[0] = (u8)value;
    bytes[1] = (u8)(value >> 8);
}

static void put32(u8 *bytes, u32 value) {
    put16(bytes, (u16)value);
    put16(bytes + 2, (u16)(value >> 16));
}

// MARK: For the host

void frame_start(struct frame *frame, u16 kind) {
    memset(frame->bytes, 0, FRAME_HEADER);
    put16(frame->bytes + 4, kind);
    frame->count = FRAME_HEADER;
}

void frame_bytes(struct frame *frame, u16 tag, const void *bytes, size_t count) {
    if (count > sizeof frame->bytes - frame->count - FIELD_HEADER) return;
    u8 *header = frame->bytes + frame->count;
    put16(header, tag);
    put16(header + 2, 0);
    put32(header + 4, (u32)count);
    memcpy(header + FIELD_HEADER, bytes, count);
    frame->count += FIELD_HEADER + count;
}

void frame_number(struct frame *frame, u16 tag, u32 value) {
    u8 bytes[4];
    put32(bytes, value);
    frame_bytes(frame, tag, bytes, sizeof bytes);
}

void frame_text(struct frame *frame, u16 tag, const char *text) {
    size_t count = length_of(text);
    frame_bytes(frame, tag, text, count < TEXT_LIMIT ? count : TEXT_LIMIT);
}

void frame_finish(struct frame *frame) { put32(frame->bytes, (u32)(frame->count - FRAME_HEADER)); }

// MARK: From the host

bool fields_are_whole(const u8 *payload, size_t count) {
    size_t offset = 0;
    while (offset < count) {
        if (count - offset < FIELD_HEADER || little16(payload + offset + 2) != 0) return false;
        size_t length = little32(payload + offset + 4);
        offset += FIELD_HEADER;
        if (length > count - offset) return false;
        offset += length;
    }
    return true;
}

bool next_field(struct fields *fields, struct field *field) {
    bool another = fields->offset < fields->count;
    if (another) {
        u8 *header = fields->bytes + fields->offset;
        *field = (struct field){ .tag = little16(header), .count = little32(header + 4), .bytes = header + FIELD_HEADER };
    }
    if (fields->unterminated) *fields->unterminated = 0;
    if (another) {
        fields->offset += FIELD_HEADER + field->count;
        fields->unterminated = (char *)field->bytes + field->count;
    }
    return another;
}

bool is_text(const struct field *field) { return !find_byte((const char *)field->bytes, field->count, 0); }
