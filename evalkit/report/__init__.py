"""Reports: summaries set beside the published numbers."""
