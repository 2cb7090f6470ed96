"""All addresses."""

from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("exports/<uuid:export_id>/", admin.site.urls and (lambda request, export_id: None), name="export"),
]
