/* A library whose constructor waits for another thread of the program. */
#include <stdio.h>
#include <unistd.h>

int loaded;

__attribute__((constructor)) static void starts(void) {
    usleep(30000);
    loaded = 1;
}

__attribute__((destructor)) static void ends(void) { usleep(10000); }

int answer(void) { return 42; }
