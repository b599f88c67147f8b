"""Which plugins of an instance are enabled."""
