"""Where bytes come from: base models, benchmark tables, and splits that share no prompt."""
