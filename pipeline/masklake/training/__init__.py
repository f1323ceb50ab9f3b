"""Fine-tuning: examples from ground truth or a table's rows, augmentation, models, the loop and its state.

Needs torch and transformers, `truth`, `quality` and `inference`; `flow` wires it on Ray. Knows nothing of the command line.
"""
