/* Answers each line with a sum of what is left on its stack: also what whoever
 * worked there before left. */
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((noinline)) static uint64_t leavings(void) {
    volatile uint64_t words[384];
    uint64_t sum = 0;
    /* Read on purpose before it is written. */
    __asm__ volatile("" : : "r"(words) : "memory");
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        sum = sum * 31 + words[i];
    return sum;
}

int main(int argc, char **argv) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 8) != 0)
        return 1;
    for (;;) {
        static char text[64];
        int client = accept(listener, NULL, NULL);
        while (read(client, text, sizeof text) > 0) {
            struct stat st;
            uint64_t sum = leavings();
            stat("/etc/passwd", &st);
            sum ^= leavings();
            write(client, text, snprintf(text, sizeof text, "%016lx\n", sum));
            sum = leavings();
            write(client, text, snprintf(text, sizeof text, "%016lx\n", sum));
        }
        close(client);
    }
}
