"""Images as they lie on disk, listed, decoded once into stores, and read by row."""
