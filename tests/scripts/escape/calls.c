/* Ways out by raw system calls, io_uring among them. One try a run; one line says what came of it:
 * an errno's name, or what was reached.
 *
 * usage: calls WHAT ADDRESS PORT [ADDRESS] */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct target {
    struct sockaddr_storage address;
    socklen_t length;
    int family;
};

static int say(const char *what) {
    puts(what);
    return 0;
}

static int say_errno(int number) {
    return say(number ? strerrorname_np(number) : "connected");
}

static struct target target(const char *address, const char *port) {
    struct target to = {.family = strchr(address, ':') ? AF_INET6 : AF_INET};
    struct sockaddr_in *v4 = (void *)&to.address;
    struct sockaddr_in6 *v6 = (void *)&to.address;
    if (to.family == AF_INET) {
        v4->sin_family = AF_INET, v4->sin_port = htons(atoi(port)), to.length = sizeof *v4;
        inet_pton(AF_INET, address, &v4->sin_addr);
    } else {
        v6->sin6_family = AF_INET6, v6->sin6_port = htons(atoi(port)), to.length = sizeof *v6;
        inet_pton(AF_INET6, address, &v6->sin6_addr);
    }
    return to;
}

static int plain(struct target *to) {
    long one = syscall(SYS_socket, to->family, SOCK_STREAM, 0);
    if (one < 0)
        return errno;
    return syscall(SYS_connect, one, &to->address, to->length) ? errno : 0;
}

/* Two datagrams by one call: the first to a name server, the second elsewhere. */
static int together(struct target *to, struct target *server) {
    int one = socket(to->family, SOCK_DGRAM, 0);
    struct iovec data = {.iov_base = "out", .iov_len = 3};
    struct mmsghdr both[2] = {
        {.msg_hdr = {.msg_name = &server->address, .msg_namelen = server->length, .msg_iov = &data, .msg_iovlen = 1}},
        {.msg_hdr = {.msg_name = &to->address, .msg_namelen = to->length, .msg_iov = &data, .msg_iovlen = 1}},
    };
    if (one < 0)
        return errno;
    int sent = sendmmsg(one, both, 2, 0);
    if (sent == 2)
        return 0;
    /* The second one's error is only told when it is the first. */
    return sendmmsg(one, both + 1, 1, 0) < 0 ? errno : 0;
}

/* As plain, in a child that shares everything with its parent. */
static int by_vfork(struct target *to) {
    static volatile int result;
    pid_t child = vfork();
    if (child == 0) {
        result = plain(to);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    return result;
}

struct ring {
    int descriptor;
    unsigned *tail, *mask, *array, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *results;
};

static int set_up(struct ring *ring) {
    struct io_uring_params p = {0};
    ring->descriptor = syscall(SYS_io_uring_setup, 8, &p);
    if (ring->descriptor < 0)
        return errno;
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    size_t cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    int rights = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    char *s = mmap(NULL, sq, rights, flags, ring->descriptor, IORING_OFF_SQ_RING);
    char *c = mmap(NULL, cq, rights, flags, ring->descriptor, IORING_OFF_CQ_RING);
    ring->entries = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), rights, flags, ring->descriptor, IORING_OFF_SQES);
    if (s == MAP_FAILED || c == MAP_FAILED || ring->entries == MAP_FAILED)
        return errno;
    ring->tail = (void *)(s + p.sq_off.tail), ring->mask = (void *)(s + p.sq_off.ring_mask);
    ring->array = (void *)(s + p.sq_off.array);
    ring->cq_head = (void *)(c + p.cq_off.head), ring->cq_tail = (void *)(c + p.cq_off.tail);
    ring->cq_mask = (void *)(c + p.cq_off.ring_mask), ring->results = (void *)(c + p.cq_off.cqes);
    return 0;
}

/* Submits one entry and waits for its result. */
static int submit(struct ring *ring, struct io_uring_sqe entry) {
    unsigned tail = *ring->tail, index = tail & *ring->mask;
    ring->entries[index] = entry;
    ring->array[index] = index;
    __atomic_store_n(ring->tail, tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring->descriptor, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        return -errno;
    unsigned head = *ring->cq_head;
    if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
        return -EAGAIN;
    int result = ring->results[head & *ring->cq_mask].res;
    __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
    return result;
}

enum { URING_SOCKET = 45 }; /* IORING_OP_SOCKET, Linux 5.19; older headers lack it */

static int by_ring(const char *what, struct target *to) {
    struct ring ring;
    int error = set_up(&ring);
    if (error)
        return error;
    int stream = !strcmp(what, "uring-connect") || !strcmp(what, "uring-socket");
    int one;
    if (!strcmp(what, "uring-socket")) {
        struct io_uring_sqe make = {.opcode = URING_SOCKET, .fd = to->family, .off = SOCK_STREAM};
        one = submit(&ring, make);
    } else if (!strcmp(what, "uring-raw")) {
        struct io_uring_sqe make = {.opcode = URING_SOCKET, .fd = to->family, .off = SOCK_RAW, .len = 17};
        one = submit(&ring, make);
    } else {
        one = socket(to->family, stream ? SOCK_STREAM : SOCK_DGRAM, 0);
    }
    if (one < 0)
        return one == -1 ? errno : -one;
    struct iovec data = {.iov_base = "\0\0\0\0\0\0\0\0out", .iov_len = 11};
    struct msghdr message = {.msg_name = &to->address, .msg_namelen = to->length, .msg_iov = &data, .msg_iovlen = 1};
    struct io_uring_sqe send = {.opcode = IORING_OP_SENDMSG, .fd = one, .addr = (unsigned long)&message, .len = 1};
    struct io_uring_sqe reach = {.opcode = IORING_OP_CONNECT, .fd = one, .addr = (unsigned long)&to->address, .off = to->length};
    int result = submit(&ring, stream ? reach : send);
    return result < 0 ? -result : 0;
}

int main(int count, char **words) {
    const char *tag = getenv("ESCAPE_TAG");
    if (count < 4 || !tag)
        return say("usage: calls WHAT ADDRESS PORT [ADDRESS]");
    prctl(PR_SET_NAME, tag);
    struct target to = target(words[2], words[3]);
    if (!strcmp(words[1], "connect"))
        return say_errno(plain(&to));
    if (!strcmp(words[1], "vfork"))
        return say_errno(by_vfork(&to));
    if (!strcmp(words[1], "sendmmsg") && count > 4) {
        struct target server = target(words[4], "53");
        return say_errno(together(&to, &server));
    }
    if (!strncmp(words[1], "uring-", 6))
        return say_errno(by_ring(words[1], &to));
    return say("no such try");
}
