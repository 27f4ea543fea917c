"""The parts of `model-loader demo`: digits, pictures, cost, attacks."""
