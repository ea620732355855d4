/* Many viewers in one cheap process: each posts one message and reads its stream.
 *
 *     viewers PORT SESSIONS EACH RATE COUNT APART PREFIX [PATH [LIMIT]]
 *
 * EACH viewers follow each of SESSIONS sessions: the first posts, the others (if EACH > 1) watch. Posts are APART
 * microseconds from each other. Every second a line of JSON says how much has come; the last line sums it up. Latency
 * is counted from the moment when all streams have begun until the first of them has all of its deltas. LIMIT: seconds
 * after the last post when it ends whatever is missing. A PATH that ends in /chat/completions is asked as OpenAI's is.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define PATIENCE 30 /* seconds without anything at all, after which it ends */
#define ABANDONED 5 /* seconds without text after which a person has left */
#define LEAVING (SECOND / 5) /* after all is there: who hangs up within a turn may leave its end unread in the source's pipe */
#define TAIL 96     /* bytes of a cut stamp that are kept for the next read */

struct viewer {
    int fd, tail, closed, ok;
    long long asked, next, first;
    char rest[TAIL];
};

static struct viewer *viewers;
static long long *latencies, *firsts, *waits; /* waits: from the asking to the first text */
static long long counted, room, got, lost, repeated, begun, complete, refused, wanted, window_from, window_to, abandoned;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void open_one(struct viewer *v, int port, const char *request, int epoll) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    v->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (v->fd < 0 || connect(v->fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
    setsockopt(v->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    v->asked = now();
    if (write(v->fd, request, strlen(request)) < 0) fail("send");
    fcntl(v->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = v};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, v->fd, &event) < 0) fail("epoll");
}

static void count_one(struct viewer *v, long long number, long long received, long long made, long long at, int streams) {
    got++;
    if (number < v->next) { repeated++; return; }
    lost += number - v->next;
    v->next = number + 1;
    if (!v->first) {
        v->first = at;
        waits[begun] = at - v->asked;
        abandoned += waits[begun] > ABANDONED * SECOND;
        firsts[begun] = (at - made) + (received > v->asked ? received - v->asked : 0);
        if (++begun == streams) window_from = at;
    }
    if (window_from && !window_to && counted < room && made > window_from) latencies[counted++] = at - made;
    if (v->next == wanted && ++complete && !window_to) window_to = at;
}

/* The three numbers of a stamp; 0 if it is none. */
static int stamped(const char *text, const char *close, long long numbers[3]) {
    char *at = (char *)text;
    for (int i = 0; i < 3; i++) numbers[i] = strtoll(at, &at, 10);
    return at == close;
}

/* A stamp through which the border of two HTTP chunks goes ("\r\n", the size, "\r\n"): some servers cut anywhere. */
static int mended(const char *text, const char *close, long long numbers[3]) {
    char whole[TAIL];
    const char *cut = memchr(text, '\r', close - text), *on = cut ? memchr(cut + 2, '\n', close - cut > 2 ? close - cut - 2 : 0) : NULL;
    if (!on || close - text >= TAIL) return 0;
    int n = snprintf(whole, sizeof whole, "%.*s%.*s", (int)(cut - text), text, (int)(close - on - 1), on + 1);
    return stamped(whole, whole + n, numbers);
}

static void take(struct viewer *v, char *data, size_t length, long long at, int streams) {
    char *end = data + length, *stamp = data;
    while ((stamp = memchr(stamp, '@', end - stamp))) {
        char *close = memchr(stamp + 1, '@', end - stamp - 1);
        if (!close) {
            if (end - stamp >= TAIL) { stamp++; continue; }
            v->tail = end - stamp;
            memcpy(v->rest, stamp, v->tail);
            return;
        }
        long long n[3];
        if (stamped(stamp + 1, close, n) || mended(stamp + 1, close, n)) count_one(v, n[0], n[1], n[2], at, streams), stamp = close + 1;
        else stamp++;
    }
}

static void receive(struct viewer *v, int streams) {
    static char buffer[1 << 18];
    for (;;) {
        int kept = v->tail;
        memcpy(buffer, v->rest, kept);
        ssize_t n = read(v->fd, buffer + kept, sizeof buffer - kept);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) {
            v->closed = 1;
            close(v->fd);
            return;
        }
        if (!v->ok) {
            v->ok = 1;
            if (strncmp(buffer, "HTTP/1.1 200", 12)) {
                if (!refused++) fprintf(stderr, "viewers: refused: %.*s\n", (int)(n < 400 ? n : 400), buffer);
            }
        }
        v->tail = 0;
        take(v, buffer, kept + n, now(), streams);
        if ((size_t)n < sizeof buffer - kept) return;
    }
}

static int ascending(const void *a, const void *b) {
    long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

static double percentile(const long long *sorted, long long n, double p) {
    return n ? sorted[(long long)(p * (n - 1))] / 1e6 : 0;
}

static void say(int last) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"at\":%.6f,\"got\":%lld,\"begun\":%lld,\"complete\":%lld,\"cpu\":%.6f,\"open\":%s", now() / 1e9, got, begun, complete, cpu,
           window_from && !window_to ? "true" : "false");
    if (last) {
        qsort(latencies, counted, sizeof *latencies, ascending);
        qsort(firsts, begun, sizeof *firsts, ascending);
        qsort(waits, begun, sizeof *waits, ascending);
        printf(",\"lost\":%lld,\"repeated\":%lld,\"refused\":%lld,\"samples\":%lld,\"window\":%.3f", lost, repeated, refused, counted,
               window_to ? (window_to - window_from) / 1e9 : 0);
        printf(",\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"max\":%.3f", percentile(latencies, counted, .5), percentile(latencies, counted, .9),
               percentile(latencies, counted, .99), percentile(latencies, counted, 1));
        printf(",\"first_p50\":%.3f,\"first_p99\":%.3f,\"first_max\":%.3f", percentile(firsts, begun, .5), percentile(firsts, begun, .99),
               percentile(firsts, begun, 1));
        printf(",\"wait_p50\":%.3f,\"wait_p99\":%.3f,\"abandoned\":%lld", percentile(waits, begun, .5), percentile(waits, begun, .99), abandoned);
    }
    printf("}\n");
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 8) return fprintf(stderr, "usage: viewers PORT SESSIONS EACH RATE COUNT APART PREFIX [PATH [LIMIT]]\n"), 2;
    int port = atoi(argv[1]), sessions = atoi(argv[2]), each = atoi(argv[3]), streams = sessions * each;
    double rate = atof(argv[4]);
    long long apart = atoll(argv[6]) * 1000, heard = now(), told = now(), begin = 0, whole = 0;
    const char *prefix = argv[7], *path = argc > 8 ? argv[8] : "/v1/chat/stream";
    int epoll = epoll_create1(0), opened = 0, openai = !!strstr(path, "/chat/completions");
    long long limit = argc > 9 ? (long long)(atof(argv[9]) * SECOND) + streams * apart : LLONG_MAX;
    char request[1024], body[512];
    struct rlimit files = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &files);
    wanted = atoll(argv[5]);
    room = (long long)streams * wanted;
    viewers = calloc(streams, sizeof *viewers);
    firsts = calloc(streams, sizeof *firsts);
    waits = calloc(streams, sizeof *waits);
    latencies = calloc(room, sizeof *latencies);
    if (!viewers || !firsts || !waits || !latencies) fail("memory");
    begin = now();
    for (;;) {
        while (opened < streams && now() >= begin + opened * apart) {
            /* watchers first: they are there when the turn begins */
            int watching = opened < sessions * (each - 1), session = opened % sessions;
            if (watching)
                snprintf(request, sizeof request, "GET /v1/sessions/%s%d/events HTTP/1.1\r\nHost: localhost\r\n\r\n", prefix, session);
            else {
                static const char ours[] = "{\"session_id\":\"%s%d\",\"message\":\"go %g %lld\"}";
                static const char theirs[] = "{\"model\":\"source\",\"stream\":true,"
                                             "\"messages\":[{\"role\":\"user\",\"content\":\"%s%d: go %g %lld\"}]}";
                int n = snprintf(body, sizeof body, openai ? theirs : ours, prefix, session, rate, wanted);
                snprintf(request, sizeof request,
                         "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, n, body);
            }
            open_one(&viewers[opened++], port, request, epoll);
        }
        struct epoll_event events[256];
        long long left = opened < streams ? (begin + opened * apart - now()) / 1000000 : 100;
        int n = epoll_wait(epoll, events, 256, left < 0 ? 0 : left > 100 ? 100 : (int)left);
        for (int i = 0; i < n; i++) receive(events[i].data.ptr, streams);
        if (n > 0) heard = now();
        if (now() - told >= SECOND) told += SECOND, say(0);
        if (complete == streams && !whole) whole = now();
        if ((whole && now() - whole > LEAVING) || now() - heard > PATIENCE * SECOND || now() - begin > limit) break;
    }
    say(1);
    return lost || repeated || refused || complete < streams;
}
