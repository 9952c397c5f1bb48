/* Mutexes: kinds, errors, time-outs, robustness, sharing, priorities. */
#include "conformance.h"

static pthread_mutex_t m;

static void make(int type, int robust, int shared) {
    pthread_mutexattr_t a;
    NEED(pthread_mutexattr_init(&a) == 0);
    NEED(pthread_mutexattr_settype(&a, type) == 0);
    NEED(pthread_mutexattr_setrobust(&a, robust) == 0);
    NEED(pthread_mutexattr_setpshared(&a, shared) == 0);
    NEED(pthread_mutex_init(&m, &a) == 0);
    NEED(pthread_mutexattr_destroy(&a) == 0);
}

/* Runs `f` in a thread of its own and waits for its end. */
static void in_thread(void *(*f)(void *), void *argument) {
    pthread_t t;
    NEED(pthread_create(&t, NULL, f, argument) == 0);
    NEED(pthread_join(t, NULL) == 0);
}

static void *other_tries(void *unused) {
    (void)unused;
    int got = pthread_mutex_trylock(&m);
    code("another thread's trylock", got);
    if (got == 0)
        CODE(pthread_mutex_unlock(&m));
    return NULL;
}

static void *other_unlocks(void *unused) {
    (void)unused;
    code("another thread's unlock", pthread_mutex_unlock(&m));
    return NULL;
}

static void *other_times_out(void *unused) {
    (void)unused;
    struct timespec at = in_ms(5);
    code("timedlock", pthread_mutex_timedlock(&m, &at));
    at = in_ms_on(CLOCK_MONOTONIC, 5);
    code("clocklock monotonic", pthread_mutex_clocklock(&m, CLOCK_MONOTONIC, &at));
    at = in_ms(-1000);
    code("timedlock in the past", pthread_mutex_timedlock(&m, &at));
    at = (struct timespec){-5, 0};
    code("timedlock before 1970", pthread_mutex_timedlock(&m, &at));
    at = in_ms(5);
    at.tv_nsec = 1000000000;
    code("timedlock with bad nanoseconds", pthread_mutex_timedlock(&m, &at));
    at.tv_nsec = -1;
    code("timedlock with negative nanoseconds", pthread_mutex_timedlock(&m, &at));
    at = in_ms(5);
    code("clocklock of a bad clock", pthread_mutex_clocklock(&m, 77, &at));
    code("clocklock of the cpu clock", pthread_mutex_clocklock(&m, CLOCK_PROCESS_CPUTIME_ID, &at));
    return NULL;
}

static void whole(int type) {
    make(type, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_PRIVATE);
    CODE(pthread_mutex_lock(&m));
    in_thread(other_tries, NULL);
    in_thread(other_times_out, NULL);
    CODE(pthread_mutex_trylock(&m));
    CODE(pthread_mutex_destroy(&m));
    CODE(pthread_mutex_unlock(&m));
}

CASE(normal) {
    whole(PTHREAD_MUTEX_NORMAL);
    in_thread(other_tries, NULL);
    struct timespec at = in_ms(5);
    CODE(pthread_mutex_lock(&m));
    code("relock until a time", pthread_mutex_timedlock(&m, &at));
    in_thread(other_unlocks, NULL);
    in_thread(other_tries, NULL);
    CODE(pthread_mutex_destroy(&m));
}

CASE(adaptive) {
    whole(PTHREAD_MUTEX_ADAPTIVE_NP);
    in_thread(other_tries, NULL);
    CODE(pthread_mutex_destroy(&m));
}

CASE(recursive) {
    whole(PTHREAD_MUTEX_RECURSIVE);
    in_thread(other_tries, NULL);
    in_thread(other_unlocks, NULL);
    CODE(pthread_mutex_lock(&m));
    struct timespec at = in_ms(5);
    CODE(pthread_mutex_timedlock(&m, &at));
    CODE(pthread_mutex_unlock(&m));
    CODE(pthread_mutex_unlock(&m));
    CODE(pthread_mutex_unlock(&m));
    CODE(pthread_mutex_unlock(&m));
    in_thread(other_tries, NULL);
}

CASE(error_checking) {
    whole(PTHREAD_MUTEX_ERRORCHECK);
    CODE(pthread_mutex_unlock(&m));
    CODE(pthread_mutex_lock(&m));
    CODE(pthread_mutex_lock(&m));
    struct timespec at = in_ms(5);
    CODE(pthread_mutex_timedlock(&m, &at));
    in_thread(other_unlocks, NULL);
    CODE(pthread_mutex_unlock(&m));
    CODE(pthread_mutex_unlock(&m));
    CODE(pthread_mutex_destroy(&m));
}

CASE(static_initialisers) {
    pthread_mutex_t normal = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
    pthread_mutex_t checking = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
    pthread_mutex_t adaptive = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP;
    CODE(pthread_mutex_lock(&normal));
    CODE(pthread_mutex_trylock(&normal));
    CODE(pthread_mutex_lock(&recursive));
    CODE(pthread_mutex_lock(&recursive));
    CODE(pthread_mutex_lock(&checking));
    CODE(pthread_mutex_lock(&checking));
    CODE(pthread_mutex_lock(&adaptive));
    CODE(pthread_mutex_trylock(&adaptive));
}

CASE(attributes) {
    pthread_mutexattr_t a;
    int value = -1;
    CODE(pthread_mutexattr_init(&a));
    CODE(pthread_mutexattr_settype(&a, 77));
    CODE(pthread_mutexattr_gettype(&a, &value));
    RESULT(value);
    CODE(pthread_mutexattr_setrobust(&a, 77));
    CODE(pthread_mutexattr_getrobust(&a, &value));
    RESULT(value);
    CODE(pthread_mutexattr_setpshared(&a, 77));
    CODE(pthread_mutexattr_getpshared(&a, &value));
    RESULT(value);
    CODE(pthread_mutexattr_setprotocol(&a, 77));
    CODE(pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT));
    CODE(pthread_mutexattr_getprotocol(&a, &value));
    RESULT(value == PTHREAD_PRIO_INHERIT);
    CODE(pthread_mutexattr_setprioceiling(&a, 1000));
    CODE(pthread_mutexattr_getprioceiling(&a, &value));
    CODE(pthread_mutexattr_destroy(&a));
}

static void priorities(int protocol) {
    pthread_mutexattr_t a;
    int old = -1;
    NEED(pthread_mutexattr_init(&a) == 0);
    NEED(pthread_mutexattr_setprotocol(&a, protocol) == 0);
    CODE(pthread_mutex_init(&m, &a));
    CODE(pthread_mutex_lock(&m));
    in_thread(other_tries, NULL);
    in_thread(other_times_out, NULL);
    CODE(pthread_mutex_unlock(&m));
    in_thread(other_tries, NULL);
    CODE(pthread_mutex_getprioceiling(&m, &old));
    CODE(pthread_mutex_setprioceiling(&m, 5, &old));
    CODE(pthread_mutex_destroy(&m));
}

CASE(priority_none) { priorities(PTHREAD_PRIO_NONE); }
CASE(priority_inheritance) { priorities(PTHREAD_PRIO_INHERIT); }

/* Locking needs a privilege that neither side's test has for sure. */
CASE(priority_ceiling) {
    pthread_mutexattr_t a;
    int old = -1;
    NEED(pthread_mutexattr_init(&a) == 0);
    CODE(pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_PROTECT));
    CODE(pthread_mutexattr_setprioceiling(&a, 7));
    CODE(pthread_mutexattr_getprioceiling(&a, &old));
    RESULT(old);
    CODE(pthread_mutex_init(&m, &a));
    CODE(pthread_mutex_getprioceiling(&m, &old));
    RESULT(old);
    CODE(pthread_mutex_destroy(&m));
}

static void *dies_with_it(void *unused) {
    (void)unused;
    NEED(pthread_mutex_lock(&m) == 0);
    return NULL;
}

static void *other_locks_robust(void *unused) {
    (void)unused;
    int got = pthread_mutex_lock(&m);
    code("another thread's lock", got);
    if (got == 0 || got == EOWNERDEAD)
        CODE(pthread_mutex_unlock(&m));
    return NULL;
}

CASE(robust_made_consistent) {
    make(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST, PTHREAD_PROCESS_PRIVATE);
    CODE(pthread_mutex_consistent(&m));
    in_thread(dies_with_it, NULL);
    CODE(pthread_mutex_lock(&m));
    in_thread(other_tries, NULL);
    CODE(pthread_mutex_consistent(&m));
    CODE(pthread_mutex_consistent(&m));
    CODE(pthread_mutex_unlock(&m));
    CODE(pthread_mutex_lock(&m));
    CODE(pthread_mutex_unlock(&m));
    CODE(pthread_mutex_destroy(&m));
}

CASE(robust_not_recoverable) {
    make(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST, PTHREAD_PROCESS_PRIVATE);
    in_thread(dies_with_it, NULL);
    CODE(pthread_mutex_lock(&m));
    CODE(pthread_mutex_unlock(&m));
    CODE(pthread_mutex_lock(&m));
    struct timespec at = in_ms(5);
    CODE(pthread_mutex_timedlock(&m, &at));
    in_thread(other_locks_robust, NULL);
    CODE(pthread_mutex_consistent(&m));
    CODE(pthread_mutex_destroy(&m));
    /* The C library's trylock would leave such a mutex locked; ours does not. */
}

CASE(robust_trylock_and_timedlock) {
    make(PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ROBUST, PTHREAD_PROCESS_PRIVATE);
    in_thread(dies_with_it, NULL);
    CODE(pthread_mutex_trylock(&m));
    CODE(pthread_mutex_consistent(&m));
    CODE(pthread_mutex_lock(&m));
    CODE(pthread_mutex_unlock(&m));
    in_thread(dies_with_it, NULL);
    struct timespec at = in_ms(5);
    CODE(pthread_mutex_timedlock(&m, &at));
    CODE(pthread_mutex_consistent(&m));
    CODE(pthread_mutex_unlock(&m));
    CODE(pthread_mutex_unlock(&m));
}

CASE(robust_recursive) {
    make(PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ROBUST, PTHREAD_PROCESS_PRIVATE);
    in_thread(dies_with_it, NULL);
    CODE(pthread_mutex_lock(&m));
    CODE(pthread_mutex_lock(&m));
    CODE(pthread_mutex_consistent(&m));
    CODE(pthread_mutex_unlock(&m));
    in_thread(other_tries, NULL);
    CODE(pthread_mutex_unlock(&m));
    in_thread(other_tries, NULL);
}

static void *waits_for_it(void *got) {
    *(int *)got = pthread_mutex_lock(&m);
    return NULL;
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void *dies_at_the_gate(void *unused) {
    (void)unused;
    NEED(pthread_mutex_lock(&m) == 0);
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    return NULL;
}

CASE(robust_wakes_who_waits) {
    make(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST, PTHREAD_PROCESS_PRIVATE);
    int got = -1;
    pthread_t dying, waiting;
    pthread_mutex_lock(&gate);
    NEED(pthread_create(&dying, NULL, dies_at_the_gate, NULL) == 0);
    settle();
    NEED(pthread_create(&waiting, NULL, waits_for_it, &got) == 0);
    settle();
    pthread_mutex_unlock(&gate);
    NEED(pthread_join(dying, NULL) == 0);
    NEED(pthread_join(waiting, NULL) == 0);
    code("the waiter got", got);
}

struct shared {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int value;
};

static struct shared *make_shared(int robust) {
    struct shared *s = shared_page();
    pthread_mutexattr_t a;
    pthread_condattr_t c;
    NEED(pthread_mutexattr_init(&a) == 0 && pthread_condattr_init(&c) == 0);
    NEED(pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) == 0);
    NEED(pthread_condattr_setpshared(&c, PTHREAD_PROCESS_SHARED) == 0);
    NEED(pthread_mutexattr_setrobust(&a, robust) == 0);
    NEED(pthread_mutex_init(&s->lock, &a) == 0);
    NEED(pthread_cond_init(&s->changed, &c) == 0);
    return s;
}

CASE(shared_between_processes) {
    struct shared *s = make_shared(PTHREAD_MUTEX_STALLED);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 1000; i++) {
            pthread_mutex_lock(&s->lock);
            s->value++;
            pthread_mutex_unlock(&s->lock);
        }
        _exit(0);
    }
    for (int i = 0; i < 1000; i++) {
        pthread_mutex_lock(&s->lock);
        s->value++;
        pthread_mutex_unlock(&s->lock);
    }
    NEED(waitpid(child, NULL, 0) == child);
    RESULT(s->value);
    munmap(s, 4096);
}

CASE(shared_at_two_addresses) {
    int fd = memfd_create("mutex", MFD_CLOEXEC);
    NEED(fd >= 0 && ftruncate(fd, 8192) == 0);
    void *here = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4096);
    NEED(here != MAP_FAILED);
    struct shared *s = here;
    pthread_mutexattr_t a;
    NEED(pthread_mutexattr_init(&a) == 0);
    NEED(pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) == 0);
    NEED(pthread_mutex_init(&s->lock, &a) == 0);
    CODE(pthread_mutex_lock(&s->lock));
    pid_t child = fork();
    if (child == 0) {
        void *there = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        struct shared *t = (void *)((char *)there + 4096);
        NEED(there != MAP_FAILED && t != s);
        code("the child's trylock", pthread_mutex_trylock(&t->lock));
        code("the child's lock", pthread_mutex_lock(&t->lock));
        result("the value is", t->value);
        code("the child's unlock", pthread_mutex_unlock(&t->lock));
        _exit(0);
    }
    settle();
    s->value = 7;
    NEED(pthread_mutex_unlock(&s->lock) == 0);
    NEED(waitpid(child, NULL, 0) == child);
    munmap(here, 4096);
    close(fd);
}

CASE(robust_when_a_process_ends) {
    struct shared *s = make_shared(PTHREAD_MUTEX_ROBUST);
    pid_t child = fork();
    if (child == 0) {
        pthread_mutex_lock(&s->lock);
        _exit(0);
    }
    NEED(waitpid(child, NULL, 0) == child);
    CODE(pthread_mutex_lock(&s->lock));
    CODE(pthread_mutex_consistent(&s->lock));
    CODE(pthread_mutex_unlock(&s->lock));
    CODE(pthread_mutex_lock(&s->lock));
    munmap(s, 4096);
}

static void *counts(void *counter) {
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&m);
        ++*(long *)counter;
        pthread_mutex_unlock(&m);
    }
    return NULL;
}

CASE(many_threads) {
    make(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_PRIVATE);
    pthread_t t[8];
    long counter = 0;
    for (int i = 0; i < 8; i++)
        NEED(pthread_create(&t[i], NULL, counts, &counter) == 0);
    for (int i = 0; i < 8; i++)
        NEED(pthread_join(t[i], NULL) == 0);
    RESULT(counter);
}

static volatile int tried;

static void *locks_for_a_while(void *unused) {
    (void)unused;
    pthread_mutex_lock(&m);
    while (!tried)
        usleep(1000);
    usleep(10000);
    pthread_mutex_unlock(&m);
    return NULL;
}

CASE(timed_and_got) {
    make(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_PRIVATE);
    pthread_t t;
    NEED(pthread_create(&t, NULL, locks_for_a_while, NULL) == 0);
    settle();
    CODE(pthread_mutex_trylock(&m));
    tried = 1;
    struct timespec at = in_ms(5000);
    CODE(pthread_mutex_timedlock(&m, &at));
    CODE(pthread_mutex_unlock(&m));
    NEED(pthread_join(t, NULL) == 0);
}
