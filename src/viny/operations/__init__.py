"""What one does with a study besides running it: plan, status, verify. Nothing here trains or needs torch."""
