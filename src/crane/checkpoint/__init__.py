"""Checkpoints of a replica: its processes, their files, and the node's share.

A checkpoint is taken while the program stands still at the end of an epoch, and
is a directory:

=================  ==========================================================
``images/``        the processes, as CRIU wrote them
``layers.tar``     what they wrote to files, the replica's layers
``shm.tar``        ``/dev/shm``
``sockets.json``   names of sockets in the layers, which an archive cannot hold
``segment``        the shared segment: the scheduler and all virtual objects
``interposer``     the library that the processes have mapped
``files.json``       how the files that the program has seen are found again
``process.json``   which process is the root, and the next pid
=================  ==========================================================
"""
