"""What `./shardplane demo NAME` runs: a module each."""
