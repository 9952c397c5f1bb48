"""The replicas of a cluster, while they come and go.

``leader`` asks the leader and has it change who takes part, ``changes`` makes
whole commands of that: adding, replacing, removing, restarting all in turn.
"""
