/* Other names of the same functions: older ones, those of fortified programs. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include "conformance.h"
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/select.h>
#include <sys/timerfd.h>
#include <sys/timex.h>

int __fxstat(int version, int fd, struct stat *out);
int __fxstat64(int version, int fd, struct stat64 *out);
int __xstat(int version, const char *path, struct stat *out);
int __xstat64(int version, const char *path, struct stat64 *out);
int __lxstat(int version, const char *path, struct stat *out);
int __lxstat64(int version, const char *path, struct stat64 *out);
int __fxstatat(int version, int fd, const char *path, struct stat *out, int flags);
int __fxstatat64(int version, int fd, const char *path, struct stat64 *out, int flags);
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int fd, const char *path, int flags);
int __openat64_2(int fd, const char *path, int flags);
ssize_t __read_chk(int fd, void *buffer, size_t count, size_t size);
ssize_t __recv_chk(int fd, void *buffer, size_t count, size_t size, int flags);
ssize_t __recvfrom_chk(int fd, void *buffer, size_t count, size_t size, int flags, void *address,
                       socklen_t *length);
int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t size);
int __dprintf_chk(int fd, int flag, const char *format, ...);
int __vdprintf_chk(int fd, int flag, const char *format, va_list arguments);
void __longjmp_chk(jmp_buf buffer, int value);
pid_t _Fork(void);
__sighandler_t bsd_signal(int number, __sighandler_t handler);

ssize_t __read(int fd, void *buffer, size_t count);
ssize_t __write(int fd, const void *buffer, size_t count);
ssize_t __pwrite64(int fd, const void *buffer, size_t count, off_t at);
int __open(const char *path, int flags, ...);
int __open64(const char *path, int flags, ...);
int __close(int fd);
int __dup2(int old, int new);
int __pipe(int ends[2]);
int __fcntl(int fd, int command, ...);
int __connect(int fd, const struct sockaddr *address, socklen_t length);
ssize_t __send(int fd, const void *buffer, size_t count, int flags);
int __poll(struct pollfd *fds, nfds_t count, int timeout);
int __select(int count, fd_set *in, fd_set *out, fd_set *other, struct timeval *timeout);
pid_t __wait(int *status);
pid_t __waitpid(pid_t pid, int *status, int options);
pid_t __fork(void);
pid_t __vfork(void);
int __nanosleep(const struct timespec *length, struct timespec *rest);
int __gettimeofday(struct timeval *at, void *zone);
long __sysconf(int name);
int __sched_yield(void);

static volatile int taken;

static void take(int number) {
    taken = number;
}

CASE(stat_by_version) {
    int fd = open("/etc/passwd", O_RDONLY);
    struct stat plain, one;
    struct stat64 other;
    NEED(fd >= 0);
    NEED(fstat(fd, &plain) == 0);
    RESULT(__fxstat(1, fd, &one) == 0 && one.st_size == plain.st_size);
    RESULT(__fxstat64(1, fd, &other) == 0 && other.st_ino == plain.st_ino);
    RESULT(__xstat(1, "/etc/passwd", &one) == 0 && one.st_ino == plain.st_ino);
    RESULT(__xstat64(1, "/etc/passwd", &other) == 0 && other.st_size == plain.st_size);
    RESULT(__lxstat(1, "/etc/passwd", &one) == 0 && one.st_mtime == plain.st_mtime);
    RESULT(__lxstat64(1, "/etc/passwd", &other) == 0 && other.st_size == plain.st_size);
    RESULT(__fxstatat(1, AT_FDCWD, "/etc/passwd", &one, 0) == 0 && one.st_size == plain.st_size);
    RESULT(__fxstatat64(1, AT_FDCWD, "/no/such", &other, 0) == -1 && errno == ENOENT);
    close(fd);
}

CASE(names_with_underscores) {
    int ends[2], pair[2], status = 0;
    char text[8] = "";
    struct pollfd set = {0, POLLIN, 0};
    struct timeval none = {0, 0}, at;
    struct timespec little = {0, 1000};
    fd_set in;
    RESULT(__pipe(ends));
    RESULT(__write(ends[1], "ab", 2));
    set.fd = ends[0];
    RESULT(__poll(&set, 1, 0));
    FD_ZERO(&in);
    FD_SET(ends[0], &in);
    RESULT(__select(ends[0] + 1, &in, NULL, NULL, &none));
    RESULT(__read(ends[0], text, sizeof text));
    RESULT(__dup2(ends[0], 50));
    RESULT(__fcntl(50, F_GETFD));
    RESULT(__close(50));
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    RESULT(__send(pair[0], "c", 1, 0));
    struct sockaddr nowhere = {.sa_family = AF_INET};
    CALL(__connect(-1, &nowhere, sizeof nowhere));
    int fd = __open("underscores", O_CREAT | O_RDWR, 0600);
    RESULT(__pwrite64(fd, "xyz", 3, 0));
    close(fd);
    fd = __open64("underscores", O_RDONLY);
    RESULT(read(fd, text, sizeof text));
    close(fd);
    unlink("underscores");
    pid_t child = __fork();
    if (child == 0)
        _exit(3);
    RESULT(__waitpid(child, &status, 0) == child);
    result("status", WEXITSTATUS(status));
    child = __vfork();
    if (child == 0)
        _exit(4);
    RESULT(__wait(&status) == child);
    result("status", WEXITSTATUS(status));
    RESULT(__nanosleep(&little, NULL));
    RESULT(__gettimeofday(&at, NULL));
    RESULT(__sysconf(_SC_PAGESIZE));
    RESULT(__sched_yield());
    close(ends[0]);
    close(ends[1]);
    close(pair[0]);
    close(pair[1]);
}

CASE(clocks_of_ntp) {
    struct ntptimeval at;
    time_t now = time(NULL);
    ntp_gettime(&at);
    result("the same clock", at.time.tv_sec - now <= 1);
    ntp_gettimex(&at);
    result("the same clock", at.time.tv_sec - now <= 1);
}

CASE(names_for_temporary_files) {
    char name[L_tmpnam];
    RESULT(tmpnam_r(NULL) == NULL);
    RESULT(tmpnam_r(name) == name && strncmp(name, "/tmp/file", 9) == 0);
    RESULT(access(name, F_OK));
    char *own = tmpnam(NULL);
    RESULT(strlen(own));
    char *made = tempnam("/missing", "prefix");
    say("%.10s", made);
    result("length", strlen(made));
    free(made);
    made = tempnam("/dev/shm", NULL);
    say("%.13s", made);
    free(made);
}

CASE(urgent_data) {
    int pair[2];
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CALL(sockatmark(999));
    CALL(sockatmark(open("/dev/null", O_RDONLY)));
    close(pair[0]);
    close(pair[1]);
}

CASE(directories_with_large_files) {
    DIR *stream = opendir("/proc/self/task");
    struct dirent64 entry, *given;
    NEED(stream != NULL);
    RESULT(readdir64(stream)->d_name[0]);
    RESULT(readdir64_r(stream, &entry, &given));
    RESULT(given == &entry && strcmp(entry.d_name, "..") == 0);
    closedir(stream);
    struct dirent64 **list;
    int count = scandir64("/proc/self/task", &list, NULL, NULL);
    RESULT(count);
    for (int i = 0; i < count; i++)
        free(list[i]);
    free(list);
    CALL(scandirat64(AT_FDCWD, "missing", &list, NULL, NULL));
}

CASE(open_of_fortified_programs) {
    int first = __open_2("/etc/passwd", O_RDONLY), second = __open64_2("/etc/passwd", O_RDONLY);
    int third = __openat_2(AT_FDCWD, "/etc/passwd", O_RDONLY);
    int fourth = __openat64_2(AT_FDCWD, "/no/such", O_RDONLY);
    RESULT(first >= 0 && second > first && third > second);
    RESULT(fourth == -1 && errno == ENOENT);
    close(first);
    close(second);
    close(third);
}

CASE(reads_of_fortified_programs) {
    int pair[2];
    char buffer[8];
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    NEED(write(pair[0], "abcdef", 6) == 6);
    struct pollfd wanted = {.fd = pair[1], .events = POLLIN};
    RESULT(__poll_chk(&wanted, 1, 0, sizeof wanted));
    RESULT(wanted.revents == POLLIN);
    RESULT((int)__read_chk(pair[1], buffer, 2, sizeof buffer));
    RESULT((int)__recv_chk(pair[1], buffer, 2, sizeof buffer, 0));
    RESULT((int)__recvfrom_chk(pair[1], buffer, 8, sizeof buffer, 0, NULL, NULL));
    RESULT(buffer[0] == 'e' && buffer[1] == 'f');
    close(pair[0]);
    close(pair[1]);
}

static int print(int fd, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int first = vdprintf(fd, format, arguments);
    va_end(arguments);
    va_start(arguments, format);
    int second = __vdprintf_chk(fd, 1, format, arguments);
    va_end(arguments);
    return first + second;
}

CASE(printing_to_a_descriptor) {
    int ends[2];
    char buffer[64] = "";
    NEED(pipe(ends) == 0);
    RESULT(dprintf(ends[1], "%d,", 1));
    RESULT(__dprintf_chk(ends[1], 1, "%d,", 22));
    RESULT(print(ends[1], "%s;", "x"));
    RESULT((int)read(ends[0], buffer, sizeof buffer));
    RESULT(strcmp(buffer, "1,22,x;x;") == 0);
    close(ends[0]);
    close(ends[1]);
}

CASE(jumps) {
    jmp_buf place;
    volatile int turns = 0;
    int value = setjmp(place);
    if (turns == 0) {
        turns = 1;
        longjmp(place, 3);
    } else if (turns == 1) {
        RESULT(value);
        turns = 2;
        _longjmp(place, 4);
    } else if (turns == 2) {
        RESULT(value);
        turns = 3;
        __longjmp_chk(place, 5);
    } else {
        RESULT(value);
    }
}

CASE(older_names_of_signals) {
    RESULT(bsd_signal(SIGUSR1, take) == SIG_DFL);
    RESULT(ssignal(SIGUSR1, take) == take);
    RESULT(gsignal(SIGUSR1));
    RESULT(taken == SIGUSR1);
    taken = 0;
    RESULT((int)syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
    RESULT(taken == SIGUSR1);
    taken = 0;
    RESULT(tgkill(getpid(), gettid(), SIGUSR1));
    RESULT(taken == SIGUSR1);
    signal(SIGUSR1, SIG_DFL);
}

static void take_value(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    taken = info->si_value.sival_int;
}

CASE(a_value_for_a_thread) {
    struct sigaction action = {.sa_sigaction = take_value, .sa_flags = SA_SIGINFO};
    union sigval value = {.sival_int = 77};
    NEED(sigaction(SIGUSR2, &action, NULL) == 0);
    RESULT(pthread_sigqueue(pthread_self(), SIGUSR2, value));
    RESULT(taken);
    signal(SIGUSR2, SIG_DFL);
}

CASE(waiting_for_any_signal) {
    signal(SIGUSR1, take);
    taken = 0;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    NEED(sigprocmask(SIG_BLOCK, &one, NULL) == 0);
    kill(getpid(), SIGUSR1);
    RESULT(taken);
    RESULT(sigpause(SIGUSR1) == -1 && errno == EINTR); // __xpg_sigpause()
    RESULT(taken == SIGUSR1);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
    signal(SIGUSR1, SIG_DFL);
}

static int end_of(pid_t pid) {
    int status = -1;
    NEED(pid > 0);
    NEED(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

CASE(processes) {
    pid_t pid = _Fork();
    if (pid == 0)
        _Exit(4);
    RESULT(end_of(pid));
    pid = fork();
    if (pid == 0)
        _Exit(setpgrp() == 0 && getpgrp() == getpid() ? 5 : 6);
    RESULT(end_of(pid));
}

CASE(closing_all) {
    int fd = dup(1);
    pid_t pid = fork();
    if (pid == 0) {
        closefrom(fd);
        _exit(fcntl(fd, F_GETFD) == -1 && errno == EBADF && fcntl(1, F_GETFD) >= 0 ? 7 : 8);
    }
    RESULT(end_of(pid));
    close(fd);
}

CASE(polling_with_a_mask) {
    int ends[2], set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 9};
    sigset_t none;
    sigemptyset(&none);
    NEED(set >= 0 && pipe(ends) == 0);
    RESULT(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event));
    RESULT(epoll_pwait(set, &event, 1, 0, &none));
    NEED(write(ends[1], "x", 1) == 1);
    RESULT(epoll_pwait(set, &event, 1, -1, &none));
    RESULT((int)event.data.u32);
    close(set);
    close(ends[0]);
    close(ends[1]);
}

CASE(times_and_numbers) {
    struct timespec time;
    struct itimerspec left = {.it_value = {5, 5}};
    RESULT(timespec_get(&time, TIME_UTC) == TIME_UTC && time.tv_sec > 0);
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    NEED(timer >= 0);
    RESULT(timerfd_gettime(timer, &left));
    RESULT(left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
    close(timer);
    RESULT(get_nprocs_conf() >= 1 && get_nprocs() >= 1);
    RESULT(arc4random_uniform(10) < 10);
    RESULT(pthread_yield());
}
