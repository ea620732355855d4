/* A CLI that costs next to nothing: it speaks as much of Claude Code's stream-json as a worker needs, and each delta
 * carries when it was made. The emulator is 36 us a delta; with a thousand of them on two cores that would be what
 * is measured.
 *
 * The user message "go RATE COUNT" is answered with COUNT deltas, RATE a second. A delta's text is
 * "@number received made@ ": its number from 0, when the message was read and when the delta was written, both in
 * nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE (1 << 20)
#define SECOND 1000000000LL
#define SESSION "6b1f2f1e-7f3a-4f57-9b7e-0d5b5a6a1c12"
#define UUID "2459d597-e5f2-4e1b-ad62-"
#define MESSAGE "msg_7c71662190ac6474ff396bd0"
#define IDS "\"session_id\":\"" SESSION "\",\"parent_tool_use_id\":null,\"uuid\":\"" UUID "%012lld\"," \
            "\"api_message_id\":\"" MESSAGE "\""

static char input[LINE], uuid[64];
static size_t held;
static long long received, began, count, sent, written;
static double rate;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void put(const char *text, size_t length) {
    while (length > 0) {
        ssize_t done = write(1, text, length);
        if (done < 0 && errno != EINTR) exit(0); /* the reader is gone */
        if (done > 0) text += done, length -= done;
    }
}

static void event(const char *json) {
    char line[1024];
    int n = snprintf(line, sizeof line, "{\"type\":\"stream_event\",\"event\":%s," IDS "}\n", json, written++);
    put(line, n);
}

static void lifecycle(const char *state) {
    char line[512];
    int n = snprintf(line, sizeof line,
                     "{\"type\":\"command_lifecycle\",\"command_uuid\":\"%s\",\"state\":\"%s\",\"session_id\":\"s\"}\n", uuid, state);
    put(line, n);
}

/* The text between `before` and the next quote. */
static void field(const char *line, const char *before, char *to, size_t room) {
    const char *at = strstr(line, before);
    size_t n = 0;
    if (at) for (at += strlen(before); at[n] && at[n] != '"' && n + 1 < room; n++) to[n] = at[n];
    to[n] = 0;
}

static void begin(const char *line) {
    const char *go = strstr(line, "go ");
    rate = 20, count = 20, sent = 0;
    if (go) sscanf(go, "go %lf %lld", &rate, &count);
    field(line, "\"uuid\":\"", uuid, sizeof uuid);
    received = began = now();
    lifecycle("queued");
    lifecycle("started");
    static const char init[] = "{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"s\",\"tools\":[],\"model\":\"source\"}\n";
    put(init, sizeof init - 1);
    event("{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"source\","
          "\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":1,\"output_tokens\":0}}}");
    event("{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}");
}

static char *text(char *to, const char *from) {
    size_t n = strlen(from);
    return memcpy(to, from, n), to + n;
}

static char *number(char *to, long long value, int width) {
    char digits[24], *at = digits + sizeof digits;
    for (; value || at == digits + sizeof digits; value /= 10) *--at = '0' + value % 10;
    while (digits + sizeof digits - at < width) *--at = '0';
    size_t n = digits + sizeof digits - at;
    return memcpy(to, at, n), to + n;
}

/* As event() with the three numbers; but printf would take longer than all the rest. */
static void delta(void) {
    char line[1024], *to = line;
    to = text(to, "{\"type\":\"stream_event\",\"event\":{\"type\":\"content_block_delta\",\"index\":0,"
                  "\"delta\":{\"type\":\"text_delta\",\"text\":\"@");
    to = number(to, sent++, 0), *to++ = ' ';
    to = number(to, received, 0), *to++ = ' ';
    to = number(to, now(), 0);
    to = text(to, "@ \"}},\"session_id\":\"" SESSION "\",\"parent_tool_use_id\":null,\"uuid\":\"" UUID);
    to = number(to, written++, 12);
    to = text(to, "\",\"api_message_id\":\"" MESSAGE "\"}\n");
    put(line, to - line);
}

static void finish(void) {
    char line[512];
    int n = snprintf(line, sizeof line,
                     "{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"num_turns\":1,\"result\":\"\","
                     "\"stop_reason\":\"end_turn\",\"session_id\":\"s\",\"usage\":{\"input_tokens\":1,\"output_tokens\":%lld}}\n", sent);
    event("{\"type\":\"content_block_stop\",\"index\":0}");
    event("{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":1}}");
    event("{\"type\":\"message_stop\"}");
    put(line, n);
    lifecycle("completed");
    count = 0;
}

static void control(const char *line) {
    char id[128], answer[512];
    field(line, "\"request_id\":\"", id, sizeof id);
    int n = snprintf(answer, sizeof answer,
                     "{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\",\"request_id\":\"%s\",\"response\":{}}}\n", id);
    put(answer, n);
}

static void read_lines(void) {
    ssize_t got = read(0, input + held, LINE - 1 - held);
    if (got <= 0) exit(0);
    held += got;
    input[held] = 0;
    char *line = input, *end;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        if (strstr(line, "\"control_request\"")) control(line);
        else if (strstr(line, "\"type\":\"user\"")) begin(line);
        line = end + 1;
    }
    held -= line - input;
    memmove(input, line, held);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--version")) return puts("0.0.0 (benchmark source)") < 0;
    for (;;) {
        long long due = began + (long long)(sent * SECOND / rate), wait = due - now();
        struct pollfd in = {0, POLLIN, 0};
        struct timespec t = {wait > 0 ? wait / SECOND : 0, wait > 0 ? wait % SECOND : 0};
        if (ppoll(&in, 1, count ? &t : NULL, NULL) > 0) read_lines();
        else if (count && now() >= due) {
            delta();
            if (sent >= count) finish();
        }
    }
}
