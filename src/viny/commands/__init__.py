"""What one does with a study besides running it. Nothing here trains, and nothing needs torch to start."""
