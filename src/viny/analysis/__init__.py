"""From cells.csv to tables, figures, statistics and verdicts. Knows files, not torch."""
