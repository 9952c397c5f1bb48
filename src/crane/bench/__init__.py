"""``crane bench``: how fast a replicated server is, beside the same one alone and beside etcd.

Everything is measured in the same run, in short rounds that take turns, and
shown as the median of the rounds and as ratios: the machine's own speed, and
what else runs on it, cancel out.
"""
