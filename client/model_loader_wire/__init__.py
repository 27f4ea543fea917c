"""The contract between client, broker and worker: standard library only.

The worker's process imports this package and must never load gRPC or protobuf; the generated
protobuf modules in ``model_loader_wire.v1`` are therefore imported by client and broker alone.
"""
