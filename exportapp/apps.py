"""The Django application: registers the system checks."""

from django.apps import AppConfig


class ExportappConfig(AppConfig):
    name = "exportapp"
    verbose_name = "Exports"

    def ready(self) -> None:
        from exportapp import checks  # noqa: F401  registers itself
