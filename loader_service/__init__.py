"""The service: broker, zygote and sandboxed workers that run TFLite models."""
