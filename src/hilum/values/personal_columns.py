"""Columns that say who somebody is, by their names in eleven languages, and columns whose words say it of nobody.

One list for everything that hands on what a table states: agents, tables of cases, de-identification. The kinds are
those of 45 CFR 164.514(b)(2) that a table of images can have, with free text, which may name anybody.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache

LANGUAGES = (
    "English", "German", "French", "Spanish", "Italian", "Dutch", "Portuguese", "Polish", "Turkish", "Japanese",
    "Chinese",
)  # fmt: skip
FREE_TEXT = "free text"
# {kind: {language: names of columns}}, parted by commas. A name counts wherever its words stand in a column's name,
# alone or joined; one with = before it only where nothing but words for a person stands beside it, as in patient_name.
KNOWN: Mapping[str, Mapping[str, str]] = {
    "name": {
        "English": "first name, forename, given name, middle name, last name, surname, family name, full name, maiden "
        "name, birth name, initials, nickname, alias, signature, =name, =names",
        "German": "Vorname, Nachname, Familienname, Geburtsname, Mädchenname, Rufname, Zuname, Klarname, Initialen, "
        "Namenskürzel, Unterschrift, =Name",
        "French": "prénom, nom de famille, nom de naissance, nom complet, nom usuel, initiales, =nom, =noms",
        "Spanish": "apellido, apellidos, primer apellido, segundo apellido, nombre completo, iniciales, =nombre, "
        "=nombres",
        "Italian": "cognome, nome completo, nominativo, iniziali, =nome",
        "Dutch": "voornaam, achternaam, familienaam, geboortenaam, meisjesnaam, roepnaam, tussenvoegsel, voorletters, "
        "initialen, =naam",
        "Portuguese": "sobrenome, apelido, nome completo, nome próprio, nome de família, iniciais, =nome",
        "Polish": "imię, imiona, nazwisko, inicjały",
        "Turkish": "soyad, soyadı, ad soyad, adı soyadı, soyisim, isim soyisim, baş harfleri, =adı, =isim",
        "Japanese": "氏名, 姓名, 名前, 苗字, 名字, 患者名, ふりがな, フリガナ, イニシャル, =姓, =名",
        "Chinese": "姓名, 全名, 名字, 患者名称, 曾用名, 签名, =姓",
    },
    "number": {
        "English": "MRN, medical record number, medical record no, medical record id, record number, hospital number, "
        "hospital no, hospital id, NHS number, NHS no, NHS, CHI number, SSN, social security number, social security "
        "no, social security, insurance number, insurance no, insurance id, policy number, member number, health card "
        "number, health number, national id, national insurance number, identity number, identity card, passport "
        "number, passport no, passport, driving licence, driver license, accession, accession number, accession no, "
        "encounter number, encounter id, account number, account no, admission number, admission no, chart number, "
        "chart no, unit number, tax number, =PID, =number, =no, =id",
        "German": "Patientennummer, Fallnummer, Fall-Nr, Aufnahmenummer, Krankenversichertennummer, "
        "Versichertennummer, Versicherungsnummer, Sozialversicherungsnummer, KVNR, SVNR, Krankenkassennummer, "
        "Ausweisnummer, Personalausweis, Reisepass, Passnummer, Steuernummer, Steuer-ID, Aktenzeichen, Aktennummer, "
        "Auftragsnummer, Anforderungsnummer, Personalnummer, =Nummer, =Nr, =Kennung",
        "French": "numéro de sécurité sociale, numéro sécurité sociale, sécurité sociale, numéro d'assuré, IPP, "
        "numéro de dossier, identifiant permanent, numéro d'identité, carte vitale, numéro de passeport, passeport, "
        "numéro d'accession, matricule, =numéro, =identifiant",
        "Spanish": "historia clínica, número de historia, NHC, número de la seguridad social, número de seguridad "
        "social, seguridad social, NUSS, número de afiliación, tarjeta sanitaria, CURP, pasaporte, cédula, documento "
        "de identidad, número de documento, =DNI, =NIE, =NIF, =RUT, =CIP, =número, =identificador",
        "Italian": "codice fiscale, cartella clinica, numero di cartella, numero cartella, tessera sanitaria, numero "
        "tessera, codice sanitario, nosologico, carta d'identità, passaporto, =codice, =numero",
        "Dutch": "BSN, burgerservicenummer, sofinummer, patiëntnummer, patientnr, ZIS-nummer, verzekerdennummer, "
        "polisnummer, dossiernummer, paspoort, paspoortnummer, opnamenummer, =nummer",
        "Portuguese": "número de utente, número do utente, número do processo, número de processo, número do "
        "prontuário, prontuário, CPF, cartão nacional de saúde, cartão de saúde, número de beneficiário, segurança "
        "social, NISS, cartão de cidadão, bilhete de identidade, passaporte, =RG, =número",
        "Polish": "PESEL, numer historii choroby, numer dowodu, dowód osobisty, numer ubezpieczenia, numer księgi "
        "głównej, numer dokumentu, numer kartoteki, numer paszportu, paszport, =numer",
        "Turkish": "TC kimlik no, TC kimlik numarası, TC kimlik, kimlik no, kimlik numarası, TCKN, dosya no, dosya "
        "numarası, protokol no, protokol numarası, SGK no, sicil no, pasaport, vatandaşlık no, =numara, =no",
        "Japanese": "患者番号, 患者ID, 被保険者番号, 保険証番号, マイナンバー, 個人番号, カルテ番号, 診察券番号, "
        "病歴番号, 受付番号, 登録番号",
        "Chinese": "身份证, 身份证号, 病历号, 住院号, 门诊号, 医保号, 社保号, 患者编号, 病人编号, 就诊卡号, 护照, "
        "病案号, 检查号, 影像号, 登记号",
    },
    "date of birth or death": {
        "English": "birth date, date of birth, DOB, birthday, year of birth, birth year, place of birth, birth place, "
        "date of death, death date, DOD, =birth",
        "German": "Geburtsdatum, Geburtstag, Geburtsjahr, Geburtsort, Gebdatum, Geb-Datum, Sterbedatum, Todesdatum, "
        "Todestag, =Geb",
        "French": "date de naissance, date naissance, année de naissance, lieu de naissance, DDN, date de décès, "
        "=naissance",
        "Spanish": "fecha de nacimiento, fecha nacimiento, fecha nac, fec nac, lugar de nacimiento, fecha de "
        "defunción, fecha de fallecimiento, =nacimiento",
        "Italian": "data di nascita, data nascita, anno di nascita, luogo di nascita, data di morte, data decesso, "
        "=nascita",
        "Dutch": "geboortedatum, geboortedag, geboortejaar, geboorteplaats, overlijdensdatum",
        "Portuguese": "data de nascimento, data nascimento, ano de nascimento, local de nascimento, naturalidade, data "
        "de óbito, data do óbito, =nascimento",
        "Polish": "data urodzenia, rok urodzenia, miejsce urodzenia, data zgonu",
        "Turkish": "doğum tarihi, doğum günü, doğum yılı, doğum yeri, ölüm tarihi",
        "Japanese": "生年月日, 出生年月日, 誕生日, 出生日, 死亡日",
        "Chinese": "出生日期, 出生年月, 生日, 出生地, 死亡日期",
    },
    "telephone": {
        "English": "phone, phone number, telephone, telephone number, mobile number, mobile phone, cell phone, fax, "
        "fax number, =mobile, =tel",
        "German": "Telefon, Telefonnummer, Handy, Handynummer, Mobiltelefon, Mobilnummer, Festnetz, Rufnummer, Telefax",
        "French": "téléphone, numéro de téléphone, téléphone portable, télécopie, =portable, =tél",
        "Spanish": "teléfono, teléfono móvil, número de teléfono, =móvil, =celular",
        "Italian": "telefono, cellulare, numero di telefono, recapito telefonico, recapito",
        "Dutch": "telefoon, telefoonnummer, mobiele telefoon, =mobiel, =gsm",
        "Portuguese": "telefone, telemóvel, número de telefone, contato telefônico, =celular",
        "Polish": "telefon, numer telefonu, telefon komórkowy",
        "Turkish": "telefon, telefon numarası, cep telefonu, =cep",
        "Japanese": "電話, 電話番号, 携帯電話, 携帯番号, ファックス",
        "Chinese": "电话, 电话号码, 手机, 手机号, 联系电话, 联系方式, 传真",
    },
    "e-mail and accounts": {
        "English": "email, e-mail, email address, mail address, user name, login, IP address, =mail, =account",
        "German": "E-Mail-Adresse, Mailadresse, Benutzername, Nutzername, Anmeldename",
        "French": "courriel, adresse électronique, adresse mail, nom d'utilisateur",
        "Spanish": "correo electrónico, dirección de correo, nombre de usuario, =correo",
        "Italian": "posta elettronica, indirizzo email, nome utente, =PEC",
        "Dutch": "e-mailadres, mailadres, gebruikersnaam",
        "Portuguese": "correio eletrônico, correio electrónico, endereço eletrônico, nome de usuário",
        "Polish": "adres email, poczta elektroniczna, nazwa użytkownika",
        "Turkish": "e-posta, e-posta adresi, kullanıcı adı",
        "Japanese": "メールアドレス, 電子メール, ユーザー名, =メール",
        "Chinese": "电子邮件, 电子邮箱, 邮箱, 用户名",
    },
    "address": {
        "English": "address, street, street address, home address, post code, postcode, postal code, zip code, house "
        "number, place of residence, residence, =zip, =city, =town, =village",
        "German": "Adresse, Anschrift, Straße, Hausnummer, PLZ, Postleitzahl, Wohnort, Wohnsitz, =Ort, =Stadt",
        "French": "adresse, code postal, domicile, lieu de résidence, =rue, =ville, =commune",
        "Spanish": "dirección, domicilio, código postal, municipio, localidad, =calle, =ciudad",
        "Italian": "indirizzo, codice postale, residenza, comune di residenza, domicilio, =città",
        "Dutch": "adres, straat, huisnummer, woonplaats, postcode",
        "Portuguese": "endereço, morada, código postal, bairro, residência, =CEP, =rua, =cidade",
        "Polish": "adres, ulica, kod pocztowy, miejscowość, miejsce zamieszkania, =miasto",
        "Turkish": "adres, sokak, mahalle, posta kodu, ikametgah, =ilçe",
        "Japanese": "住所, 現住所, 郵便番号, 居住地",
        "Chinese": "地址, 住址, 家庭住址, 邮编, 邮政编码, 户籍",
    },
    "relatives, physicians and employers": {
        "English": "next of kin, mother name, mothers name, father name, fathers name, spouse, guardian, emergency "
        "contact, contact person, physician, doctor, general practitioner, consultant, radiologist, surgeon, operator, "
        "nurse, referrer, reported by, performed by, requested by, employer, =contact, =GP",
        "German": "Angehörige, Arzt, Hausarzt, Überweiser, Zuweiser, Einweiser, Befunder, Operateur, Ansprechpartner, "
        "Kontaktperson, Notfallkontakt, Arbeitgeber",
        "French": "médecin, médecin traitant, chirurgien, personne à contacter, nom de la mère, employeur",
        "Spanish": "médico, médico tratante, cirujano, persona de contacto, nombre de la madre, empleador",
        "Italian": "medico, medico curante, medico di base, chirurgo, persona di contatto, datore di lavoro",
        "Dutch": "huisarts, behandelaar, verwijzer, contactpersoon, werkgever",
        "Portuguese": "médico, médico assistente, cirurgião, pessoa de contato, nome da mãe, empregador",
        "Polish": "lekarz, lekarz prowadzący, osoba kontaktowa, imię matki, imię ojca, pracodawca",
        "Turkish": "doktor, hekim, anne adı, baba adı, yakını, işveren",
        "Japanese": "医師, 担当医, 主治医, 緊急連絡先, 連絡先, 保護者, 勤務先",
        "Chinese": "医生, 主治医生, 医师, 联系人, 家属, 监护人, 工作单位",
    },
    FREE_TEXT: {
        "English": "comment, comments, remark, remarks, note, notes, free text, narrative, clinical history, =history",
        "German": "Bemerkung, Bemerkungen, Kommentar, Kommentare, Freitext, Anamnese, Notiz, Notizen, Anmerkung",
        "French": "commentaire, commentaires, remarque, remarques, observations, texte libre",
        "Spanish": "comentario, comentarios, observaciones, notas, texto libre",
        "Italian": "commento, commenti, osservazioni, anamnesi, testo libero",
        "Dutch": "opmerking, opmerkingen, toelichting, notitie, vrije tekst",
        "Portuguese": "comentário, comentários, observações, anamnese, texto livre",
        "Polish": "komentarz, uwagi, notatki, wywiad",
        "Turkish": "yorum, açıklama, notlar",
        "Japanese": "備考, コメント, メモ, 自由記載",
        "Chinese": "备注, 注释, 评论, 病史",
    },
}
# Words for a person that may stand beside a name or a number, alone or joined to it, and words without meaning.
PERSON = (
    "patient", "patients", "patienten", "patientin", "pat", "subject", "participant", "person", "client", "proband",
    "probanden", "teilnehmer", "paciente", "pacientes", "paziente", "pazienti", "pacjent", "pacjenta", "hasta",
    "utente", "患者", "病人",
)  # fmt: skip
FILLERS = frozenset({"s", "the", "of", "de", "du", "der", "des", "del", "della", "di", "do", "da", "van", "la", "le"})
# Columns whose words are about the image, the disease or the cohort; in the tables of this field they name nobody.
PLAIN = frozenset((
    "age", "age group", "sex", "gender", "male", "female", "ethnicity", "race", "height", "weight", "site", "center",
    "centre", "institution", "scanner", "manufacturer", "vendor", "model", "device", "protocol", "sequence", "kernel",
    "modality", "contrast", "phase", "view", "view position", "plane", "orientation", "laterality", "side", "eye",
    "organ", "body part", "region", "location", "anatomical site", "grade", "stage", "severity", "t", "n", "m", "tnm",
    "histology", "subtype", "diagnosis", "dx", "dx type", "label", "class", "class name", "label name", "category",
    "target", "pathology", "finding", "findings", "finding labels", "birads", "density", "smoking", "smoker", "status",
    "event", "outcome", "response", "arm", "treatment", "therapy", "group", "cohort", "fold", "split", "subset",
    "partition", "source", "dataset", "quality", "unit",
))  # fmt: skip
# A column of which nothing else is known may number anything.
BARE_NUMBERS = frozenset({"id", "no", "number", "numero", "numer", "nummer", "nr", "numara", "codice", "kennung"})
LETTERS = {"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "ß": "ss", "ı": "i", "đ": "d", "Đ": "D", "æ": "ae", "œ": "oe"}
FIRST_SIGN = "\u2e80"  # from here on lie the scripts of East Asia, which part no words
# A word; ABCName is two, patientID too.
WORD = re.compile(r"[A-Z]+(?![a-z])s?|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")
LONGEST = 6  # words of a listed name


def identifies_person(column: str) -> bool:
    """Whether a column's name says that it identifies somebody, or is free text: it enters no table of cases."""
    return kind_of_column(column) is not None


def kind_of_column(column: str) -> str | None:
    """The kind of what a column says of a person, by its name; None where the list does not have it."""
    names_within, names_alone, names_in_signs = _listed()
    compact = unicodedata.normalize("NFKC", column).casefold()
    for name, kind in names_in_signs.items():
        if name in compact:
            return kind
    words = column_words(column)
    joined = {"".join(words[a:b]) for a in range(len(words)) for b in range(a + 1, min(a + LONGEST, len(words)) + 1)}
    if found := sorted(joined & names_within.keys(), key=len):
        return names_within[found[-1]]
    others = [word for word in words if word not in PERSON and word not in FILLERS]
    if others and all(word in names_alone for word in others) and not (len(words) == 1 and words[0] in BARE_NUMBERS):
        return names_alone[others[0]]
    for word in words:
        for person in PERSON:
            if word.startswith(person) and (rest := word.removeprefix(person)) in {**names_within, **names_alone}:
                return names_within.get(rest) or names_alone[rest]
    return None


def is_plain_column(column: str) -> bool:
    """Whether a column is one of those whose words name nobody."""
    return " ".join(column_words(column)) in PLAIN or "".join(column_words(column)) in _plain_joined()


def column_words(column: str) -> tuple[str, ...]:
    """The words of a column's name, without accents and case: PatientsName and "Patient's name" hold the same."""
    composed = unicodedata.normalize("NFC", column)
    plain = "".join(LETTERS.get(letter, letter) for letter in unicodedata.normalize("NFKD", composed))
    bare = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return tuple(word.casefold() for word in WORD.findall(bare))


@cache
def _plain_joined() -> frozenset[str]:
    return frozenset(name.replace(" ", "") for name in PLAIN)


@cache
def _listed() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """{name: kind} of names that count within others, of those that count alone, and of those in signs."""
    names_within, names_alone, names_in_signs = dict[str, str](), dict[str, str](), dict[str, str]()
    for kind, languages in KNOWN.items():
        for name in (name.strip() for listed in languages.values() for name in listed.split(",")):
            bare = name.removeprefix("=")
            joined = "".join(column_words(bare.casefold()))
            if name != bare:
                names_alone.setdefault(joined, kind)
            elif any(letter >= FIRST_SIGN for letter in bare):
                names_in_signs[unicodedata.normalize("NFKC", bare).casefold()] = kind
            else:
                names_within.setdefault(joined, kind)
    return names_within, names_alone, names_in_signs
