"""Training: one loop, optimizer and schedule, exact resume."""
