/* Everything at once: threads of several processes on objects that they share. */
#include "conformance.h"
#include <linux/futex.h>
#include <semaphore.h>
#include <sys/syscall.h>

enum { PROCESSES = 3, THREADS = 4, ROUNDS = 300, KINDS = 9 };

struct everything {
    pthread_mutex_t plain, recursive, robust;
    pthread_rwlock_t rwlock;
    pthread_cond_t changed;
    pthread_spinlock_t spin;
    pthread_barrier_t barrier;
    sem_t semaphore;
    uint32_t word;
    long counts[KINDS];
    long tokens;
};

static struct everything *all;

static void make(void) {
    all = shared_page();
    pthread_mutexattr_t m;
    pthread_rwlockattr_t l;
    pthread_condattr_t c;
    pthread_barrierattr_t b;
    NEED(pthread_mutexattr_init(&m) == 0 && pthread_condattr_init(&c) == 0);
    NEED(pthread_rwlockattr_init(&l) == 0 && pthread_barrierattr_init(&b) == 0);
    NEED(pthread_mutexattr_setpshared(&m, PTHREAD_PROCESS_SHARED) == 0);
    NEED(pthread_rwlockattr_setpshared(&l, PTHREAD_PROCESS_SHARED) == 0);
    NEED(pthread_condattr_setpshared(&c, PTHREAD_PROCESS_SHARED) == 0);
    NEED(pthread_barrierattr_setpshared(&b, PTHREAD_PROCESS_SHARED) == 0);
    NEED(pthread_mutex_init(&all->plain, &m) == 0);
    NEED(pthread_mutexattr_settype(&m, PTHREAD_MUTEX_RECURSIVE) == 0);
    NEED(pthread_mutex_init(&all->recursive, &m) == 0);
    NEED(pthread_mutexattr_setrobust(&m, PTHREAD_MUTEX_ROBUST) == 0);
    NEED(pthread_mutex_init(&all->robust, &m) == 0);
    NEED(pthread_rwlock_init(&all->rwlock, &l) == 0);
    NEED(pthread_cond_init(&all->changed, &c) == 0);
    NEED(pthread_barrier_init(&all->barrier, &b, PROCESSES * THREADS) == 0);
    NEED(pthread_spin_init(&all->spin, PTHREAD_PROCESS_SHARED) == 0);
    NEED(sem_init(&all->semaphore, 1, 2) == 0);
}

/* Drepper's second mutex, "Futexes Are Tricky". */
static void lock_word(uint32_t *word) {
    uint32_t seen = 0;
    if (__atomic_compare_exchange_n(word, &seen, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return;
    while (__atomic_exchange_n(word, 2, __ATOMIC_SEQ_CST) != 0)
        syscall(SYS_futex, word, FUTEX_WAIT, 2, NULL, NULL, 0);
}

static void unlock_word(uint32_t *word) {
    if (__atomic_exchange_n(word, 0, __ATOMIC_SEQ_CST) == 2)
        syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void *dies_with_robust(void *unused) {
    if (pthread_mutex_lock(&all->robust) == EOWNERDEAD)
        pthread_mutex_consistent(&all->robust);
    return unused;
}

static void take_robust(void) {
    if (pthread_mutex_lock(&all->robust) == EOWNERDEAD)
        NEED(pthread_mutex_consistent(&all->robust) == 0);
}

static void once(int kind) {
    struct timespec at;
    pthread_t t;
    switch (kind) {
    case 0:
        pthread_mutex_lock(&all->plain);
        all->counts[0]++;
        pthread_mutex_unlock(&all->plain);
        break;
    case 1:
        pthread_mutex_lock(&all->recursive);
        pthread_mutex_lock(&all->recursive);
        all->counts[1]++;
        pthread_mutex_unlock(&all->recursive);
        pthread_mutex_unlock(&all->recursive);
        break;
    case 2:
        take_robust();
        all->counts[2]++;
        pthread_mutex_unlock(&all->robust);
        break;
    case 3:
        pthread_rwlock_wrlock(&all->rwlock);
        all->counts[3]++;
        pthread_rwlock_unlock(&all->rwlock);
        break;
    case 4:
        pthread_rwlock_rdlock(&all->rwlock);
        __atomic_add_fetch(&all->counts[4], 1, __ATOMIC_SEQ_CST);
        pthread_rwlock_unlock(&all->rwlock);
        break;
    case 5:
        pthread_spin_lock(&all->spin);
        all->counts[5]++;
        pthread_spin_unlock(&all->spin);
        break;
    case 6:
        sem_wait(&all->semaphore);
        __atomic_add_fetch(&all->counts[6], 1, __ATOMIC_SEQ_CST);
        sem_post(&all->semaphore);
        break;
    case 7:
        lock_word(&all->word);
        all->counts[7]++;
        unlock_word(&all->word);
        break;
    default:
        /* Gives a token and takes one, waiting a little for it. */
        pthread_mutex_lock(&all->plain);
        all->tokens++;
        pthread_cond_signal(&all->changed);
        at = in_ms(1);
        if (all->tokens < 2)
            pthread_cond_timedwait(&all->changed, &all->plain, &at);
        all->tokens--;
        all->counts[8]++;
        pthread_mutex_unlock(&all->plain);
        if (all->counts[8] % 16 == 0) {
            NEED(pthread_create(&t, NULL, dies_with_robust, NULL) == 0);
            NEED(pthread_join(t, NULL) == 0);
        }
    }
}

static void *works(void *number) {
    uint32_t random = (uint32_t)(intptr_t)number * 2654435761u + 1;
    for (int i = 0; i < ROUNDS; i++) {
        random = random * 1664525 + 1013904223;
        once((random >> 16) % KINDS);
    }
    pthread_barrier_wait(&all->barrier);
    return NULL;
}

static void process(int number) {
    pthread_t t[THREADS];
    for (int i = 0; i < THREADS; i++) {
        void *argument = (void *)(intptr_t)(number * THREADS + i);
        NEED(pthread_create(&t[i], NULL, works, argument) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        NEED(pthread_join(t[i], NULL) == 0);
}

CASE(processes_and_threads) {
    make();
    pid_t children[PROCESSES];
    for (int i = 1; i < PROCESSES; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            process(i);
            _exit(0);
        }
    }
    process(0);
    for (int i = 1; i < PROCESSES; i++) {
        int status = -1;
        NEED(waitpid(children[i], &status, 0) == children[i]);
        RESULT(status);
    }
    long sum = 0;
    for (int i = 0; i < KINDS; i++) {
        say("kind %d: %ld", i, all->counts[i]);
        sum += all->counts[i];
    }
    RESULT(sum);
    RESULT(all->tokens);
    munmap(all, 4096);
}
