"""Kafka as this product needs it: clients and their settings, topics, publishing with numbers, reading, replaying."""
