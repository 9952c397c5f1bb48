"""``python -m crane.demo``: three replicas of Redis, and what happens when the leader dies."""
