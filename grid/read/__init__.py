"""What users wrote and point at: grid files, data sets, code and weights of their own."""
