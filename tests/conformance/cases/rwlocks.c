/* Reader-writer locks. */
#include "conformance.h"

static pthread_rwlock_t l = PTHREAD_RWLOCK_INITIALIZER;

static void in_thread(void *(*f)(void *), void *argument) {
    pthread_t t;
    NEED(pthread_create(&t, NULL, f, argument) == 0);
    NEED(pthread_join(t, NULL) == 0);
}

static void *other_tries(void *unused) {
    (void)unused;
    int got = pthread_rwlock_tryrdlock(&l);
    code("another thread's tryrdlock", got);
    if (got == 0)
        pthread_rwlock_unlock(&l);
    got = pthread_rwlock_trywrlock(&l);
    code("another thread's trywrlock", got);
    if (got == 0)
        pthread_rwlock_unlock(&l);
    return NULL;
}

static void *other_times_out(void *unused) {
    (void)unused;
    struct timespec at = in_ms(5);
    CODE(pthread_rwlock_timedwrlock(&l, &at));
    at = in_ms_on(CLOCK_MONOTONIC, 5);
    CODE(pthread_rwlock_clockwrlock(&l, CLOCK_MONOTONIC, &at));
    at = in_ms(-5000);
    CODE(pthread_rwlock_timedwrlock(&l, &at));
    at = (struct timespec){-1, 5};
    CODE(pthread_rwlock_timedwrlock(&l, &at));
    return NULL;
}

CASE(readers) {
    CODE(pthread_rwlock_rdlock(&l));
    CODE(pthread_rwlock_rdlock(&l));
    CODE(pthread_rwlock_trywrlock(&l));
    in_thread(other_tries, NULL);
    in_thread(other_times_out, NULL);
    CODE(pthread_rwlock_unlock(&l));
    in_thread(other_tries, NULL);
    CODE(pthread_rwlock_unlock(&l));
    in_thread(other_tries, NULL);
}

CASE(writer) {
    CODE(pthread_rwlock_wrlock(&l));
    CODE(pthread_rwlock_wrlock(&l));
    CODE(pthread_rwlock_rdlock(&l));
    CODE(pthread_rwlock_tryrdlock(&l));
    CODE(pthread_rwlock_trywrlock(&l));
    struct timespec at = in_ms(5);
    CODE(pthread_rwlock_timedrdlock(&l, &at));
    CODE(pthread_rwlock_timedwrlock(&l, &at));
    in_thread(other_tries, NULL);
    in_thread(other_times_out, NULL);
    CODE(pthread_rwlock_unlock(&l));
    in_thread(other_tries, NULL);
}

CASE(bad_times) {
    struct timespec at = in_ms(5);
    CODE(pthread_rwlock_clockrdlock(&l, 77, &at));
    CODE(pthread_rwlock_clockwrlock(&l, CLOCK_PROCESS_CPUTIME_ID, &at));
    at.tv_nsec = 1000000000;
    CODE(pthread_rwlock_timedrdlock(&l, &at));
    CODE(pthread_rwlock_timedwrlock(&l, &at));
    at.tv_nsec = -1;
    CODE(pthread_rwlock_timedrdlock(&l, &at));
    at = in_ms(5);
    CODE(pthread_rwlock_timedrdlock(&l, &at));
    CODE(pthread_rwlock_clockrdlock(&l, CLOCK_REALTIME, &at));
    CODE(pthread_rwlock_unlock(&l));
    CODE(pthread_rwlock_unlock(&l));
}

CASE(attributes) {
    pthread_rwlockattr_t a;
    pthread_rwlock_t own;
    int value = -1;
    CODE(pthread_rwlockattr_init(&a));
    CODE(pthread_rwlockattr_getkind_np(&a, &value));
    RESULT(value);
    CODE(pthread_rwlockattr_setkind_np(&a, 77));
    CODE(pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
    CODE(pthread_rwlockattr_setpshared(&a, 77));
    CODE(pthread_rwlockattr_setpshared(&a, PTHREAD_PROCESS_SHARED));
    CODE(pthread_rwlockattr_getpshared(&a, &value));
    RESULT(value);
    CODE(pthread_rwlock_init(&own, &a));
    CODE(pthread_rwlock_rdlock(&own));
    CODE(pthread_rwlock_unlock(&own));
    CODE(pthread_rwlock_destroy(&own));
    CODE(pthread_rwlockattr_destroy(&a));
}

static pthread_rwlock_t prefers_writers = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static int order[4], arrivals;

static void *writes(void *lock) {
    struct timespec at = in_ms(100);
    int got = lock == &prefers_writers ? pthread_rwlock_wrlock(lock)
                                       : pthread_rwlock_timedwrlock(lock, &at);
    if (got == 0) {
        order[arrivals++] = 2;
        pthread_rwlock_unlock(lock);
    }
    return NULL;
}

static void *reads(void *lock) {
    pthread_rwlock_rdlock(lock);
    order[arrivals++] = 1;
    pthread_rwlock_unlock(lock);
    return NULL;
}

CASE(writers_first) {
    pthread_t writer, reader;
    arrivals = 0;
    pthread_rwlock_rdlock(&prefers_writers);
    NEED(pthread_create(&writer, NULL, writes, &prefers_writers) == 0);
    settle();
    CODE(pthread_rwlock_tryrdlock(&prefers_writers));
    NEED(pthread_create(&reader, NULL, reads, &prefers_writers) == 0);
    settle();
    RESULT(arrivals);
    pthread_rwlock_unlock(&prefers_writers);
    NEED(pthread_join(writer, NULL) == 0 && pthread_join(reader, NULL) == 0);
    say("order %d %d", order[0], order[1]);
}

CASE(readers_first) {
    pthread_t writer, reader;
    arrivals = 0;
    pthread_rwlock_rdlock(&l);
    NEED(pthread_create(&writer, NULL, writes, &l) == 0);
    settle();
    NEED(pthread_create(&reader, NULL, reads, &l) == 0);
    settle();
    RESULT(arrivals);
    pthread_rwlock_unlock(&l);
    NEED(pthread_join(writer, NULL) == 0 && pthread_join(reader, NULL) == 0);
    say("order %d %d", order[0], order[1]);
}

static void *gives_up(void *lock) {
    struct timespec at = in_ms(60);
    code("the writer", pthread_rwlock_timedwrlock(lock, &at));
    return NULL;
}

CASE(a_writer_that_gives_up_lets_readers_in) {
    pthread_t writer, reader;
    arrivals = 0;
    pthread_rwlock_rdlock(&prefers_writers);
    NEED(pthread_create(&writer, NULL, gives_up, &prefers_writers) == 0);
    usleep(20000);
    NEED(pthread_create(&reader, NULL, reads, &prefers_writers) == 0);
    NEED(pthread_join(writer, NULL) == 0 && pthread_join(reader, NULL) == 0);
    RESULT(arrivals);
    pthread_rwlock_unlock(&prefers_writers);
}

static long counter;

static void *counts(void *unused) {
    (void)unused;
    for (int i = 0; i < 500; i++) {
        pthread_rwlock_wrlock(&l);
        counter++;
        pthread_rwlock_unlock(&l);
        pthread_rwlock_rdlock(&l);
        NEED(counter > 0);
        pthread_rwlock_unlock(&l);
    }
    return NULL;
}

CASE(many) {
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        NEED(pthread_create(&t[i], NULL, counts, NULL) == 0);
    for (int i = 0; i < 4; i++)
        NEED(pthread_join(t[i], NULL) == 0);
    RESULT(counter);
}

CASE(shared) {
    struct {
        pthread_rwlock_t lock;
        int value;
    } *s = shared_page();
    pthread_rwlockattr_t a;
    NEED(pthread_rwlockattr_init(&a) == 0);
    NEED(pthread_rwlockattr_setpshared(&a, PTHREAD_PROCESS_SHARED) == 0);
    NEED(pthread_rwlock_init(&s->lock, &a) == 0);
    pthread_rwlock_wrlock(&s->lock);
    pid_t child = fork();
    if (child == 0) {
        code("the child's tryrdlock", pthread_rwlock_tryrdlock(&s->lock));
        pthread_rwlock_rdlock(&s->lock);
        result("the child sees", s->value);
        _exit(0);
    }
    settle();
    s->value = 3;
    pthread_rwlock_unlock(&s->lock);
    NEED(waitpid(child, NULL, 0) == child);
    munmap(s, 4096);
}
