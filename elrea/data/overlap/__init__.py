"""Finds the same question in two splits (`question_key`), and refuses or drops it (`held_out`)."""
