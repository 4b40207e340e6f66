"""Every verb as a command, in the order in which help lists them."""

from __future__ import annotations

from isocenter.cli.help_page import Verb
from isocenter.cli.images import convert, view
from isocenter.cli.model_commands import adopt, calibrate, explain, networks, package, predict
from isocenter.cli.service_commands import route, serve
from isocenter.cli.shell import app
from isocenter.cli.train_commands import check, compare, demo, ensemble, evaluate, plan, train

for verb in (
    check,
    plan,
    train,
    evaluate,
    compare,
    ensemble,
    predict,
    explain,
    package,
    calibrate,
    adopt,
    convert,
    view,
    serve,
    route,
    networks,
    demo,
):
    app.command(cls=Verb)(verb)

__all__ = ["app"]
