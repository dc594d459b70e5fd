"""What the benchmarks of the server share: a process that serves, and a client that costs little."""
