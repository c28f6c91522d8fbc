"""One file per command: options become adapters and services, and they run."""
