"""What methods compute with: peft's layers, edits of hidden states, gates, scaled singular values."""
