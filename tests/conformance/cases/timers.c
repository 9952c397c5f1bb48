/* Timers: interval timers, POSIX timers, timers and signals as descriptors. */
#include "conformance.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <sys/timerfd.h>

static volatile sig_atomic_t taken;
static volatile int code_seen, value_seen;

static void handler(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    taken++;
    code_seen = info->si_code;
    value_seen = info->si_value.sival_int;
}

static void catch(int signal) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(signal, &action, NULL);
    taken = 0;
}

static void wait_for(int count) {
    while (taken < count)
        pause();
}

CASE(alarm_comes_once) {
    catch(SIGALRM);
    result("before", alarm(10));
    result("left", alarm(1));
    wait_for(1);
    result("taken", taken);
    result("after", alarm(0));
}

CASE(interval_timer_repeats) {
    catch(SIGALRM);
    struct itimerval setting = {{0, 20000}, {0, 10000}}, old;
    CALL(setitimer(ITIMER_REAL, &setting, NULL));
    wait_for(3);
    setting = (struct itimerval){{0, 0}, {0, 0}};
    CALL(setitimer(ITIMER_REAL, &setting, &old));
    result("interval", old.it_interval.tv_usec);
    CALL(getitimer(ITIMER_REAL, &old));
    result("disarmed", old.it_value.tv_sec == 0 && old.it_value.tv_usec == 0);
    setting.it_value.tv_usec = 1000000;
    CALL(setitimer(ITIMER_REAL, &setting, NULL));
    CALL(setitimer(17, &setting, NULL));
    CALL(getitimer(17, &old));
}

CASE(ualarm_interrupts_a_sleep) {
    catch(SIGALRM);
    result("none", ualarm(10000, 0));
    struct timespec long_time = {10, 0}, rest = {0, 0};
    CALL(nanosleep(&long_time, &rest));
    result("most is left", rest.tv_sec >= 9);
}

CASE(timer_sends_a_value) {
    catch(SIGRTMIN);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    event.sigev_value.sival_int = 77;
    CALL(timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec setting = {{0, 0}, {0, 5000000}}, old;
    CALL(timer_settime(timer, 0, &setting, NULL));
    wait_for(1);
    result("value", value_seen);
    result("is a timer's", code_seen == SI_TIMER);
    CALL(timer_gettime(timer, &old));
    result("over", old.it_value.tv_sec == 0 && old.it_value.tv_nsec == 0);
    CALL(timer_getoverrun(timer));
    CALL(timer_delete(timer));
    CALL(timer_delete(timer));
    CALL(timer_gettime(timer, &old));
    event.sigev_signo = 500;
    CALL(timer_create(CLOCK_MONOTONIC, &event, &timer));
    CALL(timer_create(999, NULL, &timer));
}

CASE(timer_until_a_time) {
    catch(SIGALRM);
    timer_t timer;
    CALL(timer_create(CLOCK_REALTIME, NULL, &timer));
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct itimerspec setting = {{0, 0}, {now.tv_sec + 1, 0}};
    CALL(timer_settime(timer, TIMER_ABSTIME, &setting, NULL));
    wait_for(1);
    clock_gettime(CLOCK_REALTIME, &now);
    result("not early", now.tv_sec >= setting.it_value.tv_sec);
    setting.it_value.tv_nsec = 1000000000;
    CALL(timer_settime(timer, 0, &setting, NULL));
    CALL(timer_delete(timer));
}

static void called(union sigval value) {
    value_seen = value.sival_int;
    __atomic_add_fetch(&taken, 1, __ATOMIC_SEQ_CST);
}

CASE(timer_calls_a_function) {
    taken = 0;
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD};
    event.sigev_notify_function = called;
    event.sigev_value.sival_int = 5;
    CALL(timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec setting = {{0, 10000000}, {0, 10000000}};
    CALL(timer_settime(timer, 0, &setting, NULL));
    while (__atomic_load_n(&taken, __ATOMIC_SEQ_CST) < 2)
        usleep(1000);
    result("value", value_seen);
    CALL(timer_delete(timer));
}

CASE(timer_without_a_signal) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    CALL(timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec setting = {{0, 0}, {100, 0}}, now;
    CALL(timer_settime(timer, 0, &setting, NULL));
    CALL(timer_gettime(timer, &now));
    result("most is left", now.it_value.tv_sec >= 98);
    CALL(timer_delete(timer));
}

CASE(timer_as_a_descriptor) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    uint64_t times = 0;
    CALL(read(fd, &times, 8));
    CALL(read(fd, &times, 4));
    struct itimerspec setting = {{0, 0}, {0, 10000000}};
    CALL(timerfd_settime(fd, 0, &setting, NULL));
    struct pollfd one = {fd, POLLIN, 0};
    CALL(poll(&one, 1, 5000));
    result("events", one.revents);
    CALL(read(fd, &times, 8));
    result("times", (long)times);
    setting.it_value.tv_nsec = 1000000000;
    CALL(timerfd_settime(fd, 0, &setting, NULL));
    CALL(timerfd_settime(1, 0, &setting, NULL));
    close(fd);
}

CASE(signals_as_bytes) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    struct signalfd_siginfo info[4];
    CALL(read(fd, info, sizeof info));
    CALL(read(fd, info, 10));
    struct pollfd one = {fd, POLLIN, 0};
    CALL(poll(&one, 1, 0));
    union sigval value = {.sival_int = 9};
    sigqueue(getpid(), SIGUSR2, value);
    kill(getpid(), SIGUSR1);
    CALL(poll(&one, 1, 1000));
    result("events", one.revents);
    result("bytes", read(fd, info, sizeof info) / (long)sizeof info[0]);
    result("first", info[0].ssi_signo == SIGUSR1);
    result("second", info[1].ssi_signo == SIGUSR2);
    result("value", info[1].ssi_int);
    result("sender", info[0].ssi_pid == (uint32_t)getpid());
    CALL(poll(&one, 1, 0));
    sigdelset(&set, SIGUSR1);
    result("same", signalfd(fd, &set, 0) == fd);
    kill(getpid(), SIGUSR1);
    CALL(poll(&one, 1, 0));
    CALL(signalfd(0, &set, 0));
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGUSR1, &ignore, NULL);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    close(fd);
}

CASE(a_signal_wakes_a_blocking_read) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, 0);
    alarm(1);
    struct signalfd_siginfo info;
    result("bytes", read(fd, &info, sizeof info));
    result("alarm", info.ssi_signo == SIGALRM);
    close(fd);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}
