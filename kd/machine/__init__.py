"""The machine that models are trained on."""
