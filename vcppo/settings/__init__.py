"""Every setting, which of them go together, methods, and how text becomes settings. Nothing here imports torch."""
