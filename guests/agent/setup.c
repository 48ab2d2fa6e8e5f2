// The set-up that the host asks for, in its order.
#include "agent.h"

bool fail(struct failure *failure, int error, const char *what, const char *name) {
    failure->error = error < 0 ? -error : error;
    put(&failure->what, what);
    if (*name) {
        put(&failure->what, " '");
        put(&failure->what, name);
        put(&failure->what, "'");
    }
    return false;
}

static bool check_setup(const u8 *payload, size_t count, struct setup *setup) {
    if (!fields_are_whole(payload, count)) return false;
    for (size_t offset = 0; offset < count;) {
        u16 tag = little16(payload + offset);
        struct field field = { .tag = tag, .count = little32(payload + offset + 4), .bytes = (u8 *)payload + offset + FIELD_HEADER };
        struct field text = { .count = field.count - 8, .bytes = field.bytes + 8 };
        offset += FIELD_HEADER + field.count;
        switch (tag) {
        case 1: if (field.count != 12) return false; break;
        case 2: case 6: if (!is_text(&field)) return false; break;
        case 3: if (field.count < 8 || !is_text(&text)) return false; break;
        case 4: {
            // Flags, the tag, a zero, the path.
            if (field.count < 4) return false;
            char *zero = find_byte((char *)field.bytes + 4, field.count - 4, 0);
            if (!zero) return false;
            size_t rest = field.count - (size_t)(zero + 1 - (char *)field.bytes);
            if (rest == 0 || find_byte(zero + 1, rest, 0) || zero[1] != '/') return false;
            setup->share_count++;
            break;
        }
        case 5: if (field.count != 4) return false; break;
        }
    }
    return true;
}

bool parse_setup(u8 *payload, size_t count, struct setup *setup) {
    *setup = (struct setup){ 0 };
    if (!check_setup(payload, count, setup)) return false;
    setup->shares_mapped = (setup->share_count + 1) * sizeof *setup->shares;
    setup->shares = pages(setup->shares_mapped);
    if (!setup->shares) return false;
    size_t shares = 0;
    struct fields fields = { .bytes = payload, .count = count };
    for (struct field field; next_field(&fields, &field);) {
        char *text = (char *)field.bytes;
        switch (field.tag) {
        case 1:
            setup->has_time = true;
            setup->time = (struct timespec){ (i64)little64(field.bytes), little32(field.bytes + 8) };
            break;
        case 2: setup->name = text; break;
        case 3:
            setup->root_kind = little32(field.bytes);
            setup->root_flags = little32(field.bytes + 4);
            setup->root = text + 8;
            break;
        case 4:
            setup->shares[shares++] = (struct share){
                .flags = little32(field.bytes), .tag = text + 4, .path = text + 4 + length_of(text + 4) + 1,
            };
            break;
        case 5: setup->network = little32(field.bytes); break;
        case 6: setup->root_type = text; break;
        }
    }
    return true;
}

static void note_error(const char *what, int error) {
    struct line line = { 0 };
    put(&line, what);
    put_error(&line, error);
    note(line.text);
}

bool set_up(const struct setup *setup, struct failure *failure) {
    if (setup->has_time) {
        int error = sys_clock_settime(CLOCK_REALTIME, &setup->time);
        if (error < 0) note_error("the clock could not be set: ", error);
    }
    if (setup->name) {
        int error = sys_sethostname(setup->name, length_of(setup->name));
        if (error < 0) note_error("the host name could not be set: ", error);
    }
    if (!mount_root(setup, failure) || !mount_shares(setup, failure)) return false;
    if (setup->network) network_up();
    return true;
}
