/* Named pipes: opening one would wait in the kernel, with the turn. */
#include "../cases/conformance.h"
#include <fcntl.h>
#include <sys/stat.h>

CASE(fifos) {
    NEED(mkfifo("fifo", 0600) == 0);
    CALL(open("fifo", O_RDONLY));
    CALL(open("fifo", O_WRONLY | O_NONBLOCK));
    CALL(openat(AT_FDCWD, "fifo", O_RDWR));
    CALL(fopen("fifo", "r") == NULL ? -1 : 0);
}
