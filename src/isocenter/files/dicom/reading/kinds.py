"""What a frame shows: the part of a complex signal or the kind of map, from Image Type or Frame Type."""

from __future__ import annotations

# Siemens and the enhanced objects write M, P, R, I; Philips adds the sequence: M_FFE, P_SE; GE has words of its own.
_PARTS = {"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary"}
_MAPS = {
    "MAGNITUDE": "magnitude",
    "PHASE": "phase",
    "PHASE MAP": "phase",
    "REAL": "real",
    "IMAGINARY": "imaginary",
    "FIELD_MAP": "field map",
    "B0": "field map",
    "B0_MAP": "field map",
    "VELOCITY": "velocity",
    "ADC": "ADC",
    "FA": "FA",
}


def kind_of(image_type: tuple[str, ...], component: str = "") -> str:
    """A word for what is shown, the rest of the type where there is no word for it, empty where nothing is told.

    image_type: PS3.3 C.7.6.1.1.2 (C.8.16.1 for frames); the first two values say nothing about what is shown
    component:  Complex Image Component, PS3.3 C.8.13.3.1.1
    """
    shown = tuple(value.strip().upper() for value in image_type[2:])
    maps = [_MAPS[value] for value in shown if value in _MAPS]
    if maps and maps[0] not in _PARTS.values():  # a field map is REAL as well: the map says more
        return maps[0]
    if component.upper() in _MAPS:
        return _MAPS[component.upper()]
    for value in shown:
        part = _PARTS.get(value.split("_")[0])
        if part is not None and (len(value) == 1 or "_" in value):
            return part
    return maps[0] if maps else "\\".join(value for value in shown if value).lower()
