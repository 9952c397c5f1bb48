/* Barriers and spin locks. */
#include "conformance.h"

static pthread_barrier_t b;
static int arrived, serial;

static void *passes(void *rounds) {
    for (int i = 0; i < *(int *)rounds; i++) {
        __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
        int got = pthread_barrier_wait(&b);
        NEED(got == 0 || got == PTHREAD_BARRIER_SERIAL_THREAD);
        NEED(__atomic_load_n(&arrived, __ATOMIC_SEQ_CST) >= 4 * (i + 1));
        if (got != 0)
            __atomic_add_fetch(&serial, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

CASE(rounds) {
    pthread_t t[4];
    int rounds = 50;
    NEED(pthread_barrier_init(&b, NULL, 4) == 0);
    for (int i = 0; i < 4; i++)
        NEED(pthread_create(&t[i], NULL, passes, &rounds) == 0);
    for (int i = 0; i < 4; i++)
        NEED(pthread_join(t[i], NULL) == 0);
    RESULT(arrived);
    RESULT(serial);
    CODE(pthread_barrier_destroy(&b));
}

CASE(of_one) {
    CODE(pthread_barrier_init(&b, NULL, 1));
    CODE(pthread_barrier_wait(&b));
    CODE(pthread_barrier_wait(&b));
    CODE(pthread_barrier_destroy(&b));
}

CASE(of_none) { CODE(pthread_barrier_init(&b, NULL, 0)); }

CASE(attributes) {
    pthread_barrierattr_t a;
    int shared = -1;
    CODE(pthread_barrierattr_init(&a));
    CODE(pthread_barrierattr_getpshared(&a, &shared));
    RESULT(shared);
    CODE(pthread_barrierattr_setpshared(&a, 5));
    CODE(pthread_barrierattr_setpshared(&a, PTHREAD_PROCESS_SHARED));
    CODE(pthread_barrierattr_getpshared(&a, &shared));
    RESULT(shared);
    CODE(pthread_barrierattr_destroy(&a));
}

CASE(shared) {
    struct {
        pthread_barrier_t barrier;
        int value;
    } *s = shared_page();
    pthread_barrierattr_t a;
    NEED(pthread_barrierattr_init(&a) == 0);
    NEED(pthread_barrierattr_setpshared(&a, PTHREAD_PROCESS_SHARED) == 0);
    CODE(pthread_barrier_init(&s->barrier, &a, 2));
    pid_t child = fork();
    if (child == 0) {
        s->value = 5;
        pthread_barrier_wait(&s->barrier);
        _exit(0);
    }
    pthread_barrier_wait(&s->barrier);
    RESULT(s->value);
    NEED(waitpid(child, NULL, 0) == child);
    munmap(s, 4096);
}

static pthread_spinlock_t spin;
static long counter;

static void *counts(void *unused) {
    (void)unused;
    for (int i = 0; i < 1000; i++) {
        pthread_spin_lock(&spin);
        counter++;
        pthread_spin_unlock(&spin);
    }
    return NULL;
}

static void *tries(void *unused) {
    (void)unused;
    code("another thread's trylock", pthread_spin_trylock(&spin));
    return NULL;
}

CASE(spin_locks) {
    pthread_t t[3];
    CODE(pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE));
    for (int i = 0; i < 3; i++)
        NEED(pthread_create(&t[i], NULL, counts, NULL) == 0);
    for (int i = 0; i < 3; i++)
        NEED(pthread_join(t[i], NULL) == 0);
    RESULT(counter);
    CODE(pthread_spin_lock(&spin));
    NEED(pthread_create(&t[0], NULL, tries, NULL) == 0);
    NEED(pthread_join(t[0], NULL) == 0);
    CODE(pthread_spin_trylock(&spin));
    CODE(pthread_spin_unlock(&spin));
    CODE(pthread_spin_trylock(&spin));
    CODE(pthread_spin_unlock(&spin));
    CODE(pthread_spin_destroy(&spin));
}
