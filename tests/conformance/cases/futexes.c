/* futex(2) by number. */
#include "conformance.h"
#include <linux/futex.h>
#include <sys/syscall.h>

static uint32_t word, other;

static long futex(uint32_t *address, int op, uint32_t value, const void *time, void *second,
                  uint32_t third) {
    return syscall(SYS_futex, address, op, value, time, second, third);
}

#define AS_NUMBER(n) ((void *)(intptr_t)(n))

CASE(errors) {
    struct timespec at = {0, 1000000};
    word = 5;
    CALL(futex(&word, FUTEX_WAIT_PRIVATE, 4, NULL, NULL, 0));
    CALL(futex(&word, FUTEX_WAIT_PRIVATE, 5, &at, NULL, 0));
    CALL(futex(&word, FUTEX_WAIT, 5, &at, NULL, 0));
    CALL(futex((uint32_t *)((char *)&word + 1), FUTEX_WAIT_PRIVATE, 5, &at, NULL, 0));
    CALL(futex((uint32_t *)((char *)&word + 1), FUTEX_WAKE_PRIVATE, 5, NULL, NULL, 0));
    CALL(futex(NULL, FUTEX_WAIT_PRIVATE, 5, &at, NULL, 0));
    at.tv_nsec = 1000000000;
    CALL(futex(&word, FUTEX_WAIT_PRIVATE, 5, &at, NULL, 0));
    at = (struct timespec){-1, 0};
    CALL(futex(&word, FUTEX_WAIT_PRIVATE, 5, &at, NULL, 0));
    CALL(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 5, &at, NULL, 1));
    at = in_ms_on(CLOCK_MONOTONIC, 3);
    CALL(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 5, &at, NULL, 0));
    CALL(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 4, &at, NULL, 1));
    CALL(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 5, &at, NULL, 1));
    at = in_ms(3);
    CALL(futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 5, &at, NULL, 1));
    at = in_ms(-3000);
    CALL(futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 5, &at, NULL, 1));
    at = (struct timespec){0, 1000000};
    CALL(futex(&word, FUTEX_WAKE_PRIVATE | FUTEX_CLOCK_REALTIME, 5, &at, NULL, 0));
    CALL(futex(&word, FUTEX_WAKE_PRIVATE, 5, NULL, NULL, 0));
    CALL(futex(&word, FUTEX_WAKE, 5, NULL, NULL, 0));
    CALL(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 5, NULL, NULL, 0));
    CALL(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 5, NULL, NULL, 1));
    CALL(futex(&word, FUTEX_REQUEUE_PRIVATE, 1, AS_NUMBER(-1), &other, 0));
    CALL(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, AS_NUMBER(1), &other, 4));
    CALL(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, AS_NUMBER(1), &other, 5));
    CALL(futex(&word, 2, 1, NULL, NULL, 0));
    CALL(futex(&word, 99, 1, NULL, NULL, 0));
}

static int woken;

struct waiter {
    uint32_t *address;
    uint32_t bits;
    long got;
};

static void *waits(void *argument) {
    struct waiter *w = argument;
    w->got = futex(w->address, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, w->bits);
    __atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static pthread_t threads[6];
static struct waiter waiters[6];

static void start(int count, uint32_t *address, const uint32_t *bits) {
    word = other = 0;
    woken = 0;
    for (int i = 0; i < count; i++) {
        waiters[i] = (struct waiter){address, bits ? bits[i] : 0xffffffff, 7};
        NEED(pthread_create(&threads[i], NULL, waits, &waiters[i]) == 0);
        settle();
    }
}

static void join(int count) {
    for (int i = 0; i < count; i++)
        NEED(pthread_join(threads[i], NULL) == 0);
}

CASE(wakes) {
    start(6, &word, NULL);
    CALL(futex(&word, FUTEX_WAKE_PRIVATE, 2, NULL, NULL, 0));
    settle();
    RESULT(woken);
    say("first %ld second %ld third %ld", waiters[0].got, waiters[1].got, waiters[2].got);
    CALL(futex(&word, FUTEX_WAKE_PRIVATE, 0, NULL, NULL, 0));
    CALL(futex(&word, FUTEX_WAKE_PRIVATE, -1, NULL, NULL, 0));
    CALL(futex(&word, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0));
    join(6);
    RESULT(woken);
}

CASE(bits) {
    start(4, &word, (uint32_t[]){1, 2, 3, 4});
    CALL(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 8));
    CALL(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 2));
    settle();
    say("%ld %ld %ld %ld", waiters[0].got, waiters[1].got, waiters[2].got, waiters[3].got);
    CALL(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    join(4);
}

CASE(requeue) {
    start(5, &word, NULL);
    CALL(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, AS_NUMBER(2), &other, 0));
    settle();
    RESULT(woken);
    CALL(futex(&other, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    CALL(futex(&word, FUTEX_REQUEUE_PRIVATE, 1, AS_NUMBER(1), &other, 0));
    CALL(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    CALL(futex(&other, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    join(5);
    RESULT(woken);
}

static void wake_op(const char *what, uint32_t before, int op, int operand, int comparison,
                    int comparand) {
    other = before;
    word = 0;
    errno = 0;
    long got = futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, AS_NUMBER(1), &other,
                     FUTEX_OP(op, operand, comparison, comparand));
    call_result(what, got);
    RESULT(other);
}

CASE(wake_op) {
    wake_op("set", 3, FUTEX_OP_SET, 9, FUTEX_OP_CMP_EQ, 3);
    wake_op("add", 3, FUTEX_OP_ADD, -1, FUTEX_OP_CMP_NE, 3);
    wake_op("or", 3, FUTEX_OP_OR, 12, FUTEX_OP_CMP_LT, 3);
    wake_op("andn", 15, FUTEX_OP_ANDN, 3, FUTEX_OP_CMP_LE, 3);
    wake_op("xor", 15, FUTEX_OP_XOR, 3, FUTEX_OP_CMP_GT, -3);
    wake_op("shift", 0, FUTEX_OP_SET | FUTEX_OP_OPARG_SHIFT, 5, FUTEX_OP_CMP_GE, 0);
    wake_op("bad operation", 0, 6, 5, FUTEX_OP_CMP_GE, 0);
    start(2, &word, NULL);
    waiters[2] = (struct waiter){&other, 1, 7};
    NEED(pthread_create(&threads[2], NULL, waits, &waiters[2]) == 0);
    settle();
    CALL(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, AS_NUMBER(1), &other,
               FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0)));
    settle();
    RESULT(woken);
    CALL(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    join(3);
}

static void *pi_other(void *unused) {
    (void)unused;
    CALL(futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    struct timespec at = in_ms(5);
    CALL(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, &at, NULL, 0));
    CALL(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    return NULL;
}

static void *pi_waits(void *unused) {
    (void)unused;
    long got = futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0);
    call_result("lock", got);
    RESULT((word & FUTEX_TID_MASK) == (uint32_t)gettid());
    CALL(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    return NULL;
}

CASE(priority_inheritance) {
    word = 0;
    CALL(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    RESULT(word == (uint32_t)gettid());
    CALL(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    CALL(futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    pthread_t t;
    NEED(pthread_create(&t, NULL, pi_other, NULL) == 0);
    NEED(pthread_join(t, NULL) == 0);
    NEED(pthread_create(&t, NULL, pi_waits, NULL) == 0);
    settle();
    RESULT((word & FUTEX_WAITERS) != 0);
    NEED(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    NEED(pthread_join(t, NULL) == 0);
    RESULT(word);
    CALL(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    CALL(futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    CALL(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    word = 999999999;
    CALL(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
}

CASE(shared_at_two_addresses) {
    int fd = memfd_create("futex", MFD_CLOEXEC);
    NEED(fd >= 0 && ftruncate(fd, 8192) == 0);
    uint32_t *here = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4096);
    NEED(here != MAP_FAILED);
    pid_t child = fork();
    if (child == 0) {
        char *there = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        NEED(there != MAP_FAILED);
        long got = futex((uint32_t *)(there + 4096 + 8), FUTEX_WAIT, 0, NULL, NULL, 0);
        call_result("the child's wait", got);
        _exit(0);
    }
    settle();
    CALL(futex(&here[1], FUTEX_WAKE, 10, NULL, NULL, 0));
    CALL(futex(&here[2], FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    NEED(futex(&here[2], FUTEX_WAKE, 10, NULL, NULL, 0) == 1);
    NEED(waitpid(child, NULL, 0) == child);
    munmap(here, 4096);
    close(fd);
}

/* Private memory under the same address in two processes is two words. */
CASE(private_memory_by_the_shared_operation) {
    word = 0;
    pid_t child = fork();
    if (child == 0) {
        struct timespec at = {1, 0};
        long got = futex(&word, FUTEX_WAIT, 0, &at, NULL, 0);
        call_result("the child's wait", got);
        _exit(0);
    }
    settle();
    CALL(futex(&word, FUTEX_WAKE, 10, NULL, NULL, 0));
    NEED(waitpid(child, NULL, 0) == child);
}

static void *spins(void *lock) {
    pthread_spin_lock(lock);
    pthread_spin_unlock(lock);
    return NULL;
}

CASE(shared_spin_lock) {
    pthread_spinlock_t *lock = shared_page();
    CODE(pthread_spin_init(lock, PTHREAD_PROCESS_SHARED));
    CODE(pthread_spin_lock(lock));
    pid_t child = fork();
    if (child == 0) {
        code("the child's trylock", pthread_spin_trylock(lock));
        pthread_t t;
        NEED(pthread_create(&t, NULL, spins, (void *)lock) == 0);
        pthread_spin_lock(lock);
        say("the child has it");
        pthread_spin_unlock(lock);
        NEED(pthread_join(t, NULL) == 0);
        _exit(0);
    }
    settle();
    NEED(pthread_spin_unlock(lock) == 0);
    NEED(waitpid(child, NULL, 0) == child);
    munmap((void *)lock, 4096);
}
