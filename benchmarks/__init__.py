"""What a call, a load and a worker cost against running in process; `make bench` runs it."""
