"""The proof: is this version the text's model?

What is compared (`checks`, `statistics`, `modes`), how a cell is questioned (`cell`), many at once (`run`).
"""
