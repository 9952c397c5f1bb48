// Cancellation, in C's way and in C++'s.
#include "conformance.h"
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static sem_t never;
static pthread_t target;
static volatile bool asked;

struct Says {
    const char *what;
    ~Says() { say("destructor %s", what); }
};

static void cleans(void *what) { say("cleanup %s", (const char *)what); }
static void unlocks(void *) { code("cleanup unlocks", pthread_mutex_unlock(&m)); }

// Starts a thread, cancels it when it waits, and says how it ended.
static void cancelled(void *(*f)(void *), void *argument = NULL) {
    void *ended = NULL;
    asked = false;
    NEED(pthread_create(&target, NULL, f, argument) == 0);
    settle();
    NEED(pthread_cancel(target) == 0);
    asked = true;
    CODE(pthread_join(target, &ended));
    RESULT(ended == PTHREAD_CANCELED);
}

#define WAITS(name, call)                                                      \
    static void *waits_##name(void *) {                                        \
        Says says = {"of " #name};                                             \
        pthread_cleanup_push(cleans, (void *)#name);                           \
        call;                                                                  \
        say("came back");                                                      \
        pthread_cleanup_pop(0);                                                \
        return NULL;                                                           \
    }                                                                          \
    CASE(in_##name) {                                                          \
        sem_init(&never, 0, 0);                                                \
        cancelled(waits_##name);                                               \
    }

static int idle_pipe() {
    static int ends[2] = {-1, -1};
    if (ends[0] < 0)
        NEED(pipe(ends) == 0);
    return ends[0];
}

static int idle_socket() {
    static int ends[2] = {-1, -1};
    if (ends[0] < 0)
        NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    return ends[0];
}

static char byte;
static struct timespec long_time = {1000, 0};

WAITS(sleep, sleep(1000))
WAITS(usleep, usleep(900000000))
WAITS(nanosleep, nanosleep(&long_time, NULL))
WAITS(clock_nanosleep, clock_nanosleep(CLOCK_MONOTONIC, 0, &long_time, NULL))
WAITS(sem_wait, sem_wait(&never))
WAITS(pause, pause())
WAITS(read, (void)!read(idle_pipe(), &byte, 1))
WAITS(recv, recv(idle_socket(), &byte, 1, 0))
WAITS(poll, poll(NULL, 0, -1))
WAITS(testcancel, while (true) pthread_testcancel())

static void *waits_poll_fd(void *) {
    struct pollfd one = {idle_pipe(), POLLIN, 0};
    pthread_cleanup_push(cleans, (void *)"poll");
    poll(&one, 1, -1);
    pthread_cleanup_pop(0);
    return NULL;
}
CASE(in_poll_of_a_pipe) { cancelled(waits_poll_fd); }

static void *waits_select(void *) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(idle_pipe(), &set);
    select(idle_pipe() + 1, &set, NULL, NULL, NULL);
    return NULL;
}
CASE(in_select) { cancelled(waits_select); }

static void *waits_epoll(void *) {
    int fd = epoll_create1(0);
    struct epoll_event event;
    pthread_cleanup_push(cleans, (void *)"epoll");
    epoll_wait(fd, &event, 1, -1);
    pthread_cleanup_pop(0);
    return NULL;
}
CASE(in_epoll_wait) { cancelled(waits_epoll); }

static void *waits_join(void *thread) {
    pthread_join(*(pthread_t *)thread, NULL);
    return NULL;
}

static void *sleeps_a_while(void *) {
    usleep(1000000);
    return (void *)6;
}

CASE(in_join) {
    pthread_t other;
    void *ended = NULL;
    NEED(pthread_create(&other, NULL, sleeps_a_while, NULL) == 0);
    cancelled(waits_join, &other);
    CODE(pthread_join(other, &ended));
    RESULT((long)ended);
}

static void *waits_cond(void *) {
    pthread_mutex_lock(&m);
    pthread_cleanup_push(unlocks, NULL);
    while (true)
        pthread_cond_wait(&c, &m);
    pthread_cleanup_pop(1);
    return NULL;
}

CASE(in_cond_wait) {
    cancelled(waits_cond);
    CODE(pthread_mutex_trylock(&m));
    CODE(pthread_mutex_unlock(&m));
}

static void *waits_mutex(void *) {
    pthread_mutex_lock(&m);
    say("got it");
    pthread_mutex_unlock(&m);
    pthread_testcancel();
    return (void *)1;
}

CASE(not_in_mutex_lock) {
    void *ended = NULL;
    pthread_mutex_lock(&m);
    NEED(pthread_create(&target, NULL, waits_mutex, NULL) == 0);
    settle();
    CODE(pthread_cancel(target));
    settle();
    NEED(pthread_mutex_unlock(&m) == 0);
    CODE(pthread_join(target, &ended));
    RESULT(ended == PTHREAD_CANCELED);
}

static void *disables(void *) {
    int old = -1;
    CODE(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old));
    RESULT(old);
    while (!asked)
        usleep(1000);
    say("still here");
    CODE(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old));
    RESULT(old);
    say("and here");
    pthread_testcancel();
    say("not here");
    return NULL;
}

CASE(disabled) { cancelled(disables); }

static void *spins(void *) {
    int old = -1;
    CODE(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old));
    RESULT(old);
    pthread_cleanup_push(cleans, (void *)"asynchronous");
    while (true)
        sched_yield();
    pthread_cleanup_pop(0);
    return NULL;
}

CASE(asynchronous) { cancelled(spins); }

static void *cancels_itself(void *how) {
    if (how != NULL)
        pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    CODE(pthread_cancel(pthread_self()));
    say("after");
    pthread_testcancel();
    say("not here");
    return NULL;
}

CASE(itself) {
    for (long how = 0; how < 2; how++) {
        void *ended = NULL;
        NEED(pthread_create(&target, NULL, cancels_itself, (void *)how) == 0);
        NEED(pthread_join(target, &ended) == 0);
        RESULT(ended == PTHREAD_CANCELED);
    }
}

static void *enables_late(void *) {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    pthread_cancel(pthread_self());
    say("before");
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    say("not here");
    return NULL;
}

CASE(asynchronous_when_enabled) {
    void *ended = NULL;
    NEED(pthread_create(&target, NULL, enables_late, NULL) == 0);
    NEED(pthread_join(target, &ended) == 0);
    RESULT(ended == PTHREAD_CANCELED);
}

CASE(bad_arguments) {
    int old = -1;
    CODE(pthread_setcancelstate(77, &old));
    CODE(pthread_setcanceltype(77, &old));
    RESULT(old);
    CODE(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL));
    CODE(pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &old));
    RESULT(old);
}

static pthread_key_t key;
static void destructor(void *value) { say("key destructor %ld", (long)value); }

static void *nested(void *) {
    Says outer = {"outer"};
    pthread_setspecific(key, (void *)3);
    pthread_cleanup_push(cleans, (void *)"1");
    pthread_cleanup_push(cleans, (void *)"2");
    Says inner = {"inner"};
    sleep(1000);
    pthread_cleanup_pop(0);
    pthread_cleanup_pop(0);
    return NULL;
}

CASE(order_of_the_end) {
    NEED(pthread_key_create(&key, destructor) == 0);
    cancelled(nested);
    NEED(pthread_key_delete(key) == 0);
}

static void *catches(void *) {
    try {
        sleep(1000);
    } catch (...) {
        say("caught");
        throw;
    }
    return NULL;
}

CASE(caught_and_thrown_on) { cancelled(catches); }

static void exits_inside() {
    Says says = {"of the inner frame"};
    pthread_exit((void *)11);
}

static void *exits_deep(void *) {
    Says says = {"of the outer frame"};
    exits_inside();
    return NULL;
}

CASE(exit_runs_destructors) {
    void *ended = NULL;
    NEED(pthread_create(&target, NULL, exits_deep, NULL) == 0);
    NEED(pthread_join(target, &ended) == 0);
    RESULT((long)ended);
}

static void *posts_and_waits(void *) {
    sem_wait(&never);
    say("not here");
    return NULL;
}

// Who was woken has what woke it; the request counts at the next point.
CASE(several) {
    pthread_t t[4];
    sem_init(&never, 0, 0);
    for (auto &one : t)
        NEED(pthread_create(&one, NULL, posts_and_waits, NULL) == 0);
    settle();
    for (auto &one : t)
        NEED(pthread_cancel(one) == 0);
    int count = 0;
    for (auto &one : t) {
        void *ended = NULL;
        NEED(pthread_join(one, &ended) == 0);
        count += ended == PTHREAD_CANCELED;
    }
    RESULT(count);
    int value = -1;
    CALL(sem_getvalue(&never, &value));
    RESULT(value);
}

static void cancel_of_the_first() {
    pthread_cleanup_push(cleans, (void *)"of the first thread");
    pthread_cancel(pthread_self());
    pthread_testcancel();
    pthread_cleanup_pop(0);
}

CASE(the_first_thread) { in_child(cancel_of_the_first); }
