"""The ways that bytes come to a destination. `log` reads payload topics."""
