"""One run: questions from tasks, answers from a backend, scores, a summary. It knows no report."""
