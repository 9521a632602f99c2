"""What a user may write in a grid's file: frozen and strict; unknown keys are refused with the nearest known one."""
