"""What a worker has of the machine: processes, pipes, folders, control groups."""
