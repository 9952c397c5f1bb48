/* System calls by the program's own instructions, which no function stands before. */
#include "conformance.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static long own(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#define OWN(number, a, b, c, d, e, f)                                                  \
    own(SYS_##number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

static long long nanoseconds(const struct timespec *at) {
    return at->tv_sec * 1000000000ll + at->tv_nsec;
}

CASE(clocks) {
    struct timespec before, mine, after;
    for (int i = 0; i < 3; i++) {
        clock_gettime(CLOCK_REALTIME, &before);
        RESULT(OWN(clock_gettime, CLOCK_REALTIME, &mine, 0, 0, 0, 0));
        clock_gettime(CLOCK_REALTIME, &after);
        RESULT(nanoseconds(&before) <= nanoseconds(&mine));
        RESULT(nanoseconds(&mine) <= nanoseconds(&after));
    }
    RESULT(OWN(clock_gettime, 999, &mine, 0, 0, 0, 0) == -EINVAL);
    RESULT(OWN(time, 0, 0, 0, 0, 0, 0) - time(NULL) <= 0);
    struct timespec length = {0, 5000000};
    long start = now_ms();
    RESULT(OWN(nanosleep, &length, 0, 0, 0, 0, 0));
    RESULT(OWN(clock_nanosleep, CLOCK_MONOTONIC, 0, &length, 0, 0, 0));
    RESULT(now_ms() - start >= 10);
}

CASE(randomness) {
    unsigned char bytes[16] = {0}, none[16] = {0};
    RESULT(OWN(getrandom, bytes, sizeof bytes, 0, 0, 0, 0));
    RESULT(memcmp(bytes, none, sizeof bytes) != 0);
}

CASE(errno_is_the_programs) {
    errno = 77;
    RESULT(OWN(close, 999, 0, 0, 0, 0, 0) == -EBADF);
    RESULT(OWN(read, 999, 0, 0, 0, 0, 0) == -EBADF);
    RESULT(OWN(write, 1, "", 0, 0, 0, 0));
    RESULT(OWN(open, "/no/such/file", O_RDONLY, 0, 0, 0, 0) == -ENOENT);
    RESULT(errno);
    RESULT(own(999, 0, 0, 0, 0, 0, 0) == -ENOSYS);
    RESULT(own(-1, 0, 0, 0, 0, 0, 0) == -ENOSYS);
}

static int ends[2];
static uint32_t word;

static void *writes_late(void *unused) {
    settle();
    NEED(OWN(write, ends[1], "late", 4, 0, 0, 0) == 4);
    return unused;
}

CASE(pipes) {
    char text[8] = "";
    pthread_t thread;
    RESULT(OWN(pipe2, ends, O_CLOEXEC, 0, 0, 0, 0));
    RESULT(OWN(write, ends[1], "abc", 3, 0, 0, 0));
    RESULT(OWN(read, ends[0], text, 8, 0, 0, 0));
    say("%s", text);
    pthread_create(&thread, NULL, writes_late, NULL);
    RESULT(OWN(read, ends[0], text, 8, 0, 0, 0));
    pthread_join(thread, NULL);
    say("%s", text);
    RESULT(OWN(fcntl, ends[0], F_SETFL, O_NONBLOCK, 0, 0, 0));
    RESULT(OWN(read, ends[0], text, 8, 0, 0, 0) == -EAGAIN);
    struct pollfd watched = {ends[0], POLLIN, 0};
    RESULT(OWN(poll, &watched, 1, 5, 0, 0, 0));
    RESULT(write(ends[1], "x", 1));
    RESULT(OWN(poll, &watched, 1, -1, 0, 0, 0));
    struct timespec limit = {1, 0};
    RESULT(OWN(ppoll, &watched, 1, &limit, 0, 8, 0));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    RESULT(OWN(pselect6, ends[0] + 1, &set, 0, 0, &limit, 0));
    RESULT(OWN(close, ends[0], 0, 0, 0, 0, 0));
    RESULT(OWN(close, ends[1], 0, 0, 0, 0, 0));
}

CASE(sockets_and_epoll) {
    int pair[2];
    char text[8] = "";
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 7};
    RESULT(OWN(socketpair, AF_UNIX, SOCK_STREAM, 0, pair, 0, 0));
    long instance = OWN(epoll_create1, 0, 0, 0, 0, 0, 0);
    NEED(instance >= 0);
    RESULT(OWN(epoll_ctl, instance, EPOLL_CTL_ADD, pair[1], &event, 0, 0));
    RESULT(OWN(epoll_wait, instance, &event, 1, 5, 0, 0));
    RESULT(OWN(sendto, pair[0], "hello", 5, 0, 0, 0));
    RESULT(OWN(epoll_pwait, instance, &event, 1, -1, 0, 8));
    RESULT(event.data.u32);
    RESULT(OWN(recvfrom, pair[1], text, 8, 0, 0, 0));
    say("%s", text);
    close((int)instance);
    close(pair[0]);
    close(pair[1]);
}

static void *wakes_late(void *unused) {
    settle();
    word = 1;
    NEED(OWN(futex, &word, FUTEX_WAKE_PRIVATE, 10, 0, 0, 0) == 1);
    return unused;
}

CASE(futexes) {
    pthread_t thread;
    struct timespec limit = {0, 2000000};
    word = 0;
    RESULT(OWN(futex, &word, FUTEX_WAIT_PRIVATE, 1, 0, 0, 0) == -EAGAIN);
    RESULT(OWN(futex, &word, FUTEX_WAIT_PRIVATE, 0, &limit, 0, 0) == -ETIMEDOUT);
    pthread_create(&thread, NULL, wakes_late, NULL);
    while (__atomic_load_n(&word, __ATOMIC_ACQUIRE) == 0)
        RESULT(OWN(futex, &word, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0));
    pthread_join(thread, NULL);
    RESULT(OWN(futex, &word, FUTEX_WAKE_PRIVATE, 10, 0, 0, 0));
    RESULT(OWN(sched_yield, 0, 0, 0, 0, 0, 0));
}

static volatile int taken;

static void take(int number) {
    struct timespec at;
    taken += number;
    /* Inside a handler, inside a call. */
    RESULT(OWN(clock_gettime, CLOCK_MONOTONIC, &at, 0, 0, 0, 0));
}

static void *kills_late(void *thread) {
    settle();
    pthread_kill(*(pthread_t *)thread, SIGUSR1);
    return NULL;
}

CASE(signals) {
    struct sigaction action = {.sa_handler = take};
    pthread_t thread, self = pthread_self();
    char byte;
    taken = 0;
    NEED(sigaction(SIGUSR1, &action, NULL) == 0 && pipe(ends) == 0);
    RESULT(OWN(kill, getpid(), SIGUSR1, 0, 0, 0, 0));
    RESULT(taken == SIGUSR1);
    pthread_create(&thread, NULL, kills_late, &self);
    RESULT(OWN(read, ends[0], &byte, 1, 0, 0, 0) == -EINTR);
    pthread_join(thread, NULL);
    RESULT(taken == 2 * SIGUSR1);
    uint64_t set = 1ull << (SIGUSR1 - 1), old = 0;
    RESULT(OWN(rt_sigprocmask, SIG_BLOCK, &set, &old, 8, 0, 0));
    raise(SIGUSR1);
    RESULT(taken == 2 * SIGUSR1);
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    RESULT(sigismember(&now, SIGUSR1));
    RESULT(OWN(rt_sigprocmask, SIG_SETMASK, &old, 0, 8, 0, 0));
    RESULT(taken == 3 * SIGUSR1);
    signal(SIGUSR1, SIG_DFL);
    close(ends[0]);
    close(ends[1]);
}

static char *handler_stack;
static volatile bool on_it;

static void look(int number) {
    (void)number;
    char here;
    on_it = &here > handler_stack && &here < handler_stack + 65536;
}

CASE(a_stack_for_handlers) {
    handler_stack = malloc(65536);
    stack_t stack = {.ss_sp = handler_stack, .ss_size = 65536}, none = {.ss_flags = SS_DISABLE};
    struct sigaction action = {.sa_handler = look, .sa_flags = SA_ONSTACK};
    NEED(sigaction(SIGUSR2, &action, NULL) == 0);
    RESULT(OWN(sigaltstack, &stack, 0, 0, 0, 0, 0));
    raise(SIGUSR2);
    RESULT(on_it);
    RESULT(OWN(sigaltstack, &none, 0, 0, 0, 0, 0));
    raise(SIGUSR2);
    RESULT(on_it);
    signal(SIGUSR2, SIG_DFL);
    free(handler_stack);
}

static void own_handler(int number, siginfo_t *info, void *context) {
    (void)context;
    struct timespec at;
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    say("SIG%s, %d, %d%d", sigabbrev_np(number), info->si_code == SI_TKILL,
        sigismember(&now, SIGSYS), sigismember(&now, SIGUSR1));
    RESULT(OWN(clock_gettime, CLOCK_MONOTONIC, &at, 0, 0, 0, 0));
}

CASE(a_handler_of_SIGSYS) {
    struct sigaction action = {.sa_sigaction = own_handler, .sa_flags = SA_SIGINFO}, old;
    struct timespec at;
    sigset_t now;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGUSR1);
    NEED(sigaction(SIGSYS, &action, NULL) == 0);
    RESULT(OWN(clock_gettime, CLOCK_MONOTONIC, &at, 0, 0, 0, 0));
    raise(SIGSYS);
    sigprocmask(SIG_SETMASK, NULL, &now);
    RESULT(sigismember(&now, SIGSYS) * 10 + sigismember(&now, SIGUSR1));
    RESULT(sigaction(SIGSYS, NULL, &old) == 0 && old.sa_sigaction == own_handler);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGSYS);
    RESULT(OWN(clock_gettime, CLOCK_MONOTONIC, &at, 0, 0, 0, 0));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    signal(SIGSYS, SIG_IGN);
    raise(SIGSYS);
    RESULT(OWN(clock_gettime, CLOCK_MONOTONIC, &at, 0, 0, 0, 0));
    signal(SIGSYS, SIG_DFL);
}

static void by_sigsys(void) {
    raise(SIGSYS);
}

CASE(SIGSYS_ends_the_process) { in_child(by_sigsys); }

static long child_of(long child) {
    int status = 0;
    if (child == 0) {
        struct timespec at;
        long code = OWN(clock_gettime, CLOCK_MONOTONIC, &at, 0, 0, 0, 0);
        OWN(exit_group, code == 0 ? 42 : 1, 0, 0, 0, 0, 0);
    }
    RESULT(OWN(wait4, child, &status, 0, 0, 0, 0) == child);
    return WEXITSTATUS(status);
}

CASE(children) {
    RESULT(child_of(OWN(fork, 0, 0, 0, 0, 0, 0)));
    RESULT(child_of(OWN(clone, SIGCHLD, 0, 0, 0, 0, 0)));
    RESULT(OWN(getpid, 0, 0, 0, 0, 0, 0) == getpid());
    RESULT(OWN(getppid, 0, 0, 0, 0, 0, 0) == getppid());
    RESULT(OWN(wait4, -1, 0, 0, 0, 0, 0) == -ECHILD);
}

CASE(after_exec) {
    char *path = realpath("/proc/self/exe", NULL);
    char *arguments[] = {path, "clocks", "randomness", NULL};
    int status = 0;
    long child = OWN(fork, 0, 0, 0, 0, 0, 0);
    if (child == 0) {
        OWN(execve, path, arguments, environ, 0, 0, 0);
        _exit(9);
    }
    RESULT(OWN(wait4, child, &status, 0, 0, 0, 0) == child);
    RESULT(status);
    free(path);
}

CASE(files) {
    struct stat one, other;
    char name[] = "/tmp/instructions-XXXXXX", byte;
    int fd = mkstemp(name);
    NEED(fd >= 0);
    RESULT(OWN(pwrite64, fd, "abc", 3, 1, 0, 0));
    RESULT(OWN(pread64, fd, &byte, 1, 2, 0, 0));
    RESULT(byte);
    NEED(stat(name, &one) == 0);
    RESULT(OWN(stat, name, &other, 0, 0, 0, 0));
    RESULT(one.st_ino == other.st_ino && one.st_mtime == other.st_mtime);
    RESULT(OWN(newfstatat, AT_FDCWD, name, &other, 0, 0, 0));
    RESULT(one.st_ino == other.st_ino);
    RESULT(OWN(unlink, name, 0, 0, 0, 0, 0));
    close(fd);
}

static void *leaves(void *unused) {
    OWN(exit, 0, 0, 0, 0, 0, 0);
    return unused;
}

static void alone(void) {
    OWN(exit, 5, 0, 0, 0, 0, 0);
}

CASE(ends) {
    pthread_t thread;
    pthread_create(&thread, NULL, leaves, NULL);
    RESULT(pthread_join(thread, NULL));
    in_child(alone);
}
