"""All addresses."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView

from exportapp.web import accounts, figures, views

urlpatterns = [
    path("", views.home, name="home"),
    path("exports/", views.my_exports, name="exports"),
    path("exports/new/", views.choose_dataset, name="choose-dataset"),
    path("exports/new/<slug:name>/", views.new_export, name="new-export"),
    path("exports/new/<slug:name>/histogram.json", figures.histogram, name="histogram"),
    path("exports/new/<slug:name>/estimate", figures.estimated, name="estimate"),
    path("exports/<uuid:export_id>/", views.one_export, name="export"),
    path("exports/<uuid:export_id>/download", views.download, name="download"),
    path("exports/<uuid:export_id>/receipt.json", views.receipt, name="receipt"),
    path("exports/<uuid:export_id>/cancel", views.cancel, name="cancel"),
    path("exports/<uuid:export_id>/again", views.again, name="again"),
    path("exports/<uuid:export_id>/remove", views.remove, name="remove"),
    path("login/", accounts.SignIn.as_view(), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("password/", accounts.ChangePassword.as_view(), name="password"),
    path("password/forgotten/", accounts.ForgottenPassword.as_view(), name="password-forgotten"),
    path("password/forgotten/sent/", accounts.ForgottenSent.as_view(), name="password-sent"),
    path("password/new/<uidb64>/<token>/", accounts.NewPassword.as_view(), name="password-new"),
    path("favicon.ico", RedirectView.as_view(url=static("logo.svg"))),
    path("healthz", views.healthz),
    path("readyz", views.readyz),
    path("admin/login/", accounts.operators_sign_in),
    path("admin/", admin.site.urls),
]
