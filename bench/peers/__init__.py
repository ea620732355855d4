"""Other systems that bring a process's output to viewers, measured next to ours: `python -m bench.peers`."""
