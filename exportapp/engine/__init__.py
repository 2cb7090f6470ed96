"""The pure part: values in, bytes out. It knows neither Django nor Celery nor settings, so that a chunk runs anywhere."""
