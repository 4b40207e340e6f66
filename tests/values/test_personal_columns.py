"""Columns and values that say who somebody is: in eleven languages, by their form, and by published check digits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.values import personal_columns, personal_values

SAMPLES = {
    "English": "First Name, Patient's Name, PatientsName, full_name, NHS number, MRN, Hospital No, PID, SSN, "
    "Birth date, DOB, Phone, Email, e-mail address, patient address, surname, initials, Patient Name ID, notes",
    "German": "Vorname, Patientenname, Geb.-Datum, Krankenversichertennummer, PLZ, Straße, Tel., Patienten-Nr, Arzt",
    "French": "nom, prénom, Numéro de sécurité sociale, nom du patient, date_de_naissance, médecin traitant",
    "Spanish": "Apellidos, DNI, historia_clinica, Fecha de nacimiento, teléfono, dirección, nombre del paciente",
    "Italian": "cognome, Codice Fiscale, data di nascita, nome paziente, indirizzo, numero tessera sanitaria",
    "Dutch": "achternaam, BSN, geboortedatum, woonplaats, telefoonnummer, huisarts, patiëntnummer",
    "Portuguese": "sobrenome, nome do paciente, Número de utente, data de nascimento, telemóvel, morada",
    "Polish": "Imię, nazwisko, PESEL, data_urodzenia, adres, numer telefonu, numer pacjenta",
    "Turkish": "adı soyadı, T.C. Kimlik No, doğum tarihi, hasta no, hasta adı, cep telefonu",
    "Japanese": "氏名, 患者氏名, 生年月日, 患者ID, 電話番号, 住所, 担当医",
    "Chinese": "姓名, 身份证号码, 出生日期, 手机号码, 家庭住址, 住院号, 联系人",
}
OTHERS = (
    "id, case, image, label, file_name, class_name, scanner name, age, sex, birth_weight, birads, site, mask:anna, AD, "
    "NIR, series name, number_of_nodes, lesion_id, study_id, PatientAge, pathology, pattern, status, cell_type, "
    "notebook, time, event, structure, nominal, capsule, ADC, adenoma, contact_area, slice no, model name, volume ml"
)


@pytest.mark.parametrize("language", personal_columns.LANGUAGES)
def test_columns_of_people_are_known_in_each_language_and_each_kind_has_words_in_it(language):
    names = SAMPLES[language].split(", ")
    assert [name for name in names if not personal_columns.identifies_person(name)] == []
    assert [kind for kind, listed in personal_columns.KNOWN.items() if not listed[language]] == []


def test_every_listed_name_is_known_however_it_is_written():
    for kind, languages in personal_columns.KNOWN.items():
        for listed in languages.values():
            for name in listed.split(", "):
                bare = name.removeprefix("=")
                forms = [bare.lower(), bare.upper(), bare.replace(" ", "_"), f"patient_{bare}"]
                if "".join(personal_columns.column_words(bare)) in personal_columns.BARE_NUMBERS:
                    forms = forms[3:]
                found = [form for form in forms if not personal_columns.identifies_person(form)]
                assert found == [], kind


def test_columns_of_other_things_say_nothing_of_who_it_is():
    assert [name for name in OTHERS.split(", ") if personal_columns.identifies_person(name)] == []


# Examples of the issuers' own documents, and of their registers of test numbers.
NUMBERS = {
    "NHS number": ("9434765919", "943 476 5919"),
    "German insurance number": ("A123456780",),
    "French insurance number": ("255081416802538", "2 55 08 14 168 025 38"),
    "Spanish identity number": ("12345678Z", "X1234567L"),
    "Spanish insurance number": ("281234567840", "28/12345678/40"),
    "Italian tax and insurance number": ("RSSMRA85T10A562S",),
    "Dutch insurance number": ("111222333",),
    "US social security number": ("123-45-6789",),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_a_number_of_a_person_is_known_by_its_check_and_not_with_another_digit(kind):
    for number in NUMBERS[kind]:
        assert personal_values.kind_of_number(number) == kind
    for wrong in ("9434765918", "A123456781", "255081416802539", "12345678A", "RSSMRA85T10A562T", "000-45-6789"):
        assert personal_values.kind_of_number(wrong) != kind


@given(st.integers(0, 999_999_999))
def test_one_check_digit_fits_each_nhs_number(number):
    valid = [digit for digit in range(10) if personal_values.is_nhs_number(f"{number:09d}{digit}")]
    weighted = sum((10 - place) * int(digit) for place, digit in enumerate(f"{number:09d}"))
    assert len(valid) == (weighted % 11 != 1)  # 10 is no digit: such numbers are not issued


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a.person@clinic.example", "e-mail"),
        ("+49 30 1234567", "telephone"),
        ("(0151) 123456", "telephone"),
        ("1951-03-01", "date"),
        ("1.3.1951", "date"),
        ("19510301", "date"),
        ("94347659", "number of unknown meaning"),
        ("00712", "number of unknown meaning"),
        ("benign", None),
        ("12.345678901", None),
        ("-1000", None),
        ("T2", None),
    ],
)
def test_days_addresses_and_telephones_are_known_by_their_form(text, kind):
    assert personal_values.kind_of_value(text) == kind
