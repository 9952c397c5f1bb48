/* Bytes between descriptors: splice, tee, vmsplice, sendfile, copy_file_range. */
#include "conformance.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static void show(const char *what, int fd) {
    char text[128];
    ssize_t got = read(fd, text, sizeof text - 1);
    text[got > 0 ? got : 0] = 0;
    say("%s: %zd %s", what, got, text);
}

static int file_of(const char *text) {
    char name[] = "splicing-XXXXXX";
    int fd = mkstemp(name);
    NEED(fd >= 0 && unlink(name) == 0);
    NEED(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    NEED(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static void close_all(int from) {
    for (int fd = from; fd < from + 16; fd++)
        close(fd);
}

static void connected(int ends[2]) {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    NEED(bind(listener, (struct sockaddr *)&name, sizeof name) == 0 && listen(listener, 1) == 0);
    NEED(getsockname(listener, (struct sockaddr *)&name, &length) == 0);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    NEED(connect(ends[0], (struct sockaddr *)&name, sizeof name) == 0);
    ends[1] = accept(listener, NULL, NULL);
    NEED(ends[1] >= 0);
    close(listener);
}

CASE(between_pipes) {
    int a[2], b[2];
    NEED(pipe(a) == 0 && pipe(b) == 0);
    NEED(write(a[1], "one two three", 13) == 13);
    CALL(tee(a[0], b[1], 3, 0));
    CALL(splice(a[0], NULL, b[1], NULL, 4, 0));
    show("there", b[0]);
    CALL(splice(a[0], NULL, b[1], NULL, 100, SPLICE_F_MOVE));
    show("the rest", b[0]);
    CALL(splice(a[0], NULL, b[1], NULL, 100, SPLICE_F_NONBLOCK));
    CALL(tee(a[0], b[1], 100, SPLICE_F_NONBLOCK));
    close(a[1]);
    CALL(splice(a[0], NULL, b[1], NULL, 100, 0));
    CALL(tee(a[0], b[1], 100, 0));
    close_all(a[0]);
}

CASE(a_full_pipe) {
    int a[2], b[2];
    static char page[4096];
    NEED(pipe(a) == 0 && pipe(b) == 0);
    CALL(fcntl(b[1], F_SETPIPE_SZ, 8192));
    NEED(write(a[1], page, 4096) == 4096 && write(a[1], page, 4096) == 4096);
    NEED(write(a[1], "last", 4) == 4);
    CALL(tee(a[0], b[1], 100000, 0));
    CALL(tee(a[0], b[1], 100000, SPLICE_F_NONBLOCK));
    NEED(read(b[0], page, 4096) == 4096);
    CALL(splice(a[0], NULL, b[1], NULL, 100000, 0));
    CALL(splice(a[0], NULL, b[1], NULL, 100000, SPLICE_F_NONBLOCK));
    CALL(read(b[0], page, 4096));
    CALL(read(b[0], page, 4096));
    CALL(splice(a[0], NULL, b[1], NULL, 100000, 0));
    show("end", b[0]);
    close_all(a[0]);
}

CASE(between_pipes_and_files) {
    int fd = file_of("0123456789"), p[2];
    off_t at = 4;
    NEED(pipe(p) == 0);
    CALL(splice(fd, NULL, p[1], NULL, 3, 0));
    RESULT(lseek(fd, 0, SEEK_CUR));
    CALL(splice(fd, &at, p[1], NULL, 2, 0));
    RESULT(at);
    RESULT(lseek(fd, 0, SEEK_CUR));
    show("from the file", p[0]);
    CALL(splice(fd, NULL, p[1], NULL, 100, 0));
    CALL(splice(fd, NULL, p[1], NULL, 100, 0));
    at = 2;
    CALL(splice(p[0], NULL, fd, &at, 3, 0));
    RESULT(at);
    RESULT(lseek(fd, 0, SEEK_CUR));
    CALL(splice(p[0], NULL, fd, NULL, 100, 0));
    NEED(lseek(fd, 0, SEEK_SET) == 0);
    show("file", fd);
    NEED(write(p[1], "xyz", 3) == 3);
    CALL(splice(p[0], NULL, open("/dev/null", O_WRONLY), NULL, 100, 0));
    CALL(splice(open("/dev/zero", O_RDONLY), NULL, p[1], NULL, 100, 0));
    RESULT(read(p[0], (char[200]){0}, 200));
    CALL(fcntl(fd, F_SETFL, O_APPEND));
    NEED(write(p[1], "xyz", 3) == 3);
    CALL(splice(p[0], NULL, fd, NULL, 100, 0));
    int only = open("/etc/passwd", O_RDONLY);
    CALL(splice(p[0], NULL, only, NULL, 100, 0));
    CALL(splice(open(".", O_RDONLY), NULL, p[1], NULL, 100, 0));
    close_all(fd);
}

static void by_sockets(int s[2]) {
    int p[2];
    NEED(pipe(p) == 0);
    NEED(write(s[0], "from a client", 13) == 13);
    CALL(splice(s[1], NULL, p[1], NULL, 6, SPLICE_F_MOVE));
    CALL(splice(s[1], NULL, p[1], NULL, 100, SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
    CALL(splice(p[0], NULL, s[1], NULL, 100, SPLICE_F_MOVE | SPLICE_F_MORE));
    show("it comes back", s[0]);
    NEED(fcntl(s[1], F_SETFL, O_NONBLOCK) == 0);
    CALL(splice(s[1], NULL, p[1], NULL, 100, SPLICE_F_NONBLOCK));
    CALL(splice(p[0], NULL, s[1], NULL, 100, SPLICE_F_NONBLOCK));
    NEED(shutdown(s[0], SHUT_WR) == 0);
    CALL(splice(s[1], NULL, p[1], NULL, 100, 0));
    NEED(write(p[1], "more", 4) == 4);
    NEED(shutdown(s[1], SHUT_WR) == 0);
    signal(SIGPIPE, SIG_IGN);
    CALL(splice(p[0], NULL, s[1], NULL, 100, 0));
    show("still in the pipe", p[0]);
    signal(SIGPIPE, SIG_DFL);
    close_all(s[0]);
}

CASE(between_pipes_and_tcp) {
    int s[2];
    connected(s);
    by_sockets(s);
}

CASE(between_pipes_and_unix_sockets) {
    int s[2];
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
    by_sockets(s);
}

static void *late_write(void *fd) {
    settle();
    NEED(write(*(int *)fd, "late", 4) == 4);
    return NULL;
}

static void *late_read(void *fd) {
    char page[4096];
    settle();
    NEED(read(*(int *)fd, page, 4096) > 0);
    return NULL;
}

CASE(waiting) {
    int a[2], b[2], s[2];
    pthread_t thread;
    static char page[4096];
    NEED(pipe(a) == 0 && pipe(b) == 0);
    connected(s);
    pthread_create(&thread, NULL, late_write, &a[1]);
    CALL(splice(a[0], NULL, b[1], NULL, 100, 0));
    pthread_join(thread, NULL);
    show("pipe", b[0]);
    pthread_create(&thread, NULL, late_write, &s[0]);
    CALL(splice(s[1], NULL, b[1], NULL, 4, 0));
    pthread_join(thread, NULL);
    show("socket", b[0]);
    pthread_create(&thread, NULL, late_write, &a[1]);
    CALL(tee(a[0], b[1], 100, 0));
    pthread_join(thread, NULL);
    NEED(fcntl(b[1], F_SETPIPE_SZ, 4096) == 4096);
    pthread_create(&thread, NULL, late_read, &b[0]);
    CALL(splice(a[0], NULL, b[1], NULL, 100, 0));
    pthread_join(thread, NULL);
    show("after room", b[0]);
    NEED(write(b[1], page, 4096) == 4096);
    pthread_create(&thread, NULL, late_read, &b[0]);
    CALL(vmsplice(b[1], &(struct iovec){"memory", 6}, 1, 0));
    pthread_join(thread, NULL);
    show("memory", b[0]);
    close_all(a[0]);
}

CASE(out_of_memory_and_into_it) {
    int p[2];
    char one[8] = "", other[8] = "";
    struct iovec from[] = {{"first ", 6}, {"second", 6}}, to[] = {{one, 6}, {other, 7}};
    NEED(pipe(p) == 0);
    CALL(vmsplice(p[1], from, 2, 0));
    CALL(vmsplice(p[0], to, 2, 0));
    say("%s|%s", one, other);
    CALL(vmsplice(p[0], to, 2, SPLICE_F_NONBLOCK));
    CALL(vmsplice(p[1], from, 2, 0x100));
    CALL(vmsplice(p[1], from, 0, 0));
    CALL(vmsplice(open("/dev/null", O_RDWR), from, 2, 0));
    close(p[1]);
    CALL(vmsplice(p[0], to, 2, 0));
    close_all(p[0]);
}

CASE(errors_of_moving) {
    int p[2], s[2], q[2];
    off_t at = 0;
    NEED(pipe(p) == 0 && pipe(q) == 0);
    connected(s);
    int fd = file_of("text");
    CALL(splice(p[0], NULL, p[1], NULL, 1, 0));
    CALL(tee(p[0], p[1], 1, 0));
    CALL(splice(p[1], NULL, q[1], NULL, 1, 0));
    CALL(splice(p[0], NULL, q[0], NULL, 1, 0));
    CALL(tee(p[1], q[1], 1, 0));
    CALL(splice(p[0], &at, q[1], NULL, 1, 0));
    CALL(splice(fd, NULL, q[1], &at, 1, 0));
    CALL(splice(s[0], &at, q[1], NULL, 1, 0));
    CALL(splice(fd, NULL, s[0], NULL, 1, 0));
    CALL(splice(s[0], NULL, s[1], NULL, 1, 0));
    CALL(tee(s[0], s[1], 1, 0));
    CALL(splice(p[0], NULL, q[1], NULL, 0, 0));
    CALL(splice(p[0], NULL, q[1], NULL, 1, 0x100));
    CALL(splice(-1, NULL, q[1], NULL, 1, 0));
    CALL(splice(eventfd(1, 0), NULL, q[1], NULL, 1, 0));
    NEED(write(p[1], "12345678", 8) == 8);
    CALL(splice(p[0], NULL, eventfd(1, 0), NULL, 8, 0));
    close(q[0]);
    signal(SIGPIPE, SIG_IGN);
    CALL(splice(p[0], NULL, q[1], NULL, 1, 0));
    CALL(splice(fd, NULL, q[1], NULL, 1, 0));
    CALL(vmsplice(q[1], &(struct iovec){"x", 1}, 1, 0));
    signal(SIGPIPE, SIG_DFL);
    CALL(syscall(SYS_splice, p[0], NULL, p[1], NULL, 1, 0));
    CALL(copy_file_range(p[0], NULL, fd, NULL, 1, 0));
    CALL(copy_file_range(fd, NULL, s[0], NULL, 1, 0));
    close_all(p[0]);
}

CASE(sending_files) {
    int fd = file_of("0123456789"), p[2], s[2];
    off_t at = 7;
    NEED(pipe(p) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
    CALL(sendfile(p[1], fd, NULL, 4));
    CALL(sendfile(p[1], fd, &at, 100));
    RESULT(at);
    show("pipe", p[0]);
    CALL(sendfile(s[0], fd, NULL, 100));
    CALL(sendfile(s[0], fd, NULL, 100));
    show("socket", s[1]);
    CALL(sendfile(fd, p[0], NULL, 1));
    CALL(sendfile(s[0], s[1], NULL, 1));
    int copy = file_of("");
    at = 0;
    CALL(sendfile(copy, fd, &at, 5));
    CALL(syscall(SYS_sendfile, copy, fd, &at, 2));
    NEED(lseek(copy, 0, SEEK_SET) == 0);
    show("file", copy);
    loff_t from = 1, to = 0;
    CALL(copy_file_range(fd, &from, copy, &to, 4, 0));
    NEED(lseek(copy, 0, SEEK_SET) == 0);
    show("copied", copy);
    close_all(fd);
}

CASE(a_long_way) {
    /* 1 MiB from a file by a pipe to a socket, through a process that echoes by splice. */
    enum { LENGTH = 1 << 20 };
    int s[2], p[2], fd = file_of("");
    char *bytes = malloc(LENGTH), *back = malloc(LENGTH);
    for (int i = 0; i < LENGTH; i++)
        bytes[i] = (char)(i * 7 + i / 4096);
    NEED(pwrite(fd, bytes, LENGTH, 0) == LENGTH);
    NEED(pipe(p) == 0);
    connected(s);
    pid_t child = fork();
    if (child == 0) {
        int q[2];
        ssize_t got;
        close(s[0]);
        NEED(pipe(q) == 0);
        while ((got = splice(s[1], NULL, q[1], NULL, 65536, SPLICE_F_MOVE)) > 0)
            while (got > 0) {
                ssize_t sent = splice(q[0], NULL, s[1], NULL, (size_t)got, SPLICE_F_MOVE);
                NEED(sent > 0);
                got -= sent;
            }
        _exit(got == 0 ? 0 : 1);
    }
    close(s[1]);
    int sent = 0, taken = 0, status = 0;
    while (taken < LENGTH) {
        if (sent < LENGTH) {
            ssize_t got = splice(fd, NULL, p[1], NULL, 30000, 0);
            NEED(got > 0 && splice(p[0], NULL, s[0], NULL, (size_t)got, 0) == got);
            sent += (int)got;
        }
        if (taken < sent) {
            ssize_t got = read(s[0], back + taken, (size_t)(LENGTH - taken));
            NEED(got > 0);
            taken += (int)got;
        }
    }
    RESULT(memcmp(bytes, back, LENGTH));
    NEED(shutdown(s[0], SHUT_WR) == 0 && waitpid(child, &status, 0) == child);
    result("status", status);
    free(bytes);
    free(back);
    close_all(fd);
}
