"""Files become known: found below a path, placed under the root, checked, and told to the log. And read back."""
