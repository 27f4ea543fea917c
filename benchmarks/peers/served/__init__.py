"""What runs inside the peers: each model by LiteRT, in the shape that the peer's guide has it."""
