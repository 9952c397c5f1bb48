/* Descriptors out of other processes and POSIX asynchronous I/O: refused, and the program goes on. */
#include "../cases/conformance.h"
#include <aio.h>
#include <fcntl.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>

CASE(descriptors_of_processes) {
    CALL(pidfd_getfd(3, 0, 0));
    CALL(syscall(SYS_pidfd_getfd, 3, 0, 0));
}

CASE(asynchronous_io) {
    char byte = 'x';
    struct aiocb block = {.aio_fildes = 1, .aio_buf = &byte, .aio_nbytes = 1};
    struct aiocb *list[] = {&block};
    CALL(aio_write(&block));
    CALL(aio_read(&block));
    CALL(aio_fsync(O_SYNC, &block));
    CALL(lio_listio(LIO_WAIT, list, 1, NULL));
}
