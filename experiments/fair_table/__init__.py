"""The fair table: ELREA and its rivals on the exam, each at the rate that dev chose."""
