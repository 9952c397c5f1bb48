/* Threads: making, joining, detaching, attributes, keys, fork handlers. */
#include "conformance.h"
#include <sched.h>
#include <sys/syscall.h>

static void *returns(void *argument) { return argument; }
static void *exits(void *argument) { pthread_exit(argument); }

static void *sleeps(void *ms) {
    usleep((intptr_t)ms * 1000);
    return ms;
}

CASE(results) {
    pthread_t t;
    void *ended = NULL;
    CODE(pthread_create(&t, NULL, returns, (void *)42));
    CODE(pthread_join(t, &ended));
    RESULT((long)ended);
    CODE(pthread_create(&t, NULL, exits, (void *)43));
    CODE(pthread_join(t, &ended));
    RESULT((long)ended);
    CODE(pthread_create(&t, NULL, exits, (void *)43));
    CODE(pthread_join(t, NULL));
    RESULT(pthread_equal(pthread_self(), pthread_self()) != 0);
}

CASE(join_errors) {
    pthread_t t;
    CODE(pthread_join(pthread_self(), NULL));
    CODE(pthread_tryjoin_np(pthread_self(), NULL));
    NEED(pthread_create(&t, NULL, sleeps, (void *)300) == 0);
    CODE(pthread_tryjoin_np(t, NULL));
    struct timespec at = in_ms(3);
    CODE(pthread_timedjoin_np(t, NULL, &at));
    at = in_ms_on(CLOCK_MONOTONIC, 3);
    CODE(pthread_clockjoin_np(t, NULL, CLOCK_MONOTONIC, &at));
    CODE(pthread_clockjoin_np(t, NULL, 77, &at));
    at = in_ms(5000);
    CODE(pthread_timedjoin_np(t, NULL, &at));
    NEED(pthread_create(&t, NULL, returns, NULL) == 0);
    settle();
    CODE(pthread_tryjoin_np(t, NULL));
    NEED(pthread_create(&t, NULL, sleeps, (void *)300) == 0);
    CODE(pthread_detach(t));
    CODE(pthread_detach(t));
    CODE(pthread_join(t, NULL));
    CODE(pthread_tryjoin_np(t, NULL));
    usleep(400000);
}

CASE(ended_but_not_joined) {
    pthread_t t;
    NEED(pthread_create(&t, NULL, returns, (void *)5) == 0);
    settle();
    CODE(pthread_kill(t, 0));
    CODE(pthread_kill(t, SIGUSR1));
    CODE(pthread_cancel(t));
    void *ended = NULL;
    CODE(pthread_join(t, &ended));
    RESULT((long)ended);
}

CASE(kill_errors) {
    CODE(pthread_kill(pthread_self(), 65));
    CODE(pthread_kill(pthread_self(), -1));
    CODE(pthread_kill(pthread_self(), 0));
}

CASE(attributes) {
    pthread_attr_t a;
    size_t size = 0;
    int value = -1;
    CODE(pthread_attr_init(&a));
    CODE(pthread_attr_getdetachstate(&a, &value));
    RESULT(value);
    CODE(pthread_attr_setdetachstate(&a, 77));
    CODE(pthread_attr_setstacksize(&a, 100));
    CODE(pthread_attr_setstacksize(&a, 1 << 20));
    CODE(pthread_attr_getstacksize(&a, &size));
    RESULT(size);
    CODE(pthread_attr_setguardsize(&a, 8192));
    CODE(pthread_attr_getguardsize(&a, &size));
    RESULT(size);
    CODE(pthread_attr_setscope(&a, PTHREAD_SCOPE_PROCESS));
    CODE(pthread_attr_setscope(&a, PTHREAD_SCOPE_SYSTEM));
    CODE(pthread_attr_setinheritsched(&a, 77));
    CODE(pthread_attr_setschedpolicy(&a, 77));
    CODE(pthread_attr_destroy(&a));
}

static void *looks_at_itself(void *unused) {
    (void)unused;
    pthread_attr_t a;
    void *stack = NULL;
    size_t size = 0;
    int value = -1;
    char here;
    CODE(pthread_getattr_np(pthread_self(), &a));
    CODE(pthread_attr_getdetachstate(&a, &value));
    RESULT(value);
    CODE(pthread_attr_getstack(&a, &stack, &size));
    RESULT(size >= 1 << 20);
    RESULT(&here > (char *)stack && &here < (char *)stack + size);
    CODE(pthread_attr_getguardsize(&a, &size));
    RESULT(size);
    CODE(pthread_attr_destroy(&a));
    return NULL;
}

CASE(own_attributes) {
    pthread_attr_t a;
    pthread_t t;
    NEED(pthread_attr_init(&a) == 0);
    NEED(pthread_attr_setstacksize(&a, 1 << 20) == 0);
    NEED(pthread_attr_setguardsize(&a, 8192) == 0);
    NEED(pthread_create(&t, &a, looks_at_itself, NULL) == 0);
    NEED(pthread_join(t, NULL) == 0);
    NEED(pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED) == 0);
    NEED(pthread_create(&t, &a, looks_at_itself, NULL) == 0);
    settle();
    pthread_attr_t of_main;
    void *stack = NULL;
    size_t size = 0;
    CODE(pthread_getattr_np(pthread_self(), &of_main));
    CODE(pthread_attr_getstack(&of_main, &stack, &size));
    RESULT((char *)&a > (char *)stack && (char *)&a < (char *)stack + size);
}

static void *is_on(void *stack) {
    char here;
    return (void *)(intptr_t)(&here > (char *)stack && &here < (char *)stack + (1 << 18));
}

CASE(a_stack_of_its_own) {
    pthread_attr_t a;
    pthread_t t;
    void *stack = mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(stack != MAP_FAILED && pthread_attr_init(&a) == 0);
    CODE(pthread_attr_setstack(&a, stack, 100));
    for (int i = 0; i < 3; i++) {
        void *ended = NULL;
        CODE(pthread_attr_setstack(&a, stack, 1 << 18));
        CODE(pthread_create(&t, &a, is_on, stack));
        CODE(pthread_join(t, &ended));
        RESULT((long)ended);
        memset(stack, 0xff, 1 << 18);
    }
    munmap(stack, 1 << 18);
}

static void *shows_policy(void *unused) {
    (void)unused;
    struct sched_param p = {77};
    int policy = -1;
    CODE(pthread_getschedparam(pthread_self(), &policy, &p));
    say("policy %d priority %d", policy, p.sched_priority);
    return NULL;
}

CASE(scheduling) {
    struct sched_param p = {0};
    shows_policy(NULL);
    CODE(pthread_setschedparam(pthread_self(), SCHED_OTHER, &p));
    CODE(pthread_setschedparam(pthread_self(), 77, &p));
    CODE(pthread_setschedprio(pthread_self(), 0));
    p.sched_priority = 200;
    CODE(pthread_setschedparam(pthread_self(), SCHED_FIFO, &p));
    CODE(pthread_setschedparam(pthread_self(), SCHED_OTHER, &p));
    CALL(sched_getscheduler(0));
    CALL(sched_getscheduler(-1));
    CALL(sched_getscheduler(99999999));
    CALL(sched_getparam(0, &p));
    RESULT(p.sched_priority);
    CALL(sched_setparam(0, &p));
    p.sched_priority = 3;
    CALL(sched_setparam(0, &p));
    CALL(sched_setscheduler(0, SCHED_OTHER, &p));
    p.sched_priority = 0;
    CALL(sched_setscheduler(0, SCHED_BATCH, &p));
    CALL(sched_getscheduler(0));
    CALL(sched_setscheduler(0, SCHED_OTHER, &p));
    pthread_t t;
    NEED(pthread_create(&t, NULL, shows_policy, NULL) == 0);
    NEED(pthread_join(t, NULL) == 0);
    CODE(pthread_setconcurrency(-1));
    CODE(pthread_setconcurrency(4));
    RESULT(pthread_getconcurrency());
    CODE(pthread_setconcurrency(0));
}

CASE(names_and_clocks) {
    char name[20] = "";
    clockid_t id;
    struct timespec at;
    CODE(pthread_setname_np(pthread_self(), "a name of its own"));
    CODE(pthread_setname_np(pthread_self(), "worker"));
    CODE(pthread_getname_np(pthread_self(), name, 3));
    CODE(pthread_getname_np(pthread_self(), name, sizeof name));
    say("name %s", name);
    pthread_t t;
    NEED(pthread_create(&t, NULL, sleeps, (void *)300) == 0);
    CODE(pthread_setname_np(t, "other"));
    CODE(pthread_getname_np(t, name, sizeof name));
    say("name %s", name);
    CODE(pthread_getcpuclockid(t, &id));
    CALL(clock_gettime(id, &at));
    CODE(pthread_getcpuclockid(pthread_self(), &id));
    CALL(clock_gettime(id, &at));
    NEED(pthread_join(t, NULL) == 0);
}

static pthread_key_t keys[3];
static int rounds;

static void destructor(void *value) {
    say("destructor of %ld", (long)value);
    if (++rounds < 4)
        pthread_setspecific(keys[1], (void *)((long)value + 100));
}

static void *keeps(void *unused) {
    (void)unused;
    RESULT(pthread_getspecific(keys[0]) == NULL);
    CODE(pthread_setspecific(keys[0], (void *)10));
    CODE(pthread_setspecific(keys[1], (void *)11));
    CODE(pthread_setspecific(keys[2], (void *)12));
    RESULT((long)pthread_getspecific(keys[1]));
    return NULL;
}

CASE(keys) {
    CODE(pthread_key_create(&keys[0], NULL));
    CODE(pthread_key_create(&keys[1], destructor));
    CODE(pthread_key_create(&keys[2], destructor));
    pthread_t t;
    NEED(pthread_create(&t, NULL, keeps, NULL) == 0);
    NEED(pthread_join(t, NULL) == 0);
    for (int i = 0; i < 3; i++)
        CODE(pthread_key_delete(keys[i]));
    CODE(pthread_key_delete(keys[0]));
    CODE(pthread_key_delete(77777));
    CODE(pthread_setspecific(keys[0], (void *)1));
    RESULT(pthread_getspecific(keys[0]) == NULL);
}

static pthread_key_t blocking;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;

static void waits_in_the_end(void *unused) {
    (void)unused;
    pthread_mutex_lock(&m);
    usleep(1000);
    pthread_mutex_unlock(&m);
    say("destructor done");
}

static void *sets(void *unused) {
    pthread_setspecific(blocking, &m);
    return unused;
}

CASE(destructors_that_wait) {
    pthread_t t[3];
    NEED(pthread_key_create(&blocking, waits_in_the_end) == 0);
    for (int i = 0; i < 3; i++)
        NEED(pthread_create(&t[i], NULL, sets, NULL) == 0);
    for (int i = 0; i < 3; i++)
        NEED(pthread_join(t[i], NULL) == 0);
    CODE(pthread_key_delete(blocking));
}

static void prepare_1(void) { say("prepare 1"); }
static void prepare_2(void) { say("prepare 2"); }
static volatile int *child_said;
static void parent_1(void) {
    while (*child_said == 0)
        usleep(1000);
    say("parent 1");
}
static void parent_2(void) { say("parent 2"); }
static void child_1(void) { say("child 1"); }
static void child_2(void) {
    say("child 2");
    *child_said = 1;
}

static void forks_with_handlers(void) {
    child_said = shared_page();
    NEED(pthread_atfork(prepare_1, parent_1, child_1) == 0);
    NEED(pthread_atfork(prepare_2, parent_2, child_2) == 0);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    NEED(waitpid(child, NULL, 0) == child);
}

CASE(atfork) { in_child(forks_with_handlers); }

static void *forks(void *unused) {
    pid_t child = fork();
    if (child == 0) {
        pthread_t t;
        void *ended = NULL;
        NEED(pthread_create(&t, NULL, returns, (void *)4) == 0);
        NEED(pthread_join(t, &ended) == 0);
        _exit((int)(intptr_t)ended);
    }
    int status = 0;
    NEED(waitpid(child, &status, 0) == child);
    RESULT(WEXITSTATUS(status));
    return unused;
}

CASE(fork_in_a_thread) {
    pthread_t t;
    NEED(pthread_create(&t, NULL, forks, NULL) == 0);
    NEED(pthread_join(t, NULL) == 0);
}

static void at_the_end(void) { say("exit handler"); }

static void *goes_on(void *unused) {
    settle();
    say("the other goes on");
    return unused;
}

static void main_leaves_first(void) {
    pthread_t t;
    atexit(at_the_end);
    NEED(pthread_create(&t, NULL, goes_on, NULL) == 0);
    pthread_exit((void *)9);
}

CASE(main_leaves_first) { in_child(main_leaves_first); }

static void main_leaves_alone(void) {
    atexit(at_the_end);
    pthread_exit((void *)9);
}

CASE(main_leaves_alone) { in_child(main_leaves_alone); }

static pthread_t of_main;

static void *joins_main(void *unused) {
    void *ended = NULL;
    code("join of the first thread", pthread_join(of_main, &ended));
    RESULT((long)ended);
    return unused;
}

static void main_is_joined(void) {
    pthread_t t;
    of_main = pthread_self();
    NEED(pthread_create(&t, NULL, joins_main, NULL) == 0);
    pthread_exit((void *)9);
}

CASE(main_is_joined) { in_child(main_is_joined); }

static void *exits_for_all(void *unused) {
    (void)unused;
    exit(3);
}

static void another_exits(void) {
    pthread_t t;
    atexit(at_the_end);
    NEED(pthread_create(&t, NULL, exits_for_all, NULL) == 0);
    pause();
}

CASE(another_exits) { in_child(another_exits); }

static int ticks;

static void *ticks_and_yields(void *unused) {
    for (int i = 0; i < 100; i++) {
        ticks++;
        sched_yield();
    }
    return unused;
}

CASE(many) {
    for (int round = 0; round < 5; round++) {
        pthread_t t[20];
        for (int i = 0; i < 20; i++)
            NEED(pthread_create(&t[i], NULL, ticks_and_yields, NULL) == 0);
        for (int i = 0; i < 20; i++)
            NEED(pthread_join(t[i], NULL) == 0);
    }
    RESULT(ticks > 0);
}

CASE(many_detached) {
    pthread_attr_t a;
    NEED(pthread_attr_init(&a) == 0);
    NEED(pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED) == 0);
    for (int i = 0; i < 300; i++) {
        pthread_t t;
        NEED(pthread_create(&t, &a, returns, NULL) == 0);
        if (i % 20 == 19)
            usleep(1000);
    }
    settle();
}
