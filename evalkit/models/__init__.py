"""Loading a checkpoint: where it lies, its config, weights and tokenizer. Nothing about tasks.

`spec` names a model without touching torch; `loading` turns it into a LoadedModel.
"""
