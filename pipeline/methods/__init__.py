"""The methods. Each file is a kind of adapter, which its ``from_state`` reads back; none imports another."""
