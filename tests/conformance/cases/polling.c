/* Waiting for readiness, reading and writing in parts, temporary names. */
#include "conformance.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <sys/uio.h>

static void pair_of(int *ends) { NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0); }

CASE(levels_and_edges) {
    int ep = epoll_create1(0), ends[2];
    pair_of(ends);
    struct epoll_event event = {EPOLLIN | EPOLLET, {.u32 = 7}}, out[4];
    CALL(epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &event));
    CALL(epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &event));
    CALL(epoll_wait(ep, out, 4, 0));
    CALL(write(ends[1], "ab", 2));
    CALL(epoll_wait(ep, out, 4, 0));
    result("data", out[0].data.u32);
    CALL(epoll_wait(ep, out, 4, 0));
    event.events = EPOLLIN | EPOLLONESHOT;
    CALL(epoll_ctl(ep, EPOLL_CTL_MOD, ends[0], &event));
    CALL(epoll_wait(ep, out, 4, -1));
    CALL(epoll_wait(ep, out, 4, 10));
    CALL(epoll_ctl(ep, EPOLL_CTL_MOD, ends[1], &event));
    event.events = EPOLLIN | EPOLLRDHUP;
    CALL(epoll_ctl(ep, EPOLL_CTL_MOD, ends[0], &event));
    CALL(shutdown(ends[1], SHUT_WR));
    CALL(epoll_wait(ep, out, 4, -1));
    result("events", out[0].events);
    struct timespec some = {0, 1000000}, bad = {0, -1};
    CALL(epoll_ctl(ep, EPOLL_CTL_DEL, ends[0], NULL));
    CALL(epoll_pwait2(ep, out, 4, &some, NULL));
    CALL(epoll_pwait2(ep, out, 4, &bad, NULL));
    CALL(epoll_wait(ep, out, 0, 0));
    int file = open("regular", O_CREAT | O_RDWR, 0600);
    CALL(epoll_ctl(ep, EPOLL_CTL_ADD, file, &event));
    CALL(epoll_ctl(ep, EPOLL_CTL_ADD, 999, &event));
    close(file);
    unlink("regular");
    close(ep);
    close(ends[0]);
    close(ends[1]);
}

CASE(a_duplicate_is_watched_too) {
    int ep = epoll_create1(0), ends[2];
    pair_of(ends);
    int other = dup(ends[0]);
    struct epoll_event event = {EPOLLIN, {.u32 = 1}}, out[4];
    CALL(epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &event));
    event.data.u32 = 2;
    CALL(epoll_ctl(ep, EPOLL_CTL_ADD, other, &event));
    CALL(write(ends[1], "x", 1));
    CALL(epoll_wait(ep, out, 4, 0));
    close(ends[0]);
    CALL(epoll_wait(ep, out, 4, 0));
    close(other);
    CALL(epoll_wait(ep, out, 4, 0));
    close(ends[1]);
    close(ep);
}

CASE(poll_and_select) {
    int ends[2];
    pair_of(ends);
    struct pollfd set[3] = {{ends[0], POLLIN | POLLOUT, 0}, {-1, POLLIN, 0}, {999, POLLIN, 0}};
    CALL(poll(set, 3, 0));
    result("first", set[0].revents);
    result("none", set[1].revents);
    result("bad", set[2].revents);
    CALL(poll(NULL, 0, 5));
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(ends[0], &in);
    FD_SET(ends[0], &out);
    struct timeval time = {0, 5000};
    CALL(select(ends[0] + 1, &in, &out, NULL, &time));
    result("readable", FD_ISSET(ends[0], &in));
    close(ends[1]);
    struct timespec some = {1, 0};
    FD_SET(ends[0], &in);
    CALL(pselect(ends[0] + 1, &in, NULL, NULL, &some, NULL));
    CALL(ppoll(set, 1, &some, NULL));
    result("first", set[0].revents);
    time.tv_sec = -1;
    CALL(select(0, NULL, NULL, NULL, &time));
    close(ends[0]);
}

CASE(parts) {
    int ends[2], available;
    pair_of(ends);
    char a[4] = "abc", b[4] = "def", c[3], d[8];
    struct iovec out[2] = {{a, 3}, {b, 3}}, in[2] = {{c, 2}, {d, 8}};
    CALL(writev(ends[0], out, 2));
    CALL(ioctl(ends[1], FIONREAD, &available));
    result("available", available);
    CALL(recv(ends[1], d, 2, MSG_PEEK));
    CALL(preadv2(ends[1], in, 2, -1, 0));
    CALL(preadv(ends[1], in, 2, 0));
    CALL(pwritev(ends[0], out, 2, 0));
    volatile int negative = -1;
    CALL(readv(ends[1], in, negative));
    CALL(recv(ends[1], d, 1, MSG_DONTWAIT));
    CALL(send(ends[0], "xyz", 3, MSG_NOSIGNAL));
    CALL(recv(ends[1], d, 8, MSG_DONTWAIT | MSG_WAITALL));
    CALL(shutdown(ends[0], SHUT_WR));
    CALL(read(ends[1], d, 8));
    CALL(send(ends[0], "x", 1, MSG_NOSIGNAL));
    close(ends[0]);
    close(ends[1]);
    int file = open("parts", O_CREAT | O_RDWR, 0600);
    CALL(pwritev(file, out, 2, 1));
    CALL(preadv(file, in, 2, 1));
    CALL(pwritev2(file, out, 2, -1, 0));
    pair_of(ends);
    off_t offset = 0;
    CALL(sendfile(ends[0], file, &offset, 4));
    result("offset", offset);
    CALL(read(ends[1], d, 8));
    int copy = open("copy", O_CREAT | O_RDWR, 0600);
    offset = 0;
    CALL(copy_file_range(file, &offset, copy, NULL, 5, 0));
    close(copy);
    close(file);
    unlink("parts");
    unlink("copy");
    close(ends[0]);
    close(ends[1]);
}

CASE(counters) {
    int fd = eventfd(3, EFD_NONBLOCK);
    eventfd_t value;
    CALL(eventfd_read(fd, &value));
    result("value", (long)value);
    CALL(eventfd_read(fd, &value));
    CALL(eventfd_write(fd, 5));
    CALL(eventfd_write(fd, -1));
    CALL(eventfd_read(fd, &value));
    result("value", (long)value);
    close(fd);
}

CASE(files_tell_what_changes) {
    int fd = inotify_init1(IN_NONBLOCK);
    char events[1024];
    CALL(read(fd, events, sizeof events));
    NEED(mkdir("watched", 0700) == 0);
    result("watch", inotify_add_watch(fd, "watched", IN_CREATE | IN_MOVE | IN_DELETE));
    struct pollfd one = {fd, POLLIN, 0};
    CALL(poll(&one, 1, 0));
    close(open("watched/a", O_CREAT | O_WRONLY, 0600));
    CALL(poll(&one, 1, 1000));
    struct inotify_event *event = (struct inotify_event *)events;
    NEED(read(fd, events, sizeof events) > 0);
    result("mask", event->mask);
    say("name %s", event->name);
    NEED(rename("watched/a", "watched/b") == 0);
    NEED(unlink("watched/b") == 0);
    long got = read(fd, events, sizeof events);
    for (long at = 0; at < got; at += sizeof *event + event->len) {
        event = (struct inotify_event *)(events + at);
        result("mask", event->mask);
        result("moved", event->cookie != 0);
    }
    rmdir("watched");
    close(fd);
}

CASE(temporary_names) {
    char name[] = "t-XXXXXX", suffixed[] = "t-XXXXXX.c", bad[] = "t-XXXXX", made[] = "d-XXXXXX";
    int fd = mkstemp(name);
    result("made", fd >= 0 && access(name, R_OK) == 0 && strcmp(name, "t-XXXXXX") != 0);
    close(fd);
    unlink(name);
    fd = mkostemps(suffixed, 2, O_CLOEXEC);
    result("closes", fcntl(fd, F_GETFD));
    say("suffix %s", suffixed + 8);
    close(fd);
    unlink(suffixed);
    CALL(mkstemp(bad));
    result("directory", mkdtemp(made) == made);
    CALL(rmdir(made));
    struct statvfs st;
    CALL(statvfs(".", &st));
    CALL(statvfs("missing", &st));
}

CASE(more_temporary_names) {
    char suffixed[] = "t-XXXXXX.c", flagged[] = "t-XXXXXX", unmade[] = "t-XXXXXX";
    int fd = mkstemps(suffixed, 2);
    result("made", fd >= 0);
    close(fd);
    unlink(suffixed);
    fd = mkostemp(flagged, O_APPEND);
    result("appends", (fcntl(fd, F_GETFL) & O_APPEND) != 0);
    close(fd);
    unlink(flagged);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    result("a name", mktemp(unmade) == unmade && access(unmade, F_OK) == -1);
#pragma GCC diagnostic pop
    CALL(mkstemps(suffixed, -1));
}

CASE(the_machine_answers) {
    struct sysinfo machine;
    CALL(sysinfo(&machine));
    result("memory", machine.totalram > 0 && get_phys_pages() > 0);
    result("free", get_avphys_pages() > 0);
    unsigned cpu = 999, node = 999;
    CALL(getcpu(&cpu, &node));
    result("set", cpu != 999 && node != 999);
    struct statfs disk;
    CALL(statfs("/", &disk));
    result("name length", disk.f_namelen);
    struct statvfs same;
    int fd = open("/", O_RDONLY);
    CALL(fstatfs(fd, &disk));
    CALL(fstatvfs(fd, &same));
    result("name length", same.f_namemax);
    CALL(fstatfs(999, &disk));
    close(fd);
}

CASE(nothing_to_move) {
    struct iovec none = {NULL, 0};
    CALL(splice(999, NULL, 998, NULL, 1, 0));
    CALL(tee(999, 998, 1, 0));
    CALL(vmsplice(999, &none, 1, 0));
}
