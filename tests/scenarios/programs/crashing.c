/* Keeps words in a file and counts them in memory, and crashes when it is asked to.
 *
 *   add WORD   answers how many words there are in the file and how many were added
 *              since the program began
 *   crash      writes where no memory is
 *   abort      aborts
 *   leave N    exits with the status N
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
static const char *words;
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

static void obey(int client, const char *what, const char *word) {
    char text[80];
    pthread_mutex_lock(&lock);
    if (!strcmp(what, "crash"))
        *nowhere = 1;
    if (!strcmp(what, "abort"))
        abort();
    if (!strcmp(what, "leave"))
        exit(atoi(word));
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
