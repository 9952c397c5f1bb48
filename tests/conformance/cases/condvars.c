/* Condition variables: clocks, errors, order, sharing. */
#include "conformance.h"

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static int turn_of, woken, order[8];

static void *waits(void *number) {
    pthread_mutex_lock(&m);
    int me = (int)(intptr_t)number;
    while (turn_of == 0)
        pthread_cond_wait(&c, &m);
    turn_of--;
    order[woken++] = me;
    pthread_mutex_unlock(&m);
    return NULL;
}

static void start_waiters(pthread_t *t, int count) {
    woken = turn_of = 0;
    for (int i = 0; i < count; i++) {
        NEED(pthread_create(&t[i], NULL, waits, (void *)(intptr_t)i) == 0);
        settle();
    }
}

CASE(signal_wakes_one) {
    pthread_t t[3];
    start_waiters(t, 3);
    for (int i = 1; i <= 3; i++) {
        pthread_mutex_lock(&m);
        turn_of = 1;
        CODE(pthread_cond_signal(&c));
        pthread_mutex_unlock(&m);
        settle();
        RESULT(woken);
    }
    for (int i = 0; i < 3; i++)
        NEED(pthread_join(t[i], NULL) == 0);
}

CASE(broadcast_wakes_all) {
    pthread_t t[4];
    start_waiters(t, 4);
    pthread_mutex_lock(&m);
    turn_of = 4;
    CODE(pthread_cond_broadcast(&c));
    pthread_mutex_unlock(&m);
    for (int i = 0; i < 4; i++)
        NEED(pthread_join(t[i], NULL) == 0);
    RESULT(woken);
}

CASE(nobody_waits) {
    CODE(pthread_cond_signal(&c));
    CODE(pthread_cond_broadcast(&c));
    struct timespec at = in_ms(5);
    pthread_mutex_lock(&m);
    /* What was signalled before does not count. */
    CODE(pthread_cond_timedwait(&c, &m, &at));
    pthread_mutex_unlock(&m);
}

CASE(times) {
    pthread_condattr_t a;
    pthread_cond_t monotonic;
    clockid_t id = 99;
    CODE(pthread_condattr_init(&a));
    CODE(pthread_condattr_getclock(&a, &id));
    RESULT(id);
    CODE(pthread_condattr_setclock(&a, CLOCK_PROCESS_CPUTIME_ID));
    CODE(pthread_condattr_setclock(&a, 77));
    CODE(pthread_condattr_setclock(&a, CLOCK_MONOTONIC));
    CODE(pthread_condattr_getclock(&a, &id));
    RESULT(id);
    CODE(pthread_cond_init(&monotonic, &a));
    CODE(pthread_condattr_destroy(&a));
    pthread_mutex_lock(&m);
    struct timespec at = in_ms_on(CLOCK_MONOTONIC, 10);
    long before = now_ms();
    CODE(pthread_cond_timedwait(&monotonic, &m, &at));
    RESULT(now_ms() - before >= 9);
    RESULT(now_ms() - before < 2000);
    at = in_ms(10);
    CODE(pthread_cond_clockwait(&monotonic, &m, CLOCK_REALTIME, &at));
    at = in_ms_on(CLOCK_MONOTONIC, 10);
    CODE(pthread_cond_clockwait(&c, &m, CLOCK_MONOTONIC, &at));
    at = in_ms(-5000);
    CODE(pthread_cond_timedwait(&c, &m, &at));
    at = (struct timespec){-1, 0};
    CODE(pthread_cond_timedwait(&c, &m, &at));
    at = (struct timespec){now_ms() / 1000, 1000000000};
    CODE(pthread_cond_timedwait(&c, &m, &at));
    at = (struct timespec){now_ms() / 1000, -1};
    CODE(pthread_cond_timedwait(&c, &m, &at));
    at = in_ms(5);
    CODE(pthread_cond_clockwait(&c, &m, CLOCK_PROCESS_CPUTIME_ID, &at));
    CODE(pthread_cond_clockwait(&c, &m, 77, &at));
    CODE(pthread_mutex_unlock(&m));
    CODE(pthread_cond_destroy(&monotonic));
}

static pthread_mutex_t checking = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;

CASE(without_the_mutex) {
    struct timespec at = in_ms(5);
    CODE(pthread_cond_wait(&c, &checking));
    CODE(pthread_cond_timedwait(&c, &checking, &at));
}

CASE(timed_and_signalled) {
    pthread_t t[1];
    start_waiters(t, 1);
    pthread_mutex_lock(&m);
    turn_of = 1;
    pthread_cond_signal(&c);
    pthread_mutex_unlock(&m);
    NEED(pthread_join(t[0], NULL) == 0);
    RESULT(woken);
}

static void *signals_late(void *unused) {
    (void)unused;
    usleep(20000);
    pthread_mutex_lock(&m);
    turn_of = 1;
    pthread_cond_signal(&c);
    pthread_mutex_unlock(&m);
    return NULL;
}

CASE(timed_wait_that_is_signalled) {
    pthread_t t;
    turn_of = 0;
    NEED(pthread_create(&t, NULL, signals_late, NULL) == 0);
    struct timespec at = in_ms(5000);
    int got = 0;
    pthread_mutex_lock(&m);
    while (turn_of == 0 && got == 0)
        got = pthread_cond_timedwait(&c, &m, &at);
    pthread_mutex_unlock(&m);
    code("got", got);
    NEED(pthread_join(t, NULL) == 0);
}

static void *destroys(void *condition) {
    pthread_mutex_lock(&m);
    turn_of = 1;
    pthread_cond_signal(condition);
    pthread_mutex_unlock(&m);
    code("destroy after the signal", pthread_cond_destroy(condition));
    memset(condition, 0xff, sizeof(pthread_cond_t));
    return NULL;
}

CASE(destroyed_by_who_signals) {
    pthread_cond_t own;
    NEED(pthread_cond_init(&own, NULL) == 0);
    pthread_t t;
    turn_of = 0;
    pthread_mutex_lock(&m);
    NEED(pthread_create(&t, NULL, destroys, &own) == 0);
    while (turn_of == 0)
        pthread_cond_wait(&own, &m);
    pthread_mutex_unlock(&m);
    NEED(pthread_join(t, NULL) == 0);
    CODE(pthread_cond_init(&own, NULL));
    CODE(pthread_cond_destroy(&own));
}

static pthread_mutex_t robust;

static void *dies_with_it(void *unused) {
    (void)unused;
    pthread_mutex_lock(&robust);
    pthread_cond_signal(&c);
    return NULL;
}

CASE(robust_mutex_of_a_dead_thread) {
    pthread_mutexattr_t a;
    NEED(pthread_mutexattr_init(&a) == 0);
    NEED(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST) == 0);
    NEED(pthread_mutex_init(&robust, &a) == 0);
    pthread_t t;
    pthread_mutex_lock(&robust);
    NEED(pthread_create(&t, NULL, dies_with_it, NULL) == 0);
    CODE(pthread_cond_wait(&c, &robust));
    CODE(pthread_mutex_consistent(&robust));
    CODE(pthread_mutex_unlock(&robust));
    NEED(pthread_join(t, NULL) == 0);
}

CASE(mutex_in_use_is_not_destroyed) {
    static pthread_mutex_t used = PTHREAD_MUTEX_INITIALIZER;
    CODE(pthread_mutex_lock(&used));
    CODE(pthread_mutex_destroy(&used));
    struct timespec at = in_ms(1);
    CODE(pthread_cond_timedwait(&c, &used, &at));
    CODE(pthread_mutex_destroy(&used));
    CODE(pthread_mutex_unlock(&used));
    CODE(pthread_mutex_destroy(&used));
    CODE(pthread_mutex_lock(&used));
    CODE(pthread_mutex_trylock(&used));
    CODE(pthread_mutex_unlock(&used));
}

struct shared {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int value;
};

CASE(shared) {
    struct shared *s = shared_page();
    pthread_mutexattr_t a;
    pthread_condattr_t b;
    int flag = -1;
    NEED(pthread_mutexattr_init(&a) == 0 && pthread_condattr_init(&b) == 0);
    NEED(pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) == 0);
    CODE(pthread_condattr_setpshared(&b, 7));
    CODE(pthread_condattr_setpshared(&b, PTHREAD_PROCESS_SHARED));
    CODE(pthread_condattr_getpshared(&b, &flag));
    RESULT(flag);
    NEED(pthread_mutex_init(&s->lock, &a) == 0);
    NEED(pthread_cond_init(&s->changed, &b) == 0);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 1; i < 10; i += 2) {
            pthread_mutex_lock(&s->lock);
            while (s->value != i)
                pthread_cond_wait(&s->changed, &s->lock);
            s->value++;
            pthread_cond_broadcast(&s->changed);
            pthread_mutex_unlock(&s->lock);
        }
        _exit(0);
    }
    for (int i = 0; i < 10; i += 2) {
        pthread_mutex_lock(&s->lock);
        while (s->value != i)
            pthread_cond_wait(&s->changed, &s->lock);
        s->value++;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
    }
    NEED(waitpid(child, NULL, 0) == child);
    RESULT(s->value);
    munmap(s, 4096);
}

/* A private one in forked processes: the same address, another object. */
CASE(private_after_fork) {
    pid_t children[2];
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            pthread_t t[2];
            start_waiters(t, 2);
            pthread_mutex_lock(&m);
            turn_of = 2;
            pthread_cond_signal(&c);
            pthread_cond_signal(&c);
            pthread_mutex_unlock(&m);
            for (int k = 0; k < 2; k++)
                NEED(pthread_join(t[k], NULL) == 0);
            _exit(10 + woken);
        }
    }
    for (int i = 0; i < 2; i++) {
        int status = 0;
        NEED(waitpid(children[i], &status, 0) == children[i]);
        RESULT(WEXITSTATUS(status));
    }
}
