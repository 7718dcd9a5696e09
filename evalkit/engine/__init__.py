"""The engine: token ids in, numbers out. It knows no text and no task."""
