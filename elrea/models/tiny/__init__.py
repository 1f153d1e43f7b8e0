"""The built-in backbone: its weights and the code that trained it."""
