"""Value-Calibrated PPO (arXiv:2503.01491): every part switchable, tracked, and compared with its alternatives."""

__version__ = "0.1.0"
