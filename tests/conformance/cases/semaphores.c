/* Semaphores, unnamed and named. */
#include "conformance.h"
#include <fcntl.h>
#include <limits.h>
#include <semaphore.h>

static sem_t s;

CASE(unnamed) {
    int value = -1;
    CALL(sem_init(&s, 0, 2));
    CALL(sem_getvalue(&s, &value));
    RESULT(value);
    CALL(sem_wait(&s));
    CALL(sem_trywait(&s));
    CALL(sem_trywait(&s));
    CALL(sem_post(&s));
    CALL(sem_getvalue(&s, &value));
    RESULT(value);
    CALL(sem_destroy(&s));
    CALL(sem_init(&s, 0, (unsigned)INT_MAX + 1));
    CALL(sem_init(&s, 0, INT_MAX));
    CALL(sem_post(&s));
    CALL(sem_getvalue(&s, &value));
    RESULT(value == INT_MAX);
}

CASE(times) {
    CALL(sem_init(&s, 0, 0));
    struct timespec at = in_ms(5);
    CALL(sem_timedwait(&s, &at));
    at = in_ms_on(CLOCK_MONOTONIC, 5);
    CALL(sem_clockwait(&s, CLOCK_MONOTONIC, &at));
    at = in_ms(-5000);
    CALL(sem_timedwait(&s, &at));
    at = (struct timespec){-1, 0};
    CALL(sem_timedwait(&s, &at));
    at.tv_nsec = 1000000000;
    CALL(sem_timedwait(&s, &at));
    at = in_ms(5);
    CALL(sem_clockwait(&s, 77, &at));
    CALL(sem_post(&s));
    CALL(sem_clockwait(&s, CLOCK_PROCESS_CPUTIME_ID, &at));
    at.tv_nsec = -1;
    CALL(sem_timedwait(&s, &at));
    at = in_ms(-5000);
    CALL(sem_timedwait(&s, &at));
}

static void *waits(void *got) {
    *(int *)got = sem_wait(&s);
    return NULL;
}

CASE(wakes_one_for_each_post) {
    pthread_t t[3];
    int got[3] = {7, 7, 7};
    CALL(sem_init(&s, 0, 0));
    for (int i = 0; i < 3; i++) {
        NEED(pthread_create(&t[i], NULL, waits, &got[i]) == 0);
        settle();
    }
    for (int i = 0; i < 3; i++) {
        CALL(sem_post(&s));
        settle();
        RESULT((got[0] == 0) + (got[1] == 0) + (got[2] == 0));
    }
    for (int i = 0; i < 3; i++)
        NEED(pthread_join(t[i], NULL) == 0);
}

CASE(unnamed_shared) {
    sem_t *shared = shared_page();
    CALL(sem_init(&shared[0], 1, 0));
    CALL(sem_init(&shared[1], 1, 0));
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 100; i++) {
            sem_wait(&shared[0]);
            sem_post(&shared[1]);
        }
        _exit(0);
    }
    for (int i = 0; i < 100; i++) {
        sem_post(&shared[0]);
        sem_wait(&shared[1]);
    }
    NEED(waitpid(child, NULL, 0) == child);
    int value = -1;
    CALL(sem_getvalue(&shared[0], &value));
    RESULT(value);
    munmap(shared, 4096);
}

CASE(named) {
    sem_unlink("/conformance");
    RESULT(sem_open("/conformance", 0) == SEM_FAILED);
    call_result("errno", -1);
    sem_t *one = sem_open("/conformance", O_CREAT | O_EXCL, 0600, 1);
    RESULT(one != SEM_FAILED);
    RESULT(sem_open("/conformance", O_CREAT | O_EXCL, 0600, 1) == SEM_FAILED);
    call_result("errno", -1);
    sem_t *two = sem_open("/conformance", O_CREAT, 0600, 9);
    RESULT(one == two);
    int value = -1;
    CALL(sem_getvalue(two, &value));
    RESULT(value);
    CALL(sem_wait(one));
    CALL(sem_trywait(two));
    pid_t child = fork();
    if (child == 0) {
        sem_t *mine = sem_open("/conformance", 0);
        NEED(mine != SEM_FAILED);
        sem_post(mine);
        _exit(0);
    }
    CALL(sem_wait(one));
    NEED(waitpid(child, NULL, 0) == child);
    CALL(sem_close(two));
    CALL(sem_close(one));
    CALL(sem_close(one));
    CALL(sem_unlink("/conformance"));
    CALL(sem_unlink("/conformance"));
    RESULT(sem_open("no/such/place", O_CREAT, 0600, 1) == SEM_FAILED);
    call_result("errno", -1);
    RESULT(sem_open("/too-much", O_CREAT, 0600, (unsigned)INT_MAX + 1) == SEM_FAILED);
    call_result("errno", -1);
}

/* Each process has mapped it for itself, at an address of its own. */
CASE(named_at_other_addresses) {
    pid_t children[2];
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            for (int k = 0; k <= i; k++)
                shared_page();
            sem_t *ping = sem_open("/conformance-ping", O_CREAT, 0600, 0);
            sem_t *pong = sem_open("/conformance-pong", O_CREAT, 0600, 0);
            NEED(ping != SEM_FAILED && pong != SEM_FAILED);
            for (int k = 0; k < 50; k++) {
                sem_post(i == 0 ? ping : pong);
                sem_wait(i == 0 ? pong : ping);
            }
            _exit(0);
        }
    }
    for (int i = 0; i < 2; i++) {
        int status = -1;
        NEED(waitpid(children[i], &status, 0) == children[i]);
        RESULT(status);
    }
    CALL(sem_unlink("/conformance-ping"));
    CALL(sem_unlink("/conformance-pong"));
}

static void handler(int number) { (void)number; }

static pthread_t main_thread;

static void *interrupts(void *unused) {
    (void)unused;
    settle();
    pthread_kill(main_thread, SIGUSR1);
    return NULL;
}

CASE(interrupted_by_a_signal) {
    struct sigaction action = {.sa_handler = handler};
    NEED(sigaction(SIGUSR1, &action, NULL) == 0);
    main_thread = pthread_self();
    pthread_t t;
    CALL(sem_init(&s, 0, 0));
    NEED(pthread_create(&t, NULL, interrupts, NULL) == 0);
    CALL(sem_wait(&s));
    NEED(pthread_join(t, NULL) == 0);
    NEED(pthread_create(&t, NULL, interrupts, NULL) == 0);
    struct timespec at = in_ms(5000);
    CALL(sem_timedwait(&s, &at));
    NEED(pthread_join(t, NULL) == 0);
}
