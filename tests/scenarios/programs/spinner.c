/* A server whose threads wait in ways that no lock shows: one thread for each
 * connection, one word of commands on a line.
 *
 *   ping     answers "pong"
 *   spin     spins on memory until `flag` is set, then answers "seen"
 *   set      sets the flag, answers "set"
 *   compute  counts for ever
 *   fork     makes a child that counts for ever
 *   tsc      answers the processor's time-stamp counter, read in two ways
 *   sync     writes 32 MiB to the file of the first argument, and syncs it
 *   run      runs a program, and answers the counter again
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <x86intrin.h>

static atomic_int flag;
static volatile unsigned long counter;
static const char *path;

__attribute__((noinline)) void spin_on_the_flag(void)
{
    while (!atomic_load_explicit(&flag, memory_order_relaxed))
        __builtin_ia32_pause();
}

__attribute__((noinline)) void count_for_ever(void)
{
    for (;;)
        counter++;
}

static void answer(int client, const char *text)
{
    if (write(client, text, strlen(text)) < 0)
        perror("write");
}

static void *serve(void *argument)
{
    int client = (int)(long)argument;
    char line[64];
    ssize_t length;
    while ((length = read(client, line, sizeof line - 1)) > 0) {
        line[length] = 0;
        if (!strncmp(line, "ping", 4))
            answer(client, "pong\n");
        else if (!strncmp(line, "spin", 4)) {
            spin_on_the_flag();
            answer(client, "seen\n");
        } else if (!strncmp(line, "set", 3)) {
            atomic_store(&flag, 1);
            answer(client, "set\n");
        } else if (!strncmp(line, "clear", 5)) {
            atomic_store(&flag, 0);
            answer(client, "clear\n");
        } else if (!strncmp(line, "compute", 7))
            count_for_ever();
        else if (!strncmp(line, "sync", 4)) {
            static char block[1 << 20];
            int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), code = file < 0;
            for (int i = 0; i < 32 && !code; i++)
                code = write(file, block, sizeof block) != sizeof block;
            code |= fsync(file) | fdatasync(file) | syncfs(file);
            close(file);
            answer(client, code ? "failed\n" : "synced\n");
        } else if (!strncmp(line, "tsc", 3) || !strncmp(line, "run", 3)) {
            unsigned processor = 77;
            unsigned long long first = __rdtsc(), second = __rdtscp(&processor);
            if (line[0] == 'r' && system("true"))
                answer(client, "failed\n");
            snprintf(line, sizeof line, "%llu %llu %u\n", first, second, processor);
            answer(client, line);
        } else if (!strncmp(line, "fork", 4) && fork() == 0)
            count_for_ever();
    }
    close(client);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
    path = argv[1];
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) {
        perror("listen");
        return 1;
    }
    for (;;) {
        pthread_t thread;
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        pthread_create(&thread, NULL, serve, (void *)(long)client);
        pthread_detach(thread);
    }
}
