"""Values that say who somebody is, whatever their column is called: by their form and by their check digit.

Each check is the published rule of who issues the number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

EMAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")
# With a country, or a first 0, and parted or long: +49 30 1234567, (0151) 123456, 030-1234567, 555-123-4567.
TELEPHONE = re.compile(r"(\+|00)\d{1,3}[ ./()-]*(\d[ ./()-]*){6,12}|\(?0\d{1,5}\)?[ ./-]*(\d[ ./-]?){5,11}"
                       r"|(\+?1[ .-])?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}")  # fmt: skip
DAY = re.compile(r"(\d{4})([-./])(\d{1,2})\2(\d{1,2})([T ].*)?|(\d{1,2})([-./])(\d{1,2})\7(\d{4}|\d{2})|(?:19|20)\d{6}")
DECIMAL = re.compile(r"[-+]?\d*\.\d+([eE][-+]?\d+)?")
# Longer whole numbers than those of images, doses and counts, or one that starts with 0: nobody knows what it numbers.
LONG_NUMBER = re.compile(r"\d{8,}|0\d{4,}")
SSN = re.compile(r"(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}")
KVNR = re.compile(r"[A-Z]\d{9}")
CODICE_FISCALE = re.compile(r"[A-Z]{6}[\dL-V]{2}[A-EHLMPR-T][\dL-V]{2}[A-Z][\dL-V]{3}[A-Z]")
NIR = re.compile(r"[1-478]\d{4}(\d{2}|2[AB])\d{8}")
DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
# Of a codice fiscale, at the odd places: of A to Z, and the first ten of 0 to 9.
ODD_PLACES = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def kind_of_value(text: str) -> str | None:
    """What a cell says of a person, by its form; None where it has none of these."""
    bare = text.strip()
    if DECIMAL.fullmatch(bare):
        return None
    if EMAIL.fullmatch(bare):
        return "e-mail"
    if number := kind_of_number(bare):
        return number
    if DAY.fullmatch(bare):
        return "date"
    if TELEPHONE.fullmatch(bare):
        return "telephone"
    return "number of unknown meaning" if LONG_NUMBER.fullmatch(bare) else None


def kind_of_number(text: str) -> str | None:
    """The country's number of a person that a text is, by its check digit."""
    if SSN.fullmatch(text):
        return "US social security number"
    compact = re.sub(r"[ .\-/]", "", text.upper())
    return next((kind for kind, is_valid in CHECKS.items() if is_valid(compact)), None)


def is_nhs_number(text: str) -> bool:
    """NHS number of England, Wales and the Isle of Man: modulus 11. NHS Data Dictionary, NHS NUMBER"""
    if not re.fullmatch(r"\d{10}", text):
        return False
    weighted = sum((10 - place) * int(digit) for place, digit in enumerate(text[:9]))
    return (11 - weighted % 11) % 11 == int(text[9])


def is_kvnr(text: str) -> bool:
    """German Krankenversichertennummer: modulus 10, the letter as two digits. SGB V, section 290, guideline, annex 1"""
    if not KVNR.fullmatch(text):
        return False
    digits = f"{ord(text[0]) - 64:02d}{text[1:9]}"
    products = [int(digit) * (1 + place % 2) for place, digit in enumerate(digits)]
    return sum(product // 10 + product % 10 for product in products) % 10 == int(text[9])


def is_nir(text: str) -> bool:
    """French numéro d'inscription au répertoire: 97 less the rest by 97, Corsica 2A as 19, 2B as 18. INSEE, NIR"""
    if not NIR.fullmatch(text):
        return False
    number = int(text[:13].replace("2A", "19").replace("2B", "18"))
    return 97 - number % 97 == int(text[13:])


def is_bsn(text: str) -> bool:
    """Dutch burgerservicenummer: the eleven test, whose last weight is -1. Logisch Ontwerp BSN, RvIG"""
    if not re.fullmatch(r"\d{9}", text) or not int(text):
        return False
    weights = (9, 8, 7, 6, 5, 4, 3, 2, -1)
    return sum(weight * int(digit) for weight, digit in zip(weights, text, strict=True)) % 11 == 0


def is_spanish_identity(text: str) -> bool:
    """Spanish DNI and NIE: the letter by the rest by 23, X, Y and Z as 0, 1 and 2. Real Decreto 1553/2005"""
    if not re.fullmatch(r"[\dXYZ]\d{7}[A-Z]", text):
        return False
    number = int(text[:8].replace("X", "0").replace("Y", "1").replace("Z", "2"))
    return DNI_LETTERS[number % 23] == text[8]


def is_nuss(text: str) -> bool:
    """Spanish número de la Seguridad Social: province and number, rest by 97. Tesorería General, Orden de 17-1-1994"""
    if not re.fullmatch(r"\d{12}", text) or not 1 <= int(text[:2]) <= 66:
        return False
    province, number, check = int(text[:2]), int(text[2:10]), int(text[10:])
    joined = province * 10**7 + number if number < 10**7 else int(text[:10])
    return joined % 97 == check


def is_codice_fiscale(text: str) -> bool:
    """Italian codice fiscale, with letters for digits of namesakes too: D.M. 23 dicembre 1976, articles 2 to 6."""
    if not CODICE_FISCALE.fullmatch(text):
        return False
    places = [int(sign) if sign.isdigit() else ord(sign) - 65 for sign in text[:15]]
    odd = sum(ODD_PLACES[place] for place in places[::2])
    return chr(65 + (odd + sum(places[1::2])) % 26) == text[15]


# {kind: check of the bare signs}; the first that fits names it.
CHECKS: Mapping[str, Callable[[str], bool]] = {
    "NHS number": is_nhs_number,
    "German insurance number": is_kvnr,
    "French insurance number": is_nir,
    "Spanish identity number": is_spanish_identity,
    "Spanish insurance number": is_nuss,
    "Italian tax and insurance number": is_codice_fiscale,
    "Dutch insurance number": is_bsn,
}
