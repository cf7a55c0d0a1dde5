"""Images: sources as published on disk, decoded stores, nested subsets."""
