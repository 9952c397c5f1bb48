/* A line server with a planted fault: something of it depends on the machine's
 * clock, which is no input of the log and which it asks for by a system call in
 * code that it makes itself. The fault shows from the hundredth line on.
 *
 *     undetermined PORT none|order|lock|answer|file
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *fault;
static int lines;

static long (*clock_of_the_machine)(clockid_t id, struct timespec *now);

static void make_clock(void)
{
    /* mov $228, %eax (clock_gettime); syscall; ret */
    static const unsigned char code[] = {0xb8, 0xe4, 0, 0, 0, 0x0f, 0x05, 0xc3};
    void *page = mmap(NULL, sizeof code, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page, code, sizeof code);
    memcpy(&clock_of_the_machine, &page, sizeof page);
}

static unsigned coin(void)
{
    struct timespec now;
    return clock_of_the_machine(CLOCK_MONOTONIC, &now) == 0 && (now.tv_nsec >> 6) & 1;
}

__attribute__((noinline)) void the_usual_way(void)
{
    pthread_mutex_lock(&lock);
    lines++;
    pthread_mutex_unlock(&lock);
}

__attribute__((noinline)) void the_other_way(void)
{
    while (pthread_mutex_trylock(&lock))
        ;
    lines++;
    pthread_mutex_unlock(&lock);
}

__attribute__((noinline)) void with_some_lock(void)
{
    static pthread_mutex_t locks[2] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
    pthread_mutex_t *one = &locks[coin()];
    pthread_mutex_lock(one);
    lines++;
    pthread_mutex_unlock(one);
}

static void answer(int fd)
{
    char text[64] = "PONG\r\n";
    int late = lines >= 100;
    if (late && !strcmp(fault, "order") && coin())
        the_other_way();
    else if (late && !strcmp(fault, "lock"))
        with_some_lock();
    else
        the_usual_way();
    if (late && !strcmp(fault, "answer"))
        snprintf(text, sizeof text, "%sPONG\r\n", coin() ? "PING" : "");
    if (late && !strcmp(fault, "file")) {
        FILE *file = fopen("undetermined.out", "a");
        fputs(coin() ? "heads\n" : "tails\n", file);
        fclose(file);
    }
    if (write(fd, text, strlen(text)) < 0)
        perror("write");
}

static void *serve(void *argument)
{
    int fd = (int)(long)argument;
    char buffer[4096];
    ssize_t count;
    while ((count = read(fd, buffer, sizeof buffer)) > 0)
        for (ssize_t at = 0; at < count; at++)
            if (buffer[at] == '\n')
                answer(fd);
    close(fd);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    fault = argv[2];
    make_clock();
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
        perror("listen");
        return 1;
    }
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd < 0)
            continue;
        if (pthread_create(&thread, NULL, serve, (void *)(long)fd))
            return 1;
        pthread_detach(thread);
    }
}
