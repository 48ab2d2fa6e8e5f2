// Who a command runs as, by the guest's /etc/passwd and /etc/group. Source: [PASSWD].
#include "agent.h"

enum { DATABASE_LIMIT = 64 << 20, GROUP_LIMIT = 65536 };

/// One colon-separated line, cut into fields in place.
struct record { char *fields[7]; size_t count; };

static bool next_record(char **rest, struct record *record) {
    while (**rest) {
        char *line = *rest;
        *rest = cut_line(line);
        if (*line == 0 || *line == '#') continue;
        record->count = 0;
        while (line && record->count < 7) {
            record->fields[record->count++] = line;
            line = find_byte(line, length_of(line), ':');
            if (line) *line++ = 0;
        }
        return true;
    }
    return false;
}

static bool number_of(const char *text, u32 *value) { return parse_number(text, length_of(text), 10, value); }

struct identity { u32 user, group; const char *name, *home, *shell; bool known; };

static bool find_user(char *text, const char *wanted, struct identity *identity) {
    u32 number = 0;
    bool is_number = number_of(wanted, &number);
    struct record record;
    // A name that is all digits is a name first.
    struct identity by_number = { 0 };
    while (next_record(&text, &record)) {
        struct identity found = { .known = true };
        if (record.count < 4 || !number_of(record.fields[2], &found.user) || !number_of(record.fields[3], &found.group)) continue;
        found.name = record.fields[0];
        found.home = record.count > 5 && *record.fields[5] ? record.fields[5] : "/";
        found.shell = record.count > 6 && *record.fields[6] ? record.fields[6] : "/bin/sh";
        if (equal(found.name, wanted)) {
            *identity = found;
            return true;
        }
        if (is_number && found.user == number && !by_number.known) by_number = found;
    }
    if (!is_number) return false;
    *identity = by_number.known
        ? by_number : (struct identity){ .user = number, .group = 0, .name = wanted, .home = "/", .shell = "/bin/sh" };
    return true;
}

static bool is_member(char *members, const char *name) {
    while (*members) {
        size_t count = 0;
        while (members[count] && members[count] != ',') count++;
        if (count == length_of(name) && memcmp(members, name, count) == 0) return true;
        members += count;
        if (*members) members++;
    }
    return false;
}

/// The group named, and the groups that name the user: one walk, for lines are cut in place.
static bool find_groups(char *text, const char *wanted, struct identity *identity, u32 *groups, size_t *count) {
    u32 number = 0;
    bool is_number = wanted && number_of(wanted, &number);
    bool found = false, by_name = false;
    struct record record;
    while (next_record(&text, &record)) {
        u32 group;
        if (record.count < 3 || !number_of(record.fields[2], &group)) continue;
        if (wanted && !by_name && equal(record.fields[0], wanted)) {
            identity->group = group;
            found = by_name = true;
        }
        if (identity->known && record.count > 3 && is_member(record.fields[3], identity->name) && *count < GROUP_LIMIT)
            groups[(*count)++] = group;
    }
    if (!found && is_number) {
        identity->group = number;
        found = true;
    }
    return !wanted || found;
}

/// `NAME=value`, in memory that lasts.
static char *variable(const char *name, const char *value) {
    size_t first = length_of(name), second = length_of(value);
    char *text = pages(first + second + 2);
    if (!text) return NULL;
    memcpy(text, name, first);
    text[first] = '=';
    memcpy(text + first + 1, value, second);
    return text;
}

static void set_environment(struct start *start, const struct identity *identity) {
    const char *const names[] = { "HOME", "USER", "LOGNAME", "SHELL" };
    const char *const values[] = { identity->home, identity->name, identity->name, identity->shell };
    char **environment = pages((start->environment_count + 5) * sizeof(char *));
    if (!environment) child_fail(STAGE_RESOURCES, -ENOMEM, "");
    size_t count = 0;
    for (size_t i = 0; i < start->environment_count; i++) {
        bool replaced = false;
        for (int n = 0; n < 4; n++)
            if (begins(start->environment[i], names[n]) && start->environment[i][length_of(names[n])] == '=') replaced = true;
        if (!replaced) environment[count++] = start->environment[i];
    }
    for (int n = 0; n < 4; n++) {
        environment[count] = variable(names[n], values[n]);
        if (!environment[count++]) child_fail(STAGE_RESOURCES, -ENOMEM, "");
    }
    start->environment = environment;
    start->environment_count = count;
}

void become_user(struct start *start) {
    // Text behind the payload's fields is ours to cut.
    char *user = (char *)start->user;
    char *group = find_byte(user, length_of(user), ':');
    if (group) *group++ = 0;

    struct contents passwd, groups;
    int error = read_file("/etc/passwd", DATABASE_LIMIT, &passwd);
    if (error < 0 && error != -ENOENT) child_fail(STAGE_USER, error, "/etc/passwd");
    error = read_file("/etc/group", DATABASE_LIMIT, &groups);
    if (error < 0 && error != -ENOENT) child_fail(STAGE_USER, error, "/etc/group");

    char none[] = "";
    struct identity identity;
    if (*user == 0 || !find_user(passwd.bytes ? passwd.bytes : none, user, &identity)) child_fail(STAGE_USER, -ENOENT, user);
    u32 *list = pages(GROUP_LIMIT * sizeof *list);
    if (!list) child_fail(STAGE_RESOURCES, -ENOMEM, "");
    size_t count = 0;
    if (!find_groups(groups.bytes ? groups.bytes : none, group, &identity, list, &count)) child_fail(STAGE_USER, -ENOENT, group);

    if (start->terminal) sys_fchown(0, identity.user, UINT32_MAX);
    if ((error = sys_setgroups(count, list)) < 0 || (error = sys_setresgid(identity.group)) < 0 ||
        (error = sys_setresuid(identity.user)) < 0)
        child_fail(STAGE_USER, error, user);
    set_environment(start, &identity);
}
