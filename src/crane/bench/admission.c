/* Echoes what it gets, beside a thread that never waits. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile unsigned long rounds;

static void *locks(void *unused) {
    for (;;) {
        pthread_mutex_lock(&lock);
        rounds++;
        pthread_mutex_unlock(&lock);
    }
    return unused;
}

static void *clocks(void *unused) {
    struct timespec now;
    for (;; rounds++)
        clock_gettime(CLOCK_MONOTONIC, &now);
    return unused;
}

/* A millisecond of work between two operations. */
static void *works(void *unused) {
    for (;;) {
        for (volatile unsigned long i = 0; i < 500000; i++)
            ;
        pthread_mutex_lock(&lock);
        rounds++;
        pthread_mutex_unlock(&lock);
    }
    return unused;
}

int main(int argc, char **argv) {
    const char *kind = argc > 2 ? argv[2] : "nothing";
    pthread_t thread;
    void *(*busy)(void *) = strcmp(kind, "locks") == 0    ? locks
                            : strcmp(kind, "clocks") == 0 ? clocks
                            : strcmp(kind, "works") == 0  ? works
                                                          : NULL;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 8) != 0) {
        perror("listen");
        return 1;
    }
    if (busy != NULL && pthread_create(&thread, NULL, busy, NULL) != 0)
        return 1;
    for (;;) {
        char text[256];
        int client = accept(listener, NULL, NULL);
        for (ssize_t length; (length = read(client, text, sizeof text)) > 0;)
            if (write(client, text, length) != length)
                break;
        close(client);
    }
}
