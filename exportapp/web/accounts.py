"""Signing in, passwords, and how often one may try. It knows people, and nothing of exports.

The tries are counted in Django's cache, which by default is each web process's own: with four of them, four times as
many are let through. That stops guessing as well, and needs no table and no library.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import unicodedata
from typing import Any

from django.contrib import messages
from django.contrib.auth import views as auth
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm, PasswordResetForm, SetPasswordForm
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.core.mail import EmailMultiAlternatives
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse, reverse_lazy
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from exportapp import notifications
from exportapp.engine.errors import ExportError
from exportapp.web.middleware import address

log = logging.getLogger(__name__)

TRIES = 10  # for a name, and from an address
SECONDS = 600  # from the first of them on


class Tries:
    """Counts the tries of one kind, for what was typed and for where it came from, whether or not that exists.

    A try counts before it is made, or many at once would slip through; `went_well` takes it back.
    """

    def __init__(self, kind: str, typed: str, request: HttpRequest) -> None:
        # Databases may take Alice for alice, so both count as one; and a key of a cache may be no more than a word.
        name = unicodedata.normalize("NFKC", typed).strip().casefold()
        self._name, self._address = (
            f"tries-{kind}-{hashlib.sha256(text.encode()).hexdigest()}"
            for text in (f"name {name}", f"address {address(request)}")
        )

    def begin(self) -> bool:
        """Whether this one is let through. An address that is out of tries costs nobody else's name any."""
        return self._count(self._address) <= TRIES and self._count(self._name) <= TRIES

    def went_well(self) -> None:
        """The name begins anew; the address only gets this try back, or one known password would buy it many."""
        cache.delete(self._name)
        self._add(self._address, -1)

    def _count(self, key: str) -> int:
        cache.add(key, 0, SECONDS)
        return self._add(key, 1)

    @staticmethod
    def _add(key: str, step: int) -> int:
        try:
            return cache.incr(key, step)
        except ValueError:  # it ran out just now
            return 1


class SignInForm(AuthenticationForm):
    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": _("User name and password do not fit together. Capital letters matter in both."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].label = _("User name")


class SignIn(auth.LoginView):
    form_class = SignInForm
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        typed = request.POST.get("username", "")
        self.tries = Tries("sign-in", typed, request)
        if self.tries.begin():
            return super().post(request, *args, **kwargs)
        log.warning("too many tries to sign in as %.200r from %s", typed, address(request))
        # An unbound form: the password that was typed is not even looked at.
        form = SignInForm(request, initial={"username": typed})
        return _not_now(self.render_to_response(self.get_context_data(form=form, too_often=True)))

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        self.tries.went_well()
        return super().form_valid(form)


def _not_now(response: HttpResponse) -> HttpResponse:
    response.status_code = 429
    response["Retry-After"] = str(SECONDS)
    return response


@require_safe
@never_cache
def operators_sign_in(request: HttpRequest) -> HttpResponse:
    """Where the admin sends whom it does not let in: there is one sign-in for all, and its count of tries."""
    target = request.GET.get("next") or reverse("admin:index")
    if not request.user.is_authenticated:
        return auth.redirect_to_login(target)
    if not (isinstance(request.user, User) and request.user.is_staff):
        raise PermissionDenied(gettext("This part of the desk is for operators."))
    return redirect("admin:index")


class _OurWords:
    """Of Django's forms with a new password: what they say beside the fields."""

    fields: dict[str, Any]

    def say(self) -> None:
        first, second = self.fields["new_password1"], self.fields["new_password2"]
        first.label, second.label = _("New password"), _("New password, once more")
        first.help_text = _("8 characters or more, none that many people use, and not like your name.")
        second.help_text = ""


class ChangeForm(_OurWords, PasswordChangeForm):
    error_messages = {
        **PasswordChangeForm.error_messages,
        "password_mismatch": _("This is not the same as the one above."),
        "password_incorrect": _("This is not your current password."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["old_password"].label = _("Current password")
        self.say()


class ChangePassword(auth.PasswordChangeView):
    template_name = "registration/password_change.html"
    form_class = ChangeForm
    success_url = reverse_lazy("home")

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        self.tries = Tries("password", request.user.get_username(), request)
        if self.tries.begin():
            return super().post(request, *args, **kwargs)
        form = ChangeForm(request.user)
        return _not_now(self.render_to_response(self.get_context_data(form=form, too_often=True)))

    def form_invalid(self, form: PasswordChangeForm) -> HttpResponse:
        if "old_password" not in form.errors:
            self.tries.went_well()
        return super().form_invalid(form)

    def form_valid(self, form: PasswordChangeForm) -> HttpResponse:
        self.tries.went_well()
        messages.success(self.request, gettext("Your password is changed. Other browsers have to sign in again."))
        return super().form_valid(form)


class ForgottenForm(PasswordResetForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = _("E-mail address")

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Mails who has this address. Neither the answer nor how long it takes tells whether anybody has."""
        people = list(self.get_users(self.cleaned_data["email"]))
        for person in people or [User(username="nobody")]:
            proof = [urlsafe_base64_encode(force_bytes(person.pk)), default_token_generator.make_token(person)]
            message = notifications.new_password(person, reverse("password-new", args=proof))
            if person.pk:
                threading.Thread(target=_send, args=[message]).start()


def _send(message: EmailMultiAlternatives) -> None:
    try:
        notifications.deliver(message)
    except ExportError as error:  # whoever waits for it in vain asks again
        log.error("the mail for a new password was not sent: %s %s", error.sentence, error.detail)


class ForgottenPassword(auth.PasswordResetView):
    template_name = "registration/password_forgotten.html"
    form_class = ForgottenForm
    success_url = reverse_lazy("password-sent")

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if Tries("forgotten", request.POST.get("email", ""), request).begin():
            return super().post(request, *args, **kwargs)
        form = ForgottenForm(initial={"email": request.POST.get("email", "")})
        return _not_now(self.render_to_response(self.get_context_data(form=form, too_often=True)))


class ForgottenSent(auth.PasswordResetDoneView):
    template_name = "registration/password_sent.html"


class NewForm(_OurWords, SetPasswordForm):  # type: ignore[type-arg]  # not generic when it runs
    error_messages = {"password_mismatch": _("This is not the same as the one above.")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.say()


class NewPassword(auth.PasswordResetConfirmView):
    template_name = "registration/password_new.html"
    form_class = NewForm
    success_url = reverse_lazy("login")

    def form_valid(self, form: SetPasswordForm[User]) -> HttpResponse:
        # Who was kept out by somebody else's guessing gets in again.
        Tries("sign-in", form.user.get_username(), self.request).went_well()
        messages.success(self.request, gettext("Your new password is set. Sign in with it."))
        return super().form_valid(form)
