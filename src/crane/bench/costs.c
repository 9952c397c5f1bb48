/* What single operations cost. Prints "NAME NANOSECONDS" for each.
 *
 * Time inside a replica is virtual, so real time is read by a system call in code
 * made at run time, which the interposer does not see. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BATCHES = 30, OPERATIONS = 2000, TURNS = 500 };

static long (*clock_of_the_machine)(clockid_t id, struct timespec *time);

static void make_clock(void) {
    /* mov $228, %eax (clock_gettime); syscall; ret */
    static const unsigned char code[] = {0xb8, 0xe4, 0, 0, 0, 0x0f, 0x05, 0xc3};
    void *page = mmap(NULL, sizeof code, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page, code, sizeof code);
    memcpy(&clock_of_the_machine, &page, sizeof page);
}

static double now(void) {
    struct timespec time;
    clock_of_the_machine(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn;

static void lock_and_unlock(void) {
    for (int number = 0; number < OPERATIONS; number++) {
        pthread_mutex_lock(&lock);
        pthread_mutex_unlock(&lock);
    }
}

static void read_clock(void) {
    struct timespec time;
    for (int number = 0; number < OPERATIONS; number++)
        clock_gettime(CLOCK_MONOTONIC, &time);
}

/* One of two threads that wait for each other: two hand-overs for a round. */
static void take_turns(int own) {
    pthread_mutex_lock(&lock);
    for (int number = 0; number < TURNS; number++) {
        while (turn != own)
            pthread_cond_wait(&changed, &lock);
        turn = !own;
        pthread_cond_signal(&changed);
    }
    pthread_mutex_unlock(&lock);
}

static void *other(void *batches) {
    for (long number = 0; number < (long)batches; number++)
        take_turns(1);
    return NULL;
}

static void first(void) { take_turns(0); }

static void best(const char *name, void (*batch)(void), int count) {
    double least = 1e18;
    for (int number = 0; number < BATCHES; number++) {
        double begin = now();
        batch();
        double each = (now() - begin) / count;
        if (each < least)
            least = each;
    }
    printf("%s %.1f\n", name, least);
    fflush(stdout);
}

int main(void) {
    make_clock();
    best("lock", lock_and_unlock, OPERATIONS);
    best("clock", read_clock, OPERATIONS);
    pthread_t thread;
    pthread_create(&thread, NULL, other, (void *)(long)BATCHES);
    best("handover", first, 2 * TURNS);
    pthread_join(thread, NULL);
    return 0;
}
