"""The three training stages and the geometry of their encoders, each a small command."""
