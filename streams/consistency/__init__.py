"""Acting on what a look at a site's disk found: losses are said, repairs asked for, dark files set aside.

The look and its judge are the audit's (auditing/storage.py); nothing is walked or judged here.
"""
