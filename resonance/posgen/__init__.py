"""PosGen (section 5): the three tasks, the decoder trained on them, its training and evaluation."""
