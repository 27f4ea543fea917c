"""The whole chain: client, broker, zygote, sandboxed workers. The sandbox is on in every test."""
