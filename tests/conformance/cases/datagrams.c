/* Datagram sockets, names of Unix sockets, and descriptors that they pass. */
#include "conformance.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static struct sockaddr_in at(const char *ip, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &address.sin_addr);
    return address;
}

static int udp(struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t size = sizeof *address;
    *address = at("127.0.0.1", 0);
    NEED(bind(fd, (struct sockaddr *)address, size) == 0);
    NEED(getsockname(fd, (struct sockaddr *)address, &size) == 0);
    return fd;
}

CASE(messages_and_their_senders) {
    struct sockaddr_in one, two, from;
    int a = udp(&one), b = udp(&two);
    char bytes[16];
    socklen_t size = sizeof from;
    CALL(sendto(a, "hello", 5, 0, (struct sockaddr *)&two, sizeof two));
    CALL(sendto(a, "", 0, 0, (struct sockaddr *)&two, sizeof two));
    CALL(recvfrom(b, bytes, sizeof bytes, MSG_PEEK, NULL, NULL));
    CALL(recvfrom(b, bytes, 2, MSG_TRUNC, (struct sockaddr *)&from, &size));
    result("size", size);
    result("sender", from.sin_port == one.sin_port);
    CALL(recv(b, bytes, sizeof bytes, 0));
    CALL(recv(b, bytes, sizeof bytes, MSG_DONTWAIT));
    CALL(send(a, "x", 1, 0));
    CALL(sendto(a, bytes, 70000, 0, (struct sockaddr *)&two, sizeof two));
    struct pollfd both = {b, POLLIN | POLLOUT, 0};
    CALL(poll(&both, 1, 0));
    result("events", both.revents);
    close(a);
    close(b);
}

CASE(connected) {
    struct sockaddr_in one, two, three, name;
    int a = udp(&one), b = udp(&two), c = udp(&three);
    char bytes[16];
    socklen_t size = sizeof name;
    CALL(getpeername(a, (struct sockaddr *)&name, &size));
    CALL(connect(a, (struct sockaddr *)&two, sizeof two));
    CALL(getpeername(a, (struct sockaddr *)&name, &size));
    result("peer", name.sin_port == two.sin_port);
    CALL(send(a, "one", 3, 0));
    CALL(read(b, bytes, sizeof bytes));
    CALL(sendto(c, "stranger", 8, 0, (struct sockaddr *)&one, sizeof one));
    CALL(sendto(b, "friend", 6, 0, (struct sockaddr *)&one, sizeof one));
    CALL(recv(a, bytes, sizeof bytes, 0));
    CALL(recv(a, bytes, sizeof bytes, MSG_DONTWAIT));
    close(b);
    CALL(send(a, "lost", 4, 0));
    CALL(send(a, "told", 4, 0));
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    CALL(connect(a, &nobody, sizeof nobody));
    CALL(send(a, "x", 1, 0));
    CALL(shutdown(a, SHUT_RDWR));
    close(a);
    close(c);
}

CASE(many_at_once) {
    struct sockaddr_in one, two;
    int a = udp(&one), b = udp(&two);
    CALL(connect(a, (struct sockaddr *)&two, sizeof two));
    char first[] = "first", second[] = "second", room[3][16];
    struct iovec out[2] = {{first, 5}, {second, 6}}, in[3];
    struct mmsghdr send[2] = {{.msg_hdr = {.msg_iov = out, .msg_iovlen = 1}},
                              {.msg_hdr = {.msg_iov = out + 1, .msg_iovlen = 1}}};
    CALL(sendmmsg(a, send, 2, 0));
    result("lengths", send[0].msg_len * 10 + send[1].msg_len);
    struct mmsghdr receive[3];
    for (int i = 0; i < 3; i++) {
        in[i] = (struct iovec){room[i], 16};
        receive[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = in + i, .msg_iovlen = 1}};
    }
    CALL(recvmmsg(b, receive, 3, MSG_WAITFORONE, NULL));
    result("lengths", receive[0].msg_len * 10 + receive[1].msg_len);
    close(a);
    close(b);
}

CASE(where_it_was_sent_to) {
    struct sockaddr_in one, two;
    int a = udp(&one), b = udp(&two), on = 1;
    CALL(setsockopt(b, IPPROTO_IP, IP_PKTINFO, &on, sizeof on));
    CALL(sendto(a, "x", 1, 0, (struct sockaddr *)&two, sizeof two));
    char byte, control[64];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    CALL(recvmsg(b, &message, 0));
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    result("info", head != NULL && head->cmsg_type == IP_PKTINFO);
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(head), sizeof info);
    result("address", ntohl(info.ipi_addr.s_addr) == INADDR_LOOPBACK);
    result("interface", info.ipi_ifindex);
    close(a);
    close(b);
}

static struct sockaddr_un named(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, name);
    return address;
}

CASE(names_in_the_file_system) {
    struct sockaddr_un name = named("socket"), other = named("./socket"), none = named("missing");
    int a = socket(AF_UNIX, SOCK_STREAM, 0), b = socket(AF_UNIX, SOCK_STREAM, 0);
    CALL(connect(b, (struct sockaddr *)&none, sizeof none));
    CALL(bind(a, (struct sockaddr *)&name, sizeof name));
    CALL(connect(b, (struct sockaddr *)&name, sizeof name));
    CALL(listen(a, 4));
    struct stat st;
    CALL(stat("socket", &st));
    result("socket", S_ISSOCK(st.st_mode));
    CALL(chmod("socket", 0600));
    CALL(connect(b, (struct sockaddr *)&other, sizeof other));
    struct ucred who = {0};
    socklen_t size = sizeof who;
    CALL(getsockopt(b, SOL_SOCKET, SO_PEERCRED, &who, &size));
    result("my own", who.pid == getpid());
    int c = accept(a, NULL, NULL);
    CALL(write(b, "hello", 5));
    char bytes[8];
    CALL(read(c, bytes, sizeof bytes));
    int d = socket(AF_UNIX, SOCK_STREAM, 0);
    CALL(bind(d, (struct sockaddr *)&name, sizeof name));
    CALL(unlink("socket"));
    CALL(connect(d, (struct sockaddr *)&name, sizeof name));
    CALL(bind(d, (struct sockaddr *)&name, sizeof name));
    CALL(connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&name, sizeof name));
    CALL(unlink("socket"));
    close(a);
    close(b);
    close(c);
    close(d);
}

CASE(unix_datagrams) {
    struct sockaddr_un name = named("log"), from;
    int a = socket(AF_UNIX, SOCK_DGRAM, 0), b = socket(AF_UNIX, SOCK_DGRAM, 0);
    CALL(bind(a, (struct sockaddr *)&name, sizeof name));
    CALL(send(b, "x", 1, 0));
    CALL(sendto(b, "one", 3, 0, (struct sockaddr *)&name, sizeof name));
    CALL(connect(b, (struct sockaddr *)&name, sizeof name));
    CALL(send(b, "two", 3, 0));
    char bytes[8];
    socklen_t size = sizeof from;
    CALL(recvfrom(a, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &size));
    result("unnamed", size);
    CALL(recv(a, bytes, sizeof bytes, 0));
    close(a);
    CALL(send(b, "three", 5, 0));
    CALL(unlink("log"));
    close(b);
}

static long pass(int socket, const char *bytes, int count, const int *fds) {
    char control[256] = {0};
    struct iovec part = {(char *)bytes, strlen(bytes)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control};
    message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(head), fds, sizeof(int) * count);
    return sendmsg(socket, &message, 0);
}

static int take(int socket, int *fds, int room, int flags) {
    char control[256], bytes[32];
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control};
    message.msg_controllen = room == 0 ? 0 : CMSG_SPACE(sizeof(int) * room);
    CALL(recvmsg(socket, &message, flags));
    result("flags", message.msg_flags & (MSG_CTRUNC | MSG_TRUNC));
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head == NULL)
        return 0;
    int count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(head), sizeof(int) * count);
    return count;
}

CASE(descriptors_travel) {
    int pair[2], ends[2], got[4];
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    NEED(pipe(ends) == 0);
    int file = open("passed", O_CREAT | O_RDWR, 0600);
    int both[2] = {ends[1], file};
    CALL(pass(pair[0], "take", 2, both));
    pid_t child = fork();
    if (child == 0) {
        result("count", take(pair[1], got, 2, MSG_CMSG_CLOEXEC));
        CALL(write(got[0], "by pipe", 7));
        CALL(write(got[1], "to file", 7));
        result("closes", fcntl(got[0], F_GETFD));
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    char bytes[16];
    CALL(read(ends[0], bytes, sizeof bytes));
    CALL(pread(file, bytes, sizeof bytes, 0));
    CALL(write(pair[0], "ab", 2));
    CALL(pass(pair[0], "cd", 1, both));
    CALL(write(pair[0], "ef", 2));
    result("count", take(pair[1], got, 1, 0));
    CALL(read(pair[1], bytes, sizeof bytes));
    CALL(pass(pair[0], "gh", 2, both));
    result("cut", take(pair[1], got, 0, 0));
    CALL(pass(pair[0], "ij", 1, both));
    CALL(read(pair[1], bytes, sizeof bytes));
    int bad = 999;
    CALL(pass(pair[0], "kl", 1, &bad));
    unlink("passed");
    close(pair[0]);
    close(pair[1]);
}

CASE(credentials_travel) {
    int pair[2], on = 1;
    NEED(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    CALL(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    CALL(sendmsg(pair[0], &(struct msghdr){.msg_iov = &(struct iovec){"x", 1}, .msg_iovlen = 1}, 0));
    char byte, control[64];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    CALL(recvmsg(pair[1], &message, 0));
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    result("credentials", head != NULL && head->cmsg_type == SCM_CREDENTIALS);
    struct ucred who;
    memcpy(&who, CMSG_DATA(head), sizeof who);
    result("mine", who.pid == getpid() && who.uid == getuid());
    close(pair[0]);
    close(pair[1]);
}

/* The time in a message's control data, by which option it was asked for, and how. */
static void told_when(int fd, int from, struct sockaddr_in *name) {
    char byte, control[128];
    struct timespec before, after, at = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    clock_gettime(CLOCK_REALTIME, &before);
    NEED(sendto(from, "x", 1, 0, (struct sockaddr *)name, sizeof *name) == 1);
    NEED(recvmsg(fd, &message, 0) == 1);
    /* Linux begins to note times a little after it was asked to; until then it is the time of
       the reading. */
    clock_gettime(CLOCK_REALTIME, &after);
    result("control", (long)message.msg_controllen);
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        result("level", head->cmsg_level);
        result("type", head->cmsg_type);
        result("length", (long)head->cmsg_len);
        if (head->cmsg_level != SOL_SOCKET)
            continue;
        memcpy(&at, CMSG_DATA(head), sizeof at);
        bool micro = head->cmsg_type == SO_TIMESTAMP || head->cmsg_type == 63;
        if (micro)
            before.tv_nsec -= before.tv_nsec % 1000;
        at.tv_nsec *= micro ? 1000 : 1;
        long long ns = at.tv_sec * 1000000000ll + at.tv_nsec;
        RESULT(before.tv_sec * 1000000000ll + before.tv_nsec <= ns);
        RESULT(ns <= after.tv_sec * 1000000000ll + after.tv_nsec);
    }
}

CASE(when_it_came) {
    struct sockaddr_in one, two;
    int a = udp(&one), b = udp(&two), on = 1, off = 0;
    int options[] = {SO_TIMESTAMP, SO_TIMESTAMPNS, 63, 64};
    for (int i = 0; i < 4; i++) {
        result("option", options[i]);
        CALL(setsockopt(b, SOL_SOCKET, options[i], &on, sizeof on));
        told_when(b, a, &two);
    }
    CALL(setsockopt(b, IPPROTO_IP, IP_PKTINFO, &on, sizeof on));
    told_when(b, a, &two);
    CALL(setsockopt(b, SOL_SOCKET, SO_TIMESTAMP, &off, sizeof off));
    told_when(b, a, &two);
    CALL(setsockopt(b, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on));
    NEED(sendto(a, "x", 1, 0, (struct sockaddr *)&two, sizeof two) == 1);
    char byte, control[20];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    CALL(recvmsg(b, &message, 0));
    result("cut", message.msg_flags == MSG_CTRUNC);
    result("control", (long)message.msg_controllen);
    close(a);
    close(b);
}
