"""Workers, CLIs and viewers around the real decisions, on one clock and in one thread.

``Worker`` and ``Host`` go the same steps as ``app`` and ``host``, written as generators: each ``yield`` is a
place where the worker waits for an answer, and where it may be stopped, killed or cut off. What is decided
is decided by the real ``Session``, ``place``, ``Fence``, ``Liveness`` and ``Reader``; ``model`` keeps it.

Nothing happens by itself: ``World.enabled`` lists what could happen next, and the test chooses.
"""
