"""A packed network's speed beside dense runtimes that compute the same network.

Every engine runs in a process of its own; their calls take turns, and their outputs are compared
with PyTorch's before anything is timed.
"""

from regrow.bench.timing.measure import Settings, Timing, time_network

__all__ = ["Settings", "Timing", "time_network"]
