"""Bytes made durable. Knows files, locks and tables; knows no meaning."""
