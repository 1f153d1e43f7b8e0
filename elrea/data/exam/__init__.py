"""The built-in exam, made from a seed."""
