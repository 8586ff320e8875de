"""What may be said of scores: means with intervals, paired differences, interference, judges, spectra, budgets."""
