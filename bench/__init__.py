"""What recording costs and how fast reading is, as ratios to perf in the same run."""
