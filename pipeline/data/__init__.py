"""Where bytes come from: base models, tasks and their tables, and splits that share no prompt."""
