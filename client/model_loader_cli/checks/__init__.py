"""What `model-loader doctor` looks at, one thing a file; each finds out by trying."""
