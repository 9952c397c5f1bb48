"""``crane doctor``: whether a program can be replicated, and with which settings.

Everything is read from files before anything starts: what the program's and
its libraries' headers ask of the C library against what the interposer answers,
instructions that bring the machine in, and advice for programs by name. The
advice is data (``advice.toml``); no code knows a program.
"""
