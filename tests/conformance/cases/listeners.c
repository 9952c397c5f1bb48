/* Listeners of several processes, half-closed connections, and who of many is told. */
#include "conformance.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static int listener_at(struct sockaddr_in *name, int reuse) {
    socklen_t length = sizeof *name;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &reuse, sizeof reuse) == 0);
    NEED(bind(fd, (struct sockaddr *)name, sizeof *name) == 0 && listen(fd, 8) == 0);
    NEED(getsockname(fd, (struct sockaddr *)name, &length) == 0);
    return fd;
}

static struct sockaddr_in loopback(void) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int client_of(struct sockaddr_in *name) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(connect(fd, (struct sockaddr *)name, sizeof *name) == 0);
    return fd;
}

static void connected(int ends[2]) {
    struct sockaddr_in name = loopback();
    int listener = listener_at(&name, 0);
    ends[0] = client_of(&name);
    ends[1] = accept(listener, NULL, NULL);
    NEED(ends[1] >= 0);
    close(listener);
}

static void serve(struct sockaddr_in name, int ready) {
    int listener = listener_at(&name, 1);
    NEED(write(ready, "r", 1) == 1);
    for (;;) {
        char byte;
        int fd = accept(listener, NULL, NULL);
        NEED(fd >= 0);
        if (read(fd, &byte, 1) == 1)
            NEED(write(fd, "ok", 2) == 2);
        close(fd);
    }
}

CASE(one_port_of_several_processes) {
    struct sockaddr_in name = loopback();
    int first = listener_at(&name, 1), ready[2], answers = 0;
    pid_t children[3];
    char text[8];
    NEED(pipe(ready) == 0);
    for (int i = 0; i < 3; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            close(first);
            serve(name, ready[1]);
        }
    }
    for (int i = 0; i < 3; i++)
        NEED(read(ready[0], text, 1) == 1);
    close(first);
    for (int i = 0; i < 20; i++) {
        int fd = client_of(&name);
        NEED(write(fd, "x", 1) == 1);
        answers += read(fd, text, sizeof text) == 2;
        close(fd);
    }
    RESULT(answers);
    for (int i = 0; i < 3; i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CALL(connect(fd, (struct sockaddr *)&name, sizeof name));
    close(fd);
    close(ready[0]);
    close(ready[1]);
}

CASE(half_closed) {
    int ends[2];
    char text[16];
    connected(ends);
    NEED(write(ends[0], "request", 7) == 7);
    CALL(shutdown(ends[0], SHUT_WR));
    signal(SIGPIPE, SIG_IGN);
    CALL(write(ends[0], "x", 0));
    CALL(write(ends[0], "x", 1));
    signal(SIGPIPE, SIG_DFL);
    CALL(recv(ends[1], text, 3, MSG_PEEK));
    CALL(recv(ends[1], text, sizeof text, 0));
    CALL(recv(ends[1], text, sizeof text, 0));
    struct pollfd watched = {ends[1], POLLIN | POLLOUT | POLLRDHUP, 0};
    CALL(poll(&watched, 1, 0));
    RESULT(watched.revents);
    CALL(write(ends[1], "answer", 6));
    CALL(shutdown(ends[1], SHUT_RD));
    CALL(close(ends[1]));
    CALL(recv(ends[0], text, sizeof text, MSG_WAITALL));
    CALL(recv(ends[0], text, sizeof text, 0));
    watched.fd = ends[0];
    CALL(poll(&watched, 1, 0));
    RESULT(watched.revents);
    close(ends[0]);
}

static int told;

static void *waits(void *fd) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE};
    int instance = epoll_create1(0);
    NEED(epoll_ctl(instance, EPOLL_CTL_ADD, *(int *)fd, &event) == 0);
    if (epoll_wait(instance, &event, 1, 300) == 1)
        __atomic_add_fetch(&told, 1, __ATOMIC_SEQ_CST);
    close(instance);
    return NULL;
}

CASE(exclusive) {
    int ends[2];
    pthread_t threads[3];
    connected(ends);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, waits, &ends[1]);
    settle();
    NEED(write(ends[0], "x", 1) == 1);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    RESULT(told >= 1);
    int instance = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT};
    CALL(epoll_ctl(instance, EPOLL_CTL_ADD, ends[1], &event));
    event.events = EPOLLIN | EPOLLEXCLUSIVE;
    CALL(epoll_ctl(instance, EPOLL_CTL_ADD, ends[1], &event));
    CALL(epoll_ctl(instance, EPOLL_CTL_MOD, ends[1], &event));
    close(instance);
    close(ends[0]);
    close(ends[1]);
}

CASE(once) {
    int ends[2], instance = epoll_create1(0);
    struct epoll_event event, wanted = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = 5};
    connected(ends);
    CALL(epoll_ctl(instance, EPOLL_CTL_ADD, ends[1], &wanted));
    NEED(write(ends[0], "x", 1) == 1);
    CALL(epoll_wait(instance, &event, 1, -1));
    RESULT(event.data.u32);
    CALL(epoll_wait(instance, &event, 1, 10));
    CALL(epoll_ctl(instance, EPOLL_CTL_MOD, ends[1], &wanted));
    CALL(epoll_wait(instance, &event, 1, -1));
    close(instance);
    close(ends[0]);
    close(ends[1]);
}
