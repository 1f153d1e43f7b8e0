"""The same question in train and test: found, and refused or dropped."""
