"""What a GPU is needed to measure, as one script of ten minutes that resumes (`make gpu`)."""
