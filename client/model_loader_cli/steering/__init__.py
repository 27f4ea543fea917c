"""What the commands that see and steer a running daemon share."""
