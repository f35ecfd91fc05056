"""The rules of the code, one kind a file; tools/house_rules.py runs them all."""
