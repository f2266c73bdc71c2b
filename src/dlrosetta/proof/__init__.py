"""The proof: is this version the text's model?

What is compared (`checks`, `statistics`, `modes`), how a cell is questioned (`cell`), many at once (`run`).
"""

HOLDING = ("proven", "waived")  # verdicts of what is the text's model, and so may be timed
FINE = (*HOLDING, "cannot")  # after which a command ends with 0: nothing differs, nothing failed
