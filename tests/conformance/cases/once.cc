// Once: pthread_once, call_once and C++ statics (__cxa_guard_acquire(), __cxa_guard_release() and,
// where the initialiser throws, __cxa_guard_abort()), also when it does not end well.
#include "conformance.h"
#include <mutex>
#include <stdexcept>
#include <thread>

static pthread_once_t control = PTHREAD_ONCE_INIT;
static int runs;

static void counts() { runs++; }

CASE(plain) {
    CODE(pthread_once(&control, counts));
    CODE(pthread_once(&control, counts));
    RESULT(runs);
}

static void counts_slowly() {
    usleep(20000);
    runs++;
}

static void *calls(void *) {
    pthread_once(&control, counts_slowly);
    return NULL;
}

CASE(many_threads) {
    control = PTHREAD_ONCE_INIT;
    runs = 0;
    pthread_t t[4];
    for (auto &one : t)
        NEED(pthread_create(&one, NULL, calls, NULL) == 0);
    for (auto &one : t)
        NEED(pthread_join(one, NULL) == 0);
    RESULT(runs);
}

static void throws_twice() {
    if (++runs < 3)
        throw std::runtime_error("not yet");
}

CASE(exception) {
    control = PTHREAD_ONCE_INIT;
    runs = 0;
    for (int i = 0; i < 4; i++) {
        try {
            CODE(pthread_once(&control, throws_twice));
        } catch (std::runtime_error &error) {
            say("caught %s", error.what());
        }
    }
    RESULT(runs);
}

CASE(exception_in_std_call_once) {
    std::once_flag flag;
    runs = 0;
    for (int i = 0; i < 4; i++) {
        try {
            std::call_once(flag, throws_twice);
            say("done");
        } catch (std::runtime_error &error) {
            say("caught %s", error.what());
        }
    }
    RESULT(runs);
}

static pthread_once_t outer = PTHREAD_ONCE_INIT, inner = PTHREAD_ONCE_INIT;
static int depth;

static void inner_routine() {
    if (++depth < 2)
        throw 5;
}
static void outer_routine() { pthread_once(&inner, inner_routine); }

CASE(nested_exception) {
    try {
        pthread_once(&outer, outer_routine);
        say("no exception");
    } catch (int value) {
        result("caught", value);
    }
    CODE(pthread_once(&inner, inner_routine));
    CODE(pthread_once(&outer, outer_routine));
    RESULT(depth);
}

static void exits_first() {
    if (++runs == 1)
        pthread_exit(NULL);
}

static void *calls_exits(void *) {
    pthread_once(&control, exits_first);
    return (void *)1;
}

CASE(thread_exit) {
    control = PTHREAD_ONCE_INIT;
    runs = 0;
    pthread_t t;
    for (int i = 0; i < 2; i++) {
        void *ended = NULL;
        NEED(pthread_create(&t, NULL, calls_exits, NULL) == 0);
        NEED(pthread_join(t, &ended) == 0);
        RESULT((long)ended);
    }
    RESULT(runs);
}

static void sleeps_first() {
    if (++runs == 1)
        sleep(1000);
}

static void *calls_sleeps(void *) {
    pthread_once(&control, sleeps_first);
    return NULL;
}

CASE(cancellation) {
    control = PTHREAD_ONCE_INIT;
    runs = 0;
    pthread_t t;
    void *ended = NULL;
    NEED(pthread_create(&t, NULL, calls_sleeps, NULL) == 0);
    settle();
    CODE(pthread_cancel(t));
    NEED(pthread_join(t, &ended) == 0);
    RESULT(ended == PTHREAD_CANCELED);
    CODE(pthread_once(&control, sleeps_first));
    RESULT(runs);
}

struct Slow {
    int value;
    Slow() {
        usleep(20000);
        if (++runs < 2)
            throw 1;
        value = runs;
    }
};

static int slow() {
    static Slow one;
    return one.value;
}

CASE(statics) {
    runs = 0;
    for (int i = 0; i < 3; i++) {
        try {
            result("value", slow());
        } catch (int) {
            say("caught");
        }
    }
    RESULT(runs);
}

struct Says {
    const char *what;
    ~Says() { say("destructor of %s", what); }
};

CASE(standard_threads) {
    std::mutex lock;
    std::thread one([&] {
        Says says{"a local"};
        static thread_local Says own{"a thread's own"};
        own.what = "a thread's own object";
        std::lock_guard<std::mutex> guard(lock);
    });
    one.join();
    say("joined");
}

static void in_forked_child() {
    if (fork() == 0) {
        runs += 10;
    }
}

CASE(fork_in_the_initialiser) {
    control = PTHREAD_ONCE_INIT;
    runs = 0;
    pid_t me = getpid();
    pthread_once(&control, in_forked_child);
    pthread_once(&control, in_forked_child);
    if (getpid() != me) {
        result("in the child", runs);
        _exit(0);
    }
    NEED(wait(NULL) > 0);
    result("in the parent", runs);
}
