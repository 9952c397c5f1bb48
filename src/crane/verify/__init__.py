"""``crane verify``: whether a program does the same every time its log is executed.

A log is recorded from a live replica under load (:mod:`.recording`,
:mod:`.load`), executed again and again under disturbance (:mod:`.replay`,
:mod:`.disturbance`), and what came out is compared (:mod:`.comparison`): the
order of operations, every byte sent, and every file written. Where two
executions differ, :mod:`.search` finds the first operation that does.
"""
