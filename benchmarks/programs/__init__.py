"""What runs in the fresh processes, beside the arms of `model_loader_cli.bench`."""
