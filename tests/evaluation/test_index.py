from importlib import import_module
from pkgutil import iter_modules

from isocenter import evaluation

# Arithmetic that the files of the room share, no figures.
INTERNAL = "isocenter.evaluation._weighting"


def public_names():
    modules = [import_module(f"{evaluation.__name__}.{found.name}") for found in iter_modules(evaluation.__path__)]
    return {name: getattr(module, name) for module in modules for name in vars(module) if not name.startswith("_")}


def test_every_public_function_and_class_of_the_room_is_in_its_index():
    own = {
        name
        for name, value in public_names().items()
        if (getattr(value, "__module__", "") or "").startswith("isocenter.evaluation") and value.__module__ != INTERNAL
    }
    assert own - set(evaluation.__all__) == set()


def test_the_index_holds_what_it_lists_and_nothing_more():
    own = {
        name
        for name, value in vars(evaluation).items()
        if (getattr(value, "__module__", "") or "").startswith("isocenter.evaluation") and not name.startswith("_")
    }
    assert own <= set(evaluation.__all__)
    assert all(hasattr(evaluation, name) for name in evaluation.__all__)
