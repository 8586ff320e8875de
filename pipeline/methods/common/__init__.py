"""What several methods share: adapters trained through peft, and edits of hidden states."""
