"""How the admin writes times: with seconds, because operators compare them with logs (Django, "Format localization")."""

DATETIME_FORMAT = "j M Y, H:i:s"
