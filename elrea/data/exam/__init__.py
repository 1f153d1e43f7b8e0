"""The built-in exam: a source whose multiple-choice questions are generated from a seed (`exam.Exam`)."""
