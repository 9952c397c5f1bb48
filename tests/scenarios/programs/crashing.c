/* Keeps words in a file and counts them in memory, and crashes when it is asked to.
 *
 *   add WORD   answers how many words there are in the file and how many were added
 *              since the program began
 *   crash      writes where no memory is
 *   abort      aborts
 *   leave N    exits with the status N
 *   betray     crashes on the replicas whose numbers are in a file of the machine: it
 *              finds out which one it is on, as no replicated program should
 *   remember   makes a file in memory
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
static const char *words, *traitors;
static int added;
static int *volatile nowhere;

static int count(void) {
    FILE *file = fopen(words, "r");
    int lines = 0;
    for (int letter; file && (letter = getc(file)) != EOF;)
        lines += letter == '\n';
    if (file)
        fclose(file);
    return lines;
}

static void add(const char *word) {
    FILE *file = fopen(words, "a");
    if (!file || fprintf(file, "%s\n", word) < 0 || fclose(file))
        _exit(9);
    added++;
}

/* What /proc says of mounts names the replica's directory. */
static void betray(void) {
    static char mounts[1 << 16], numbers[20];
    FILE *file = fopen("/proc/self/mountinfo", "r");
    if (!file)
        _exit(8);
    mounts[fread(mounts, 1, sizeof mounts - 1, file)] = 0;
    fclose(file);
    file = fopen(traitors, "r");
    if (!file)
        _exit(8);
    numbers[fread(numbers, 1, sizeof numbers - 1, file)] = 0;
    fclose(file);
    for (const char *number = numbers; *number; number++) {
        char place[20] = "/replicas/X/";
        place[10] = *number;
        if (strstr(mounts, place))
            *nowhere = 1;
    }
}

static void remember(void) {
    FILE *file = fopen("/dev/shm/memory", "w");
    if (!file || fclose(file))
        _exit(7);
}

static void obey(int client, const char *what, const char *word) {
    char text[80];
    pthread_mutex_lock(&lock);
    if (!strcmp(what, "crash"))
        *nowhere = 1;
    if (!strcmp(what, "abort"))
        abort();
    if (!strcmp(what, "leave"))
        exit(atoi(word));
    if (!strcmp(what, "betray"))
        betray();
    if (!strcmp(what, "remember"))
        remember();
    if (!strcmp(what, "add"))
        add(word);
    int length = snprintf(text, sizeof text, "%d %d %d\n", count(), added, getpid());
    pthread_mutex_unlock(&lock);
    if (write(client, text, length) != length)
        close(client);
}

static void *serve(void *argument) {
    int client = (int)(intptr_t)argument;
    FILE *input = fdopen(dup(client), "r");
    char line[100], what[20], word[60];
    while (fgets(line, sizeof line, input)) {
        word[0] = 0;
        sscanf(line, "%19s %59s", what, word);
        obey(client, what, word);
    }
    fclose(input);
    close(client);
    return NULL;
}

int main(int argc, char **argv) {
    words = argv[1];
    traitors = argv[2];
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
