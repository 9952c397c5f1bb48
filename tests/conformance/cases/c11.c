/* C11 threads. */
#include "conformance.h"
#include <threads.h>

static mtx_t m;
static cnd_t c;
static int ready;

static int returns(void *argument) { return (int)(intptr_t)argument; }
static int exits(void *argument) { thrd_exit((int)(intptr_t)argument); }

CASE(threads) {
    thrd_t t;
    int ended = -1;
    RESULT(thrd_create(&t, returns, (void *)42));
    RESULT(thrd_join(t, &ended));
    RESULT(ended);
    RESULT(thrd_create(&t, returns, (void *)-7));
    RESULT(thrd_join(t, &ended));
    RESULT(ended);
    RESULT(thrd_create(&t, exits, (void *)5));
    RESULT(thrd_join(t, &ended));
    RESULT(ended);
    RESULT(thrd_create(&t, exits, (void *)5));
    RESULT(thrd_join(t, NULL));
    RESULT(thrd_create(&t, returns, NULL));
    RESULT(thrd_detach(t));
    RESULT(thrd_equal(thrd_current(), thrd_current()));
    thrd_yield();
    settle();
}

static int tries(void *unused) {
    (void)unused;
    int got = mtx_trylock(&m);
    if (got == thrd_success)
        mtx_unlock(&m);
    return got;
}

static int elsewhere(thrd_start_t f) {
    thrd_t t;
    int ended = -1;
    NEED(thrd_create(&t, f, NULL) == thrd_success);
    NEED(thrd_join(t, &ended) == thrd_success);
    return ended;
}

static int times_out(void *unused) {
    (void)unused;
    struct timespec at = in_ms(5);
    return mtx_timedlock(&m, &at);
}

static void mutex(int type) {
    RESULT(mtx_init(&m, type));
    RESULT(mtx_lock(&m));
    RESULT(elsewhere(tries));
    RESULT(elsewhere(times_out));
    RESULT(mtx_trylock(&m));
    RESULT(mtx_unlock(&m));
    RESULT(elsewhere(tries));
    mtx_destroy(&m);
}

CASE(plain) { mutex(mtx_plain); }
CASE(timed) { mutex(mtx_timed); }
CASE(recursive) { mutex(mtx_plain | mtx_recursive); }
CASE(timed_recursive) { mutex(mtx_timed | mtx_recursive); }
CASE(bad_type) { RESULT(mtx_init(&m, 17)); }

static int waits(void *unused) {
    (void)unused;
    mtx_lock(&m);
    while (ready == 0)
        cnd_wait(&c, &m);
    ready--;
    mtx_unlock(&m);
    return 0;
}

CASE(conditions) {
    thrd_t t[3];
    RESULT(mtx_init(&m, mtx_plain));
    RESULT(cnd_init(&c));
    for (int i = 0; i < 3; i++)
        NEED(thrd_create(&t[i], waits, NULL) == thrd_success);
    settle();
    mtx_lock(&m);
    ready = 1;
    RESULT(cnd_signal(&c));
    mtx_unlock(&m);
    settle();
    mtx_lock(&m);
    ready = 2;
    RESULT(cnd_broadcast(&c));
    struct timespec at = in_ms(40);
    int got;
    while ((got = cnd_timedwait(&c, &m, &at)) == thrd_success)
        ;
    RESULT(got);
    mtx_unlock(&m);
    for (int i = 0; i < 3; i++)
        NEED(thrd_join(t[i], NULL) == thrd_success);
    RESULT(ready);
    cnd_destroy(&c);
    mtx_destroy(&m);
}

static once_flag flag = ONCE_FLAG_INIT;
static int runs;
static void counts(void) { runs++; }

CASE(once) {
    call_once(&flag, counts);
    call_once(&flag, counts);
    RESULT(runs);
}

static void destructor(void *value) { say("destructor of %ld", (long)value); }

static tss_t key;

static int keeps(void *unused) {
    (void)unused;
    NEED(tss_get(key) == NULL);
    RESULT(tss_set(key, (void *)9));
    RESULT((long)tss_get(key));
    return 0;
}

CASE(storage) {
    RESULT(tss_create(&key, destructor));
    RESULT(tss_set(key, (void *)8));
    RESULT(elsewhere(keeps));
    RESULT((long)tss_get(key));
    tss_delete(key);
}

CASE(sleeping) {
    struct timespec length = {0, 1000000}, rest = {7, 7};
    RESULT(thrd_sleep(&length, &rest));
    length.tv_nsec = 1000000000;
    RESULT(thrd_sleep(&length, &rest));
}
