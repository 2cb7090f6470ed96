"""All addresses."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView

from exportapp.web import views

urlpatterns = [
    path("", views.home, name="home"),
    path("exports/", views.my_exports, name="exports"),
    path("exports/new/", views.choose_dataset, name="choose-dataset"),
    path("exports/new/<slug:name>/", views.new_export, name="new-export"),
    path("exports/<uuid:export_id>/", views.one_export, name="export"),
    path("exports/<uuid:export_id>/download", views.download, name="download"),
    path("exports/<uuid:export_id>/receipt.json", views.receipt, name="receipt"),
    path("exports/<uuid:export_id>/cancel", views.cancel, name="cancel"),
    path("exports/<uuid:export_id>/again", views.again, name="again"),
    path("login/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("favicon.ico", RedirectView.as_view(url=static("logo.svg"))),
    path("healthz", views.healthz),
    path("readyz", views.readyz),
    path("admin/", admin.site.urls),
]
