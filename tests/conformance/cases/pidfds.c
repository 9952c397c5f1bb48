/* Descriptors of processes. */
#include "conformance.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static int gate[2];

static pid_t child_at_the_gate(void) {
    NEED(pipe(gate) == 0);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(gate[1]);
        NEED(read(gate[0], &byte, 1) == 0);
        _exit(6);
    }
    close(gate[0]);
    return child;
}

CASE(it_is_ready_when_the_process_ends) {
    pid_t child = child_at_the_gate();
    int fd = pidfd_open(child, 0);
    RESULT(fd >= 0);
    RESULT(fcntl(fd, F_GETFD));
    struct pollfd watched = {fd, POLLIN, 0};
    CALL(poll(&watched, 1, 5));
    close(gate[1]);
    CALL(poll(&watched, 1, -1));
    RESULT(watched.revents);
    siginfo_t info = {0};
    CALL(waitid(P_PIDFD, (id_t)fd, &info, WEXITED | WNOWAIT));
    RESULT(info.si_pid == child && info.si_code == CLD_EXITED && info.si_status == 6);
    CALL(waitid(P_PIDFD, (id_t)fd, &info, WEXITED));
    CALL(waitid(P_PIDFD, (id_t)fd, &info, WEXITED));
    CALL(pidfd_send_signal(fd, SIGTERM, NULL, 0));
    char byte;
    CALL(read(fd, &byte, 1));
    CALL(write(fd, "x", 1));
    close(fd);
}

static void *opens_the_gate(void *unused) {
    settle();
    close(gate[1]);
    return unused;
}

CASE(it_wakes_an_epoll) {
    pid_t child = child_at_the_gate();
    int fd = pidfd_open(child, 0), instance = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = 3};
    pthread_t thread;
    CALL(epoll_ctl(instance, EPOLL_CTL_ADD, fd, &event));
    pthread_create(&thread, NULL, opens_the_gate, NULL);
    CALL(epoll_wait(instance, &event, 1, -1));
    pthread_join(thread, NULL);
    RESULT(event.data.u32);
    int status;
    RESULT(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 6);
    close(instance);
    close(fd);
}

CASE(of_a_process_that_has_ended) {
    pid_t child = child_at_the_gate();
    close(gate[1]);
    siginfo_t info;
    NEED(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
    int fd = pidfd_open(child, 0);
    struct pollfd watched = {fd, POLLIN, 0};
    CALL(poll(&watched, 1, -1));
    CALL(pidfd_send_signal(fd, 0, NULL, 0));
    NEED(waitpid(child, NULL, 0) == child);
    CALL(pidfd_open(child, 0));
    close(fd);
}

CASE(signals_by_descriptor) {
    pid_t child = child_at_the_gate();
    int fd = pidfd_open(child, PIDFD_NONBLOCK), status;
    siginfo_t info = {.si_signo = SIGTERM, .si_code = SI_QUEUE}, other = {.si_signo = SIGUSR1};
    CALL(waitid(P_PIDFD, (id_t)fd, &info, WEXITED));
    CALL(waitid(P_PIDFD, (id_t)fd, &info, WEXITED | WNOHANG));
    info = (siginfo_t){.si_signo = SIGTERM, .si_code = SI_QUEUE};
    CALL(pidfd_send_signal(fd, 0, NULL, 0));
    CALL(pidfd_send_signal(fd, 99, NULL, 0));
    CALL(pidfd_send_signal(fd, SIGTERM, NULL, 0x100));
    CALL(pidfd_send_signal(fd, SIGTERM, &other, 0));
    CALL(pidfd_send_signal(fd, SIGUSR1, &other, 0));
    CALL(pidfd_send_signal(fd, SIGTERM, &info, 0));
    RESULT(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    RESULT(WTERMSIG(status));
    close(fd);
    close(gate[1]);
}

static volatile int value;

static void take(int number, siginfo_t *info, void *context) {
    (void)context;
    value = number * 1000 + info->si_value.sival_int;
}

CASE(a_value_to_itself) {
    struct sigaction action = {.sa_sigaction = take, .sa_flags = SA_SIGINFO};
    siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_QUEUE};
    int fd = pidfd_open(getpid(), 0);
    NEED(sigaction(SIGUSR1, &action, NULL) == 0);
    info.si_value.sival_int = 7;
    CALL(pidfd_send_signal(fd, SIGUSR1, &info, 0));
    RESULT(value == SIGUSR1 * 1000 + 7);
    signal(SIGUSR1, SIG_DFL);
    close(fd);
}

CASE(errors_of_descriptors) {
    CALL(pidfd_open(0, 0));
    CALL(pidfd_open(-5, 0));
    CALL(pidfd_open(99999999, 0));
    CALL(pidfd_open(getpid(), 1));
    CALL(syscall(SYS_pidfd_open, -1, 0));
    CALL(pidfd_send_signal(0, SIGTERM, NULL, 0));
    CALL(pidfd_send_signal(-1, SIGTERM, NULL, 0));
    siginfo_t info;
    CALL(waitid(P_PIDFD, 999, &info, WEXITED));
}
