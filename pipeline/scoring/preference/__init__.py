"""Which of two answers is better: win rates against a reference model, and what a judge's word is worth."""
