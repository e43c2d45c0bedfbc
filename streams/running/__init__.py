"""Programs that a site's settings or a user name: started without a shell, watched, and killed with all that came of
them. Nothing here knows who runs what, or why.
"""
