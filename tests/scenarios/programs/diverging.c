/* Adds up numbers for its clients, a thread for each, until it is told to look at
 * something that Crane does not show it the same on every replica.
 *
 *   add N          answers the sum
 *   lie R          from now on replica R answers with another sum
 *   look           the same, R is what the shared file holds now
 *   stray R        replica R does another operation, and answers as the others
 *   chance         answers a number that the processor has drawn
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t other = PTHREAD_MUTEX_INITIALIZER;
static long sum;
static unsigned liar;
static const char *shared;

/* Which replica this is: from memory of Crane's own, which is not for programs. */
static unsigned replica(void) { return *(volatile uint32_t *)0x60000000000cUL; }

/* Chance of the processor, which is not trapped. */
static long drawn(void) {
    unsigned long number;
    unsigned char good;
    do
        __asm__ volatile("rdrand %0; setc %1" : "=r"(number), "=qm"(good) : : "cc");
    while (!good);
    return number >> 8;
}

static void answer(int client, long number) {
    char text[40];
    int length = snprintf(text, sizeof text, "%ld\n", number);
    if (write(client, text, length) != length)
        _exit(3);
}

static unsigned look(void) {
    unsigned number = 0;
    FILE *file = fopen(shared, "r");
    if (!file || fscanf(file, "%u", &number) != 1)
        _exit(4);
    fclose(file);
    return number;
}

static void obey(int client, const char *word, long number) {
    pthread_mutex_lock(&lock);
    if (!strcmp(word, "lie"))
        liar = number;
    else if (!strcmp(word, "look"))
        liar = look();
    else if (!strcmp(word, "stray") && number == replica())
        pthread_mutex_trylock(&other);
    else if (!strcmp(word, "add"))
        sum += number;
    long told = liar && liar == replica() ? -sum : sum;
    if (!strcmp(word, "chance"))
        told = drawn();
    pthread_mutex_unlock(&lock);
    answer(client, told);
}

static void *serve(void *argument) {
    int client = (int)(intptr_t)argument;
    FILE *input = fdopen(dup(client), "r");
    char line[100], word[20];
    while (fgets(line, sizeof line, input)) {
        long number = 0;
        sscanf(line, "%19s %ld", word, &number);
        obey(client, word, number);
    }
    fclose(input);
    close(client);
    return NULL;
}

int main(int argc, char **argv) {
    shared = argv[1];
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        return 1;
    for (;;) {
        int client = accept(listener, NULL, NULL);
        pthread_t thread;
        if (client < 0 || pthread_create(&thread, NULL, serve, (void *)(intptr_t)client))
            return 2;
        pthread_detach(thread);
    }
}
