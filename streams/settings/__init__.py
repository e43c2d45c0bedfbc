"""Configuration: flags, T2G_* variables and TOML files become one frozen `Settings`.

`loading` says what the values mean, `parsing` reads and checks single values, `stores` reads the tables of object
stores. This is the only room that reads the environment.
"""

from __future__ import annotations

from streams.settings.loading import BadSettings, Registry, Settings, SiteEntry, load_settings

__all__ = ["BadSettings", "Registry", "Settings", "SiteEntry", "load_settings"]
