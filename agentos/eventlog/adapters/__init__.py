"""Where the event log meets its vendors: NATS and nothing else."""
