/* Clean-up handlers as C without exceptions makes them. */
#include "conformance.h"

static void cleans(void *what) { say("cleanup %s", (const char *)what); }

static void *popped(void *unused) {
    pthread_cleanup_push(cleans, "1");
    pthread_cleanup_push(cleans, "2");
    pthread_cleanup_pop(1);
    pthread_cleanup_pop(0);
    return unused;
}

static void *exits(void *unused) {
    (void)unused;
    pthread_cleanup_push(cleans, "1");
    pthread_cleanup_push(cleans, "2");
    pthread_exit((void *)4);
    pthread_cleanup_pop(0);
    pthread_cleanup_pop(0);
}

static void *waits(void *unused) {
    pthread_cleanup_push(cleans, "1");
    pthread_cleanup_push_defer_np(cleans, "2");
    sleep(1000);
    pthread_cleanup_pop_restore_np(0);
    pthread_cleanup_pop(0);
    return unused;
}

static long ended(void *(*f)(void *), bool cancel) {
    pthread_t t;
    void *value = NULL;
    NEED(pthread_create(&t, NULL, f, NULL) == 0);
    if (cancel) {
        settle();
        NEED(pthread_cancel(t) == 0);
    }
    NEED(pthread_join(t, &value) == 0);
    return (long)value;
}

CASE(popped) { RESULT(ended(popped, false)); }
CASE(exited) { RESULT(ended(exits, false)); }
CASE(cancelled) { RESULT(ended(waits, true)); }
