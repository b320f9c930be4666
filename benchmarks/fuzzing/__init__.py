"""What `fuzz.py` is made of: inputs, a slow reference, and what is asked of the package."""
